"""The error of float32 in log_prob of a flow, original and converted, against float64."""

from typing import Any

import torch

from benchmarks.converting_rows import CONVERTED, ORIGINAL, row_of
from benchmarks.row import Shape


def errors_of(name: str, shape: Shape) -> dict[str, Any]:
    """Returns the largest differences of log_prob at the data, in nats.

    Args:
        name: Name of the row.
        shape: Shape of the flow.

    Returns:
        "original" and "converted" (each in float32, against the original in float64), "float64"
        (the converted flow against the original, both in float64) and "least", the least log_prob.
    """
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
