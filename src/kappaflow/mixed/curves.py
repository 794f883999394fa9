"""Curves of straight lines through quantiles, which map a column to about normal scores."""

import numpy as np
import torch
from torch import Tensor

KNOTS = 64  # quantiles that the curve of a column passes through


def interpolated(points: Tensor, start: Tensor, end: Tensor) -> tuple[Tensor, Tensor]:
    """Returns points (N,) on straight lines from knots to knots, and the logs of their slopes."""
    cell = (torch.searchsorted(start, points.contiguous()) - 1).clamp(0, KNOTS - 2)
    slope = (end[cell + 1] - end[cell]) / (start[cell + 1] - start[cell])
    return end[cell] + slope * (points - start[cell]), slope.log()


def normal_scores() -> Tensor:
    """Returns the normal scores of the knots of a curve."""
    shares = (torch.arange(KNOTS, dtype=torch.float64) + 0.5) / KNOTS
    return torch.special.ndtri(shares)


def knots_of(column: np.ndarray) -> np.ndarray:
    """Returns quantiles of a column, moved apart where they are equal, so that all ascend."""
    if not len(column):
        return np.arange(KNOTS, dtype=np.float64)
    quantiles = np.quantile(column, (np.arange(KNOTS) + 0.5) / KNOTS)
    width = max(np.ptp(column), 1e-6 * max(1.0, float(np.abs(column).max())))
    least = 1e-3 * width / KNOTS
    steps = np.maximum(np.diff(quantiles), least)
    return quantiles[0] + np.concatenate([[0.0], np.cumsum(steps)])
