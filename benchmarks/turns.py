"""Times taken in turn, so that all share the same moments of the machine."""

import time
from collections.abc import Callable, Mapping


def timed(call: Callable[[], object]) -> float:
    """Returns how long a call takes, in seconds."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def in_turn(takes: Mapping[str, Callable[[], float]], repetitions: int) -> dict[str, list[float]]:
    """Returns what each gives, in as many rounds; no one always follows the same other."""
    names = list(takes)
    found: dict[str, list[float]] = {name: [] for name in names}
    for repetition in range(repetitions):
        first = repetition % len(names)
        for name in names[first:] + names[:first]:
            found[name].append(takes[name]())
    return found
