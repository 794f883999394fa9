"""The time of the doctor and of its page, for flows with noise on their weights."""

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor

import kappaflow as kf
from benchmarks.lines import Line, write_results
from benchmarks.machine import machine
from benchmarks.ours import noisy
from benchmarks.processes import console
from benchmarks.suite import KEPT, JsonFile
from benchmarks.tables import markdown, number

NOISE = 0.02  # standard deviation of the noise on all parameters
LIMITS = {"couplings": 10.0, "Glow": 30.0}  # goals in seconds, on one thread
HEADS = {
    "flow": "",
    "dimensions": "dimensions",
    "layers": "layers",
    "points": "points",
    "condition_number": "condition number, median",
    "limit_s": "aimed at [s]",
    "time_s": "taken [s]",
    "log_probs": "in calls of log_prob",
}


def doctor(
    *,
    threads: int = 1,
    repetitions: int = 3,
    small: bool = False,
    file: JsonFile = KEPT / "doctor.json",
) -> None:
    """Time `kappaflow.doctor` and its page: 32 couplings of 64 features, a Glow of 24 steps.

    The Glow is for 3 x 32 x 32 images, with 8 steps in each of 3 levels. Calls of log_prob at the
    same points are timed before and after each diagnosis. Times are processor times: on one
    thread, they are the elapsed time on an idle machine. The file also has the elapsed times.

    Parameters
    ----------
    threads
        Number of threads of torch.
    repetitions
        Number of repetitions; the medians are kept.
    small
        Use flows of a few layers, to test the benchmark.
    file
        File of results.
    """
    torch.set_num_threads(threads)
    lines = [measured(name, *make(), repetitions) for name, make in cases(small=small).items()]
    console.print(doctor_table(lines), markup=False, soft_wrap=True)
    write_results(
        file, {"machine": machine(), "noise": NOISE, "repetitions": repetitions, "lines": lines}
    )


def cases(*, small: bool) -> dict[str, Callable[[], tuple[kf.Flow, Tensor]]]:
    """Returns functions that make the flows and their points, by name."""
    depth, side, steps = (2, 8, 1) if small else (32, 32, 8)
    shape = (3, side, side)
    return {
        "couplings": lambda: noisy(lambda: kf.real_nvp(64, depth=depth), (256, 64), NOISE),
        "Glow": lambda: noisy(lambda: kf.glow(shape, steps=steps), (16, *shape), NOISE),
    }


def measured(name: str, flow: kf.Flow, x: Tensor, repetitions: int) -> Line:
    """Returns the times of a diagnosis with its page."""
    found = [_once(flow, x) for _ in range(repetitions)]
    times = {key: median(one[key] for one in found) for key in found[0] if key != "diagnosis"}
    diagnosis = found[0]["diagnosis"]
    return {
        "flow": name,
        "dimensions": x[0].numel(),
        "layers": diagnosis.measured["layers"],
        "points": diagnosis.measured["points"],
        "condition_number": diagnosis.measured["condition_number_median"],
        "limit_s": LIMITS[name],
        **times,
    }


def _once(flow: kf.Flow, x: Tensor) -> dict[str, Any]:
    before, began = _log_prob_s(flow, x), time.perf_counter()
    start = time.process_time()
    diagnosis = kf.doctor(flow, x)
    between = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        kf.write_diagnosis(diagnosis, Path(folder) / "page.html")
    end, clock_s = time.process_time(), time.perf_counter() - began
    one = (before + _log_prob_s(flow, x)) / 2
    return {
        "diagnosis": diagnosis,
        "time_s": end - start,
        "clock_s": clock_s,
        "page_s": end - between,
        "log_probs": (end - start) / one,
    }


def _log_prob_s(flow: kf.Flow, x: Tensor, calls: int = 9) -> float:
    """Returns the median time of a call of log_prob."""
    times = []
    with torch.no_grad():
        for _ in range(calls):
            start = time.process_time()
            flow.log_prob(x)
            times.append(time.process_time() - start)
    return median(times)


def doctor_table(lines: list[Line]) -> str:
    """Returns the table of the page."""
    rows = [[_cell(line[key]) for key in HEADS] for line in lines]
    return markdown(list(HEADS.values()), rows)


def _cell(value: str | float) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, int) or value > 99:
        return f"{value:,.0f}"
    return number(value)
