"""The effect of `torch.compile` on a training step of our flows, and of a flow of zuko."""

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
from kappaflow.autograd.checkpoint import LAYER_MODES, MEMORY_MODES
from kappaflow.training.likelihood import Likelihood

HEAD = (
    "flow",
    "memory",
    "first step [s]",
    "later steps, compiled / not",
    "gradients off by",
)


def compiling(
    *, rows: int = 512, features: int = 10, depth: int = 8, width: int = 64, repetitions: int = 40
) -> None:
    """Print the cost of compilation in the first step, and its effect on later steps.

    It runs on one thread. A step is log_prob and gradients, as in `fit`. The first step is short
    if torch has compiled the same code before: set TORCHINDUCTOR_CACHE_DIR to an empty folder.

    Parameters
    ----------
    rows
        Number of rows of a batch.
    features
        Number of columns.
    depth
        Number of couplings of a flow; the flow of zuko has a quarter, each of all features.
    width
        Number of units of each of the two hidden layers.
    repetitions
        Number of repetitions of each step, in turn; medians are compared.
    """
    torch.set_num_threads(1)
    x, table = torch.randn(rows, features), []
    for name, (memory, make) in _flows(features, depth, width):
        torch.manual_seed(0)
        steps = Likelihood(make(), compiled=True)
        steps(x, None, False)  # initializes layers that start from data
        first_s = timed(partial(_step, steps, x, is_whole=True))
        takes = {
            key: partial(timed, partial(_step, steps, x, is_whole=key == "compiled"))
            for key in ("not", "compiled")
        }
        times = {key: median(taken) for key, taken in in_turn(takes, repetitions).items()}
        plain, compiled = (_gradient(steps, x, is_whole=is_whole) for is_whole in (False, True))
        off = ((compiled - plain).norm() / plain.norm()).item()
        ratio = times["compiled"] / times["not"]
        table.append([name, memory, f"{first_s:.0f}", f"{ratio:.2f}", f"{off:.1g}"])
        console.print(f"{table[-1]}, {times}")
    print(f"{rows} rows of {features} columns, {depth} couplings\n\n{markdown(HEAD, table)}")


def _flows(
    features: int, depth: int, width: int
) -> list[tuple[str, tuple[str, Callable[[], kf.Flow]]]]:
    shape: dict[str, Any] = {"depth": depth, "hidden": (width, width)}
    of_memory = {"real_nvp": kf.real_nvp, "spline": kf.spline}
    found = [
        (name, (memory, partial(make, features, **shape, memory=memory)))
        for name, make in of_memory.items()
        for memory in MEMORY_MODES
    ]
    zuko = partial(kf.zuko_flow, features, "nsf", depth=max(1, depth // 4), hidden=(width, width))
    drawing = partial(kf.spline, features, **shape, dropout=0.1)
    found += [("spline, dropout 0.1", (m, partial(drawing, memory=m))) for m in LAYER_MODES]
    others = {"planar": partial(kf.planar, features, depth=depth), "zuko NSF": zuko}
    return found + [(name, ("", make)) for name, make in others.items()]


def _step(steps: Likelihood, x: Tensor, *, is_whole: bool) -> None:
    steps.zero_grad()
    (-steps(x, None, is_whole).mean()).backward()


def _gradient(steps: Likelihood, x: Tensor, *, is_whole: bool) -> Tensor:
    """Returns the gradients of all parameters as one vector; the random numbers never change."""
    torch.manual_seed(0)
    _step(steps, x, is_whole=is_whole)
    return torch.cat([p.grad.flatten() for p in steps.parameters() if p.grad is not None])
