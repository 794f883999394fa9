"""Numerical properties of new flows with default initialization, on standard normal data."""

import math
from statistics import median
from typing import Any

import torch
from torch import Tensor

from benchmarks.row import Model, Row, Shape

POINTS = 8  # number of points for condition numbers


def numerics_of(row: Row, shape: Shape) -> dict[str, Any]:
    """Returns the numerical properties of a new flow in float32."""
    torch.manual_seed(0)
    model, x = row.build(shape), shape.data()
    with torch.no_grad():
        share = torch.isfinite(model.log_prob(x)).double().mean().item()
        round_trip = (model.decode(model.encode(x)) - x).abs().max().item()
    return {
        "finite_share": share,
        "round_trip": finite(round_trip),
        "condition_number": finite(condition_number(model, x[:POINTS])),
    }


def condition_number(model: Model, x: Tensor) -> float:
    """Returns the median condition number of the Jacobian at points (B, D).

    The flow is converted to float64. All rows of the Jacobian come from one backward pass, at D
    copies of each point. This works for every library, even with in-place operations.
    """
    model.module.double()
    n = x.shape[1]
    copies = x.double().repeat_interleave(n, dim=0).requires_grad_()
    z = model.encode(copies)
    (rows,) = torch.autograd.grad(z, copies, torch.eye(n, dtype=torch.float64).repeat(len(x), 1))
    jacobians = rows.reshape(len(x), n, n)
    if not torch.isfinite(jacobians).all():
        return math.inf
    s = torch.linalg.svdvals(jacobians)
    return median((s[:, 0] / s[:, -1]).tolist())


def finite(value: float) -> float | None:
    """Returns the value; None if it is not finite, because JSON has no such numbers."""
    return value if math.isfinite(value) else None
