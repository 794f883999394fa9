"""Rows of a batch on several threads: each has its own rows through the whole run.

Threads inside a product wait for each other at every product, and spin while they wait; threads
that own rows meet twice a run. So products run on one thread each while a run is under way: a
thread that spins would take the core of one that works.
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
    """Returns on how many threads rows are spread: as many as torch has for its products.

    The environment variable KAPPAFLOW_THREADS sets another number.
    """
    given = os.environ.get("KAPPAFLOW_THREADS", "")
    return int(given) if given.isdecimal() and int(given) else torch.get_num_threads()


@contextmanager
def single_products() -> Iterator[None]:
    """Makes matrix products of the calling thread single-threaded."""
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
    """Runs tasks at the same time, the last one on the calling thread; the first error is raised.

    Args:
        tasks: What to ops, with `single_products`. They must not call this function.
    """
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
    """Makes matrix products of a thread single-threaded."""
    torch.set_num_threads(1)


def _after_fork() -> None:
    """A forked process has none of the threads."""
    global _lock
    _lock = threading.Lock()
    _pools.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
