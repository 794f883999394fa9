"""Compares flows with rows drawn from them, and counts how often a right flow is not "good"."""

import time
from collections import Counter
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

import kappaflow as kf
from kappaflow.flows import NormalMixture, StudentT
from kappaflow.goodness.goodness import goodness_of
from kappaflow.goodness.inputs import Inputs

ROWS = (60, 200, 500, 2_000)
WIDTHS = (1, 2, 5, 20)  # columns
SIZE = 0.5  # of random weights
LARGEST_WEIGHT = 4.0  # of weighted rows, over the smallest

Maker = Callable[[int, int], kf.Flow]  # a flow of some columns, by a seed


def _random(flow: kf.Flow, seed: int) -> kf.Flow:
    """Returns a flow with random weights."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in flow.parameters():
            weight += SIZE * torch.randn(weight.shape, generator=generator)
    return flow.eval()


def _linear(columns: int, seed: int) -> kf.Flow:
    return _random(kf.Flow(kf.StandardNormal(columns), kf.bijections.LULinear(columns)), seed)


def _mixture(columns: int, seed: int) -> kf.Flow:
    base = NormalMixture(columns, components=3)
    return _random(kf.Flow(base, kf.bijections.ElementwiseAffine(columns)), seed)


def _student(columns: int, seed: int) -> kf.Flow:
    base = StudentT(columns, degrees=1.0 + (1 + seed % 4) / 2)
    return kf.Flow(base, kf.bijections.ElementwiseAffine(columns)).eval()


def _spline(columns: int, seed: int, context: int = 0, bound: str | None = None) -> kf.Flow:
    columns = max(2, columns) if bound == "circular" else columns  # one has nothing to read
    bounds = None if bound is None else [bound] * columns
    flow = kf.spline(
        columns, depth=3, hidden=(16,), context_features=context, bounds=bounds,
    )  # fmt: skip
    return _random(flow, seed)


#: Kinds of flows, with the context of rows if they have one.
KINDS: dict[str, tuple[Maker, str]] = {
    "normal": (_linear, ""),
    "mixture": (_mixture, ""),
    "Student t": (_student, ""),
    "spline": (_spline, ""),
    "bounded": (lambda columns, seed: _spline(columns, seed, bound="0,1"), ""),
    "positive": (lambda columns, seed: _spline(columns, seed, bound="positive"), ""),
    "circular": (lambda columns, seed: _spline(columns, seed, bound="circular"), ""),
    "conditional": (lambda columns, seed: _spline(columns, seed, 2), "continuous"),
    "classes": (lambda columns, seed: _spline(columns, seed, 2), "classes"),
    "rounded": (_linear, "rounded"),
    "weighted": (_linear, "weighted"),
    "weighted conditional": (
        lambda columns, seed: _spline(columns, seed, 2),
        "continuous weighted",
    ),
}


def _rows(
    flow: kf.Flow, number: int, options: str, generator: torch.Generator
) -> tuple[Tensor, Tensor | None, np.ndarray | None]:
    """Returns rows drawn from a flow, their context, and weights that depend on their values."""
    count = 10 * number if "weighted" in options else number
    context = None
    if flow.context_features:
        context = torch.randn(count, flow.context_features, generator=generator)
    if "classes" in options and context is not None:
        context = (context > 0).float()
    if context is None:
        x = flow.sample(count, generator=generator)
    else:
        x = flow.sample(1, context, generator=generator)[0]
    if "rounded" in options:
        x = x.round(decimals=2)
    if "weighted" not in options:
        return x, context, None
    kept = torch.sigmoid(x[:, 0]).clamp(min=1 / LARGEST_WEIGHT)  # rows are kept with this chance
    index = (torch.rand(count, generator=generator) < kept).nonzero()[:number, 0]
    weights = (1 / kept[index]).double().numpy()
    return x[index], None if context is None else context[index], weights


def compared(kind: str, seed: int) -> str:
    """Returns the level of a right flow of a kind; the seed chooses rows, columns and training."""
    maker, options = KINDS[kind]
    rng = np.random.default_rng(seed)
    number, columns = int(rng.choice(ROWS)), int(rng.choice(WIDTHS))
    generator = torch.Generator().manual_seed(10**6 + seed)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        flow = maker(columns, seed)
        x, context, weights = _rows(flow, number, options, generator)
        train, train_weights = None, None
        if rng.random() < 0.5:
            rows, given, train_weights = _rows(flow, 2 * number, options, generator)
            train = rows, given
        inputs = Inputs(x, context, train, weights, train_weights=train_weights)
        goodness = goodness_of(flow, inputs, seed)
    return goodness.level


def right_flows(number: int, seconds: float = 3_600.0, first: int = 0) -> dict[str, Counter[str]]:
    """Returns how often right flows of each kind have each level.

    Args:
        number: Number of comparisons, spread over the kinds.
        seconds: Time after which no further one starts.
        first: The first seed.
    """
    start, counts = time.perf_counter(), {kind: Counter[str]() for kind in KINDS}
    for i in range(number):
        if time.perf_counter() - start > seconds:
            break
        kind = tuple(KINDS)[i % len(KINDS)]
        counts[kind][compared(kind, first + i)] += 1
    return counts
