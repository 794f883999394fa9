"""`in_processes`: calls in parallel, each in its own process on one thread."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

import torch

from kappaflow.errors import NumericalError

Item = TypeVar("Item")
Result = TypeVar("Result")


def in_processes(
    call: Callable[[Item], Result], items: Sequence[Item], *, processes: int
) -> Iterator[Result]:
    """Yields the results of a call with each item, in the order in which they end.

    With one process, or one item, this process makes the calls. Ctrl-C ends all processes.
    """
    if processes == 1 or len(items) <= 1:
        yield from map(call, items)
        return
    context = multiprocessing.get_context("spawn")  # torch's threads do not survive a fork
    workers = min(processes, len(items))
    with ProcessPoolExecutor(workers, context, initializer=_prepare_process) as pool:
        try:
            waiting = {pool.submit(call, item) for item in items}
            while waiting:  # where polars is loaded, Ctrl-C is heard only after a wait
                done, waiting = wait(waiting, timeout=0.2, return_when=FIRST_COMPLETED)
                for future in done:
                    yield future.result()
        except BrokenProcessPool:
            raise NumericalError(
                "a process was killed while it measured, perhaps because memory ran out: run the "
                "same command again to resume. With --processes 1 it needs less memory."
            ) from None
        except BaseException:  # Ctrl-C, a failure: do not wait for running calls
            pool.shutdown(wait=False, cancel_futures=True)
            for child in multiprocessing.active_children():
                child.terminate()
            raise


def _prepare_process() -> None:
    """Gives a process one thread, and lets it leave Ctrl-C to its parent and end with it."""
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: Any) -> None:
    parent.join()
    os._exit(1)
