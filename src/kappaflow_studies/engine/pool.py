"""Measures cases in parallel, each on one thread."""

import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
from threadpoolctl import threadpool_limits

from kappaflow.errors import KappaflowError
from kappaflow.runs.pool import in_processes

Case = dict[str, Any]
Row = dict[str, Any]
Measure = Callable[[Case], Sequence[Row]]
Measured = tuple[Case, Sequence[Row], float]  # a case, its rows and its seconds


def measured(measure: Measure, cases: Sequence[Case], *, processes: int) -> Iterator[Measured]:
    """Yields each case with its rows and its seconds, in the order in which they end."""
    yield from in_processes(partial(_measure, measure), cases, processes=processes)


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
