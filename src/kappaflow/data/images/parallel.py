"""Work on many images at once: a few runs of positions for each core."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np

from kappaflow.data.table import IntArray

T = TypeVar("T")

RUNS_PER_THREAD = 4  # files take different times; and a failure or Ctrl-C need not wait for all
LEAST_PER_THREAD = 8


def in_threads(work: Callable[[IntArray], T], positions: IntArray) -> list[T]:
    """Returns what `work` returns for runs of positions, in their order.

    The threads end with the call: starting them takes less than decoding one image, and none is
    left over that a fork would lose.
    """
    threads = min(core_count(), len(positions) // LEAST_PER_THREAD)
    if threads <= 1:
        return [work(positions)]
    runs = np.array_split(positions, min(threads * RUNS_PER_THREAD, len(positions)))
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(work, runs))


def core_count() -> int:
    """Returns the number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
