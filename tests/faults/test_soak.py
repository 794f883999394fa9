"""A training that holds more at its end than when it was warm is seen."""


def test_what_grows_is_named(part):
    """Memory beyond the bound, an open file more, a thread more; not one that comes and goes."""
    soak, held = part("soak"), part("processes").Held
    steady = [held(10**8 + i % 2, 0, 5 + i % 2, 3) for i in range(100)]
    assert soak.grown(steady) == []
    more = [held(10**8 + 10**6 * i, 0, 5 + i // 50, 3 + i // 90) for i in range(100)]
    assert soak.grown(more) == ["memory", "files", "threads"]
    assert soak.grown([]) == ["memory", "files", "threads"]


def test_a_process_that_has_ended_holds_nothing(part):
    """Numbers of processes end at 2^22."""
    assert part("processes").held_by(2**23) is None
