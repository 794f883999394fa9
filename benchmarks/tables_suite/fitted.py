"""Fitted densities behind one interface, and the condition numbers of flows."""

import copy
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.tables_suite.data import Parts

CONDITION_ROWS = 64


@dataclass(frozen=True)
class Fitted:
    """A density of standardized rows.

    Attributes:
        log_prob: From rows (N, D) to log p (N,) in nats.
        to_latent: From rows to latent, a differentiable function in float64; None where the
            density is no flow.
        details: What was chosen, number of steps and parameters.
        sample: From rows, of which only the number and the context count, to as many samples.
    """

    log_prob: Callable[[np.ndarray], np.ndarray]
    to_latent: Callable[[Tensor], Tensor] | None = None
    details: dict[str, Any] = field(default_factory=dict)
    sample: Callable[[np.ndarray], np.ndarray] | None = None


def standardized(parts: Parts) -> Parts:
    """Returns a table with the mean and the deviation of the training rows taken out."""
    mean, deviation = parts.train.mean(0), parts.train.std(0)
    train, validation, test = (
        (rows - mean) / deviation for rows in (parts.train, parts.validation, parts.test)
    )
    return replace(parts, train=train, validation=validation, test=test)


def in_chunks(
    function: Callable[[Tensor], Tensor], rows: np.ndarray, size: int = 4096
) -> np.ndarray:
    """Returns what a function of a flow, such as log p, is at many rows, in float32 chunks."""
    with torch.no_grad():
        chunks = torch.as_tensor(rows, dtype=torch.float32).split(size)
        return torch.cat([function(chunk).double() for chunk in chunks]).numpy()


def condition_numbers(
    fitted: Fitted, rows: np.ndarray, context: int = 0, units: np.ndarray | float = 1.0
) -> np.ndarray | None:
    """Returns sigma_max / sigma_min of the map from standardized rows to latent, at some rows.

    Rows that are not standardized come with the deviations of their columns.

    Jacobians are exact, in float64, and their singular values dense, for every flow alike.
    """
    if fitted.to_latent is None:
        return None
    x = torch.as_tensor(rows[:CONDITION_ROWS], dtype=torch.float64).requires_grad_()
    z = fitted.to_latent(x)
    lines = [
        torch.autograd.grad(z[:, column].sum(), x, retain_graph=True)[0]
        for column in range(z.shape[1])
    ]
    jacobians = torch.stack(lines, 1) * torch.as_tensor(units)
    jacobians = torch.nan_to_num(jacobians[..., context:], nan=torch.inf)
    if not bool(torch.isfinite(jacobians).all()):
        return np.full(len(x), np.inf)
    values = torch.linalg.svdvals(jacobians)
    return (values[:, 0] / values[:, -1]).numpy()


def in_float64(module: nn.Module) -> nn.Module:
    """Returns a copy of a module in float64 and evaluation mode."""
    return copy.deepcopy(module).double().eval()
