"""Histograms of a column in held-out rows and in samples, fine where they differ most."""

from dataclasses import dataclass

import numpy as np

from kappaflow.goodness.deviation import FAMILY, Bounds
from kappaflow.goodness.pooled import Pooled
from kappaflow.goodness.scan import FloatArray

BINS = 40
FINE_BINS = 9  # of the width of the worst region, around it
SHOWN = 0.002  # share of the rows and samples at each end that lies beyond the histogram


@dataclass(frozen=True)
class Marginal:
    """Shares of held-out rows and of samples in the bins of a column.

    Attributes:
        column: The name of the column.
        edges: The ends of the bins, ascending; the first and the last bin hold what is beyond.
        rows: Share of the held-out rows in each bin.
        samples: Share of the samples in each bin.
        pulls: Difference of both in standard errors, positive where samples are missing.
        worst: The region that differs most.
        p_value: Probability of such a difference in any column, for a flow that is right: the
            p-value of the column times the number of all tests.
    """

    column: str
    edges: tuple[float, ...]
    rows: tuple[float, ...]
    samples: tuple[float, ...]
    pulls: tuple[float, ...]
    worst: Bounds
    p_value: float = 1.0


def marginal_of(both: Pooled, column: int, worst: Bounds, p_value: float) -> Marginal:
    """Returns the histograms of a column."""
    values, n = both.features[:, column], both.pool.rows
    edges = _edges(values, worst if p_value <= FAMILY else (-np.inf, np.inf))
    home = np.clip(np.searchsorted(edges, values, side="right") - 1, 0, len(edges) - 2)
    weights: FloatArray = np.ones(n) if both.weights is None else both.weights
    bins = len(edges) - 1
    rows = np.bincount(home[:n], weights, bins) / weights.sum()
    samples = np.bincount(home[n:], minlength=bins) / both.pool.samples
    pulls = _pulls(rows, samples, both)
    lists = [tuple(map(float, part)) for part in (edges, rows, samples, pulls)]
    return Marginal(both.names[column], lists[0], lists[1], lists[2], lists[3], worst, p_value)


def _edges(values: FloatArray, worst: Bounds) -> FloatArray:
    low, high = (float(end) for end in np.quantile(values, [SHOWN, 1 - SHOWN]))
    edges = np.linspace(low, high, BINS + 1) if high > low else np.array([low - 0.5, low + 0.5])
    start, stop = max(worst[0], low), min(worst[1], high)
    width = stop - start
    if not 0 < width < 2 * (high - low) / BINS:
        return edges
    middle = (start + stop) / 2
    steps = [middle + width * (k - FINE_BINS / 2) for k in range(FINE_BINS + 1)]
    fine = [edge for edge in steps if low < edge < high]
    if not fine:
        return edges
    outside = edges[(edges < fine[0] - width / 2) | (edges > fine[-1] + width / 2)]
    return np.array(sorted([*outside, *fine]))


def _pulls(rows: FloatArray, samples: FloatArray, both: Pooled) -> list[float]:
    n, m = both.pool.effective_rows, both.pool.samples
    joint = (n * rows + m * samples) / (n + m)
    error = np.sqrt(joint * (1 - joint) * (1 / n + 1 / m))
    return [float(pull) for pull in (rows - samples) / np.where(error > 0, error, np.inf)]
