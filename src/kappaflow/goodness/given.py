"""`given_densities`: a conditional flow at three contexts, and held-out rows near them."""

import math
from dataclasses import dataclass

import numpy as np
import torch

from kappaflow.flows import Flow
from kappaflow.goodness.inputs import Inputs
from kappaflow.goodness.pooled import samples_of, stream, to_array
from kappaflow.goodness.scan import FloatArray

QUANTILES = (0.1, 0.5, 0.9)  # of the first column of the context
MOST_COLUMNS = 4
NEAR, FEWEST_NEAR, MOST_NEAR = 0.1, 30, 1_000  # rows near a context: a share, within limits
SAMPLES = 4_000  # at least, at each context
MOST_BINS = 32
BEYOND = 0.002  # share of the rows and samples at each end that lies beyond the histogram


@dataclass(frozen=True)
class GivenDensity:
    """A column of held-out rows whose context is near some value, and of samples there."""

    column: str  # the name of the column
    context: str  # the name of the column of the context
    value: float  # the context: a quantile of that column
    low: float  # least context of the rows
    high: float  # largest context of the rows
    count: int  # number of rows; samples are drawn at the context of each
    # The ends of the bins, ascending; the first and the last bin hold what is beyond
    edges: tuple[float, ...]
    rows: tuple[float, ...]  # share of the rows in each bin
    samples: tuple[float, ...]  # share of the samples in each bin


@torch.no_grad()
def given_densities(flow: Flow, inputs: Inputs) -> list[GivenDensity]:
    """Returns the first columns near three quantiles of the first context; none without one."""
    if inputs.context is None:
        return []
    parts = []
    first, generator = to_array(inputs.context[:, 0]), stream(0, 3)
    number = min(len(first), max(FEWEST_NEAR, min(MOST_NEAR, int(NEAR * len(first)))))
    for value in np.quantile(first, QUANTILES):
        near = np.argsort(np.abs(first - value), kind="stable")[:number]
        contexts = inputs.context[near].repeat(-(-SAMPLES // number), 1)
        samples = samples_of(flow, len(contexts), contexts, generator)
        samples = to_array(inputs.like_rows(flow, samples))
        samples = samples[np.isfinite(samples).all(1)]
        rows, weights = to_array(inputs.x[near]), np.ones(number)
        if inputs.weights is not None:
            weights = inputs.weights[near]
        ends = float(first[near].min()), float(first[near].max())
        for j, column in enumerate(inputs.names[:MOST_COLUMNS]):
            edges = _edges(np.concatenate([rows[:, j], samples[:, j]]), number)
            shares = _shares(rows[:, j], edges, weights), _shares(samples[:, j], edges)
            about = (inputs.context_names[0], float(value), *ends, number)
            parts.append(GivenDensity(column, *about, tuple(map(float, edges)), *shares))
    return parts


def _edges(values: FloatArray, rows: int) -> FloatArray:
    bins = min(MOST_BINS, int(1.5 * math.sqrt(rows)))
    low, high = np.quantile(values, [BEYOND, 1 - BEYOND])
    return np.linspace(low, high, bins + 1) if high > low else np.array([low - 0.5, low + 0.5])


def _shares(
    values: FloatArray, edges: FloatArray, weights: FloatArray | None = None
) -> tuple[float, ...]:
    counts = np.histogram(np.clip(values, edges[0], edges[-1]), edges, weights=weights)[0]
    return tuple(map(float, counts / (counts.sum() or 1)))
