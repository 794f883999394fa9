"""The error of the constructions in W2 and in total variation, and power laws of an error."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.stats import linregress, t

from kappaflow.flows import Flow
from kappaflow_studies.universal.targets import Target

CONFIDENCE = 0.95


@dataclass(frozen=True)
class PowerLaw:
    """The power law y = factor * x^exponent, with the 95 % confidence interval of the exponent."""

    exponent: float
    low: float
    high: float
    factor: float


def power_law(x: Sequence[float], y: Sequence[float]) -> PowerLaw:
    """Returns a power law, fitted to points by least squares of logarithms.

    The interval of the exponent treats deviations from a line as noise. For points on a curve, it
    only shows how straight the curve is.
    """
    slope, intercept, _, _, error = map(float, linregress(np.log(x), np.log(y)))
    slack = float(t.ppf((1 + CONFIDENCE) / 2, len(x) - 2)) * error
    return PowerLaw(slope, slope - slack, slope + slack, math.exp(intercept))


CHUNK_SIZE = 20_000  # largest number of points in a chunk


@torch.no_grad()
def transport_error(
    flow: Flow, target: Target, *, unseen: float = 0.0, samples: int, seed: int = 0
) -> tuple[float, float]:
    r"""Returns an upper bound on W2 between a flow g and a target, and its standard error.

    It is :math:`\sqrt{E |g(z) - \phi(z)|^2}` with the same normal z for both, one of the joint
    distributions of which W2 is the least. The flow is in float64. `unseen` is the bounded part of
    the mean square, of rare points on ramps and in tails, which a sample cannot show.
    """
    generator = torch.Generator().manual_seed(seed)
    squares = []
    for start in range(0, samples, CHUNK_SIZE):
        shape = min(CHUNK_SIZE, samples - start), target.features
        z = torch.randn(shape, dtype=flow.dtype, generator=generator)
        missed = flow.bijection.inverse(z)[0] - target.transport(z)
        squares.append(missed.square().sum(1))
    squared_errors = torch.cat(squares)
    bound = math.sqrt(squared_errors.mean().item() + unseen)
    spread = squared_errors.std().item() / math.sqrt(samples)
    return bound, spread / (2 * bound) if bound else 0.0


def total_variation(flow: Flow, target: Target, *, samples: int = 10_000, seed: int = 0) -> float:
    """Returns the estimated distance in total variation between a flow and a target, from 0 to 1.

    This is the largest difference in the probability of an event. It is the mean of
    max(0, 1 - p / q) over samples of the target, with p the density of the flow and q that of the
    target.
    """
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(samples, target.features, dtype=flow.dtype, generator=generator)
    with torch.no_grad():
        ratio = flow.log_prob(target.transport(z)) - target.log_density(z)
    return (1 - ratio.exp()).clamp(min=0).mean().item()
