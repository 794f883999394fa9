"""Times measured in turn, so that changes of the machine's speed affect all in the same way."""

import time
from collections.abc import Callable, Mapping


def timed(call: Callable[[], object]) -> float:
    """Returns the time of a call in seconds."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def in_turn(takes: Mapping[str, Callable[[], float]], repetitions: int) -> dict[str, list[float]]:
    """Returns the results of each over several rounds, in changing order."""
    names = list(takes)
    found: dict[str, list[float]] = {name: [] for name in names}
    for repetition in range(repetitions):
        first = repetition % len(names)
        for name in names[first:] + names[:first]:
            found[name].append(takes[name]())
    return found
