"""Measures a flow of another library and its conversion: times and float32 errors."""

from collections.abc import Callable
from functools import partial
from statistics import median, quantiles
from typing import Any

import torch

from benchmarks.converting_rows import CONVERTED, ORIGINAL, row_of
from benchmarks.row import Model, Shape
from benchmarks.turns import in_turn, timed


def times_of(name: str, shape: Shape, repetitions: int) -> dict[str, Any]:
    """Returns the ratio of times of the original and the converted flow, which take turns."""
    x = shape.data()
    models = {kind: row_of(name, kind).build(shape) for kind in (ORIGINAL, CONVERTED)}
    steps = {kind: partial(_step, model, x) for kind, model in models.items()}
    for step in steps.values():
        step()
    takes: dict[str, Callable[[], float]] = {k: partial(timed, s) for k, s in steps.items()}
    found = in_turn(takes, repetitions)
    ratios = [b / a for a, b in zip(found[ORIGINAL], found[CONVERTED], strict=True)]
    low, _, high = quantiles(ratios, n=4, method="inclusive") if repetitions > 1 else ratios * 3
    return {
        "original_ms": 1e3 * median(found[ORIGINAL]),
        "converted_ms": 1e3 * median(found[CONVERTED]),
        "ratio": median(ratios),
        "low": low,
        "high": high,
    }


def _step(model: Model, x: torch.Tensor) -> None:
    model.module.zero_grad()
    (-model.log_prob(x).mean()).backward()


def errors_of(name: str, shape: Shape) -> dict[str, Any]:
    """Returns the largest differences of log_prob at the data, in nats."""
    import kappaflow as kf

    x = shape.data()
    theirs, ours = (row_of(name, kind).build(shape) for kind in (ORIGINAL, CONVERTED))
    with torch.no_grad():
        found = {ORIGINAL: theirs.log_prob(x), CONVERTED: ours.log_prob(x)}
        converted = kf.convert(theirs.module.double())
        exact = theirs.log_prob(x.double())
        float64 = converted.log_prob(x.double()) - exact
    errors = {kind: _largest(value - exact) for kind, value in found.items()}
    return {**errors, "float64": _largest(float64), "least": exact.min().item()}


def _largest(difference: torch.Tensor) -> float:
    return difference.abs().max().item()
