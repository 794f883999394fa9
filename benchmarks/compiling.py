"""What `torch.compile` does to a training step of our flows."""

from collections.abc import Callable
from functools import partial
from statistics import median
from typing import Any

import torch
from torch import Tensor

import kappaflow as kf
from benchmarks.processes import console
from benchmarks.tables import markdown
from benchmarks.turns import in_turn, timed

FLOWS: dict[str, Callable[..., kf.Flow]] = {"real_nvp": kf.real_nvp, "spline": kf.spline}
HEAD = ("flow", "memory", "first step, compiled [s]", "later steps, compiled / not")


def compiling(
    *, rows: int = 512, features: int = 10, depth: int = 8, width: int = 64, repetitions: int = 40
) -> None:
    """Print how long the first compiled step takes, and the ratio of later ones, interleaved.

    One thread. A step is log_prob and gradients.

    Parameters
    ----------
    rows
        Of a batch.
    features
        Its columns.
    depth
        Couplings of a flow.
    width
        Units of each of the two layers of its conditioners.
    repetitions
        Of each step; medians are compared.
    """
    torch.set_num_threads(1)
    x, table = torch.randn(rows, features), []
    shape: dict[str, Any] = {"depth": depth, "hidden": (width, width)}
    for name, make in FLOWS.items():
        for memory in ("store", "recompute"):
            torch.compiler.reset()
            flow = make(features, **shape, memory=memory)
            compiled = torch.compile(flow.log_prob)
            first_s = timed(partial(_step, flow, compiled, x))
            calls = {"not": flow.log_prob, "compiled": compiled}
            takes = {key: partial(timed, partial(_step, flow, f, x)) for key, f in calls.items()}
            times = {key: median(taken) for key, taken in in_turn(takes, repetitions).items()}
            ratio = times["compiled"] / times["not"]
            table.append([name, memory, f"{first_s:.1f}", f"{ratio:.2f}"])
            console.print(f"{name}, {memory}: {first_s:.1f} s, {times}")
    print(f"{rows} rows of {features} columns, {depth} couplings\n\n{markdown(HEAD, table)}")


def _step(flow: kf.Flow, log_prob: Callable[[Tensor], Tensor], x: Tensor) -> None:
    flow.zero_grad()
    (-log_prob(x).mean()).backward()
