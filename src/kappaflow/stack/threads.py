"""Splits the rows of a batch across threads; each takes its rows through a block of layers.

With several threads per matrix product, threads would wait for each other at every product, and
spin while they wait. Threads that own rows wait only twice per block. Matrix products are
single-threaded while a block runs, so that no spinning thread occupies a core that others need.
"""

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager

import torch

_lock = threading.Lock()
_pools: dict[int, ThreadPoolExecutor] = {}


def row_threads() -> int:
    """Returns the number of threads for rows; by default the thread count of torch.

    The environment variable KAPPAFLOW_THREADS overrides it.
    """
    setting = os.environ.get("KAPPAFLOW_THREADS", "")
    return int(setting) if setting.isdecimal() and int(setting) else torch.get_num_threads()


@contextmanager
def single_products() -> Iterator[None]:
    """Makes matrix products of the calling thread single-threaded within the context."""
    threads = torch.get_num_threads()
    if threads == 1:
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def run_all(tasks: Sequence[Callable[[], None]]) -> None:
    """Runs tasks in parallel, the last one on the calling thread, and raises the first error."""
    *others, own = tasks
    waiting = [_pool(len(others)).submit(task) for task in others]
    try:
        own()
    finally:
        wait(waiting)
    for future in waiting:
        future.result()


def _pool(workers: int) -> ThreadPoolExecutor:
    with _lock:
        if workers not in _pools:
            _pools[workers] = ThreadPoolExecutor(workers, "kappaflow", initializer=_alone)
        return _pools[workers]


def _alone() -> None:
    """Makes matrix products single-threaded in a new worker thread."""
    torch.set_num_threads(1)


def _after_fork() -> None:
    """Drops the thread pools in a forked process, which does not inherit their threads."""
    global _lock
    _lock = threading.Lock()
    _pools.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
