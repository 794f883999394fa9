"""Runs cases in parallel, each in its own process on one thread."""

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Any

import torch
from threadpoolctl import threadpool_limits

from kappaflow.errors import KappaflowError, NumericalError

Case = dict[str, Any]
Row = dict[str, Any]
Measure = Callable[[Case], Sequence[Row]]
Measured = tuple[Case, Sequence[Row], float]  # a case, its rows and its seconds


def measured(measure: Measure, cases: Sequence[Case], *, processes: int) -> Iterator[Measured]:
    """Yields each case with its rows and its seconds, in the order in which they end."""
    if processes == 1 or len(cases) <= 1:
        for case in cases:
            yield _measure(measure, case)
        return
    context = multiprocessing.get_context("spawn")  # torch's threads do not survive a fork
    workers = min(processes, len(cases))
    with ProcessPoolExecutor(workers, context, initializer=_prepare_process) as pool:
        try:
            waiting = {pool.submit(_measure, measure, case) for case in cases}
            while waiting:  # where polars is loaded, Ctrl-C is heard only after a wait
                done, waiting = wait(waiting, timeout=0.2, return_when=FIRST_COMPLETED)
                for future in done:
                    yield future.result()
        except BrokenProcessPool:
            raise NumericalError(
                "a process was killed while it measured, perhaps because memory ran out: run the "
                "same command again to resume. With --processes 1 it needs less memory."
            ) from None
        except BaseException:  # Ctrl-C, a failure: do not wait for running cases
            pool.shutdown(wait=False, cancel_futures=True)
            for child in multiprocessing.active_children():
                child.terminate()
            raise


def _measure(measure: Measure, case: Case) -> Measured:
    """Returns a case with its rows, measured on one thread."""
    threads, started = torch.get_num_threads(), time.perf_counter()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(1):
            rows = [dict(row) for row in measure(case)]
    except KappaflowError as error:
        described = ", ".join(f"{key} {value}" for key, value in case.items())
        raise type(error)(f"the case {described} failed: {error}") from None
    finally:
        torch.set_num_threads(threads)
    return case, rows, time.perf_counter() - started


def _prepare_process() -> None:
    """Makes a process leave Ctrl-C to its parent, and end when the parent does."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: Any) -> None:  # noqa: ANN401
    parent.join()
    os._exit(1)
