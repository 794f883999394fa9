"""A power law through points, with the interval of its exponent."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import linregress, t

from kappaflow.errors import ArgumentError

CONFIDENCE = 0.95


@dataclass(frozen=True)
class PowerLaw:
    """y = factor * x^exponent, fitted on logarithms.

    Attributes:
        exponent: The slope.
        low: Lower end of its interval of 95 % confidence.
        high: Upper end.
        factor: y at x = 1.
    """

    exponent: float
    low: float
    high: float
    factor: float


def power_law(x: Sequence[float], y: Sequence[float]) -> PowerLaw:
    """Returns the power law nearest to points in the mean square of logarithms.

    Args:
        x: Positive numbers, at least three different ones.
        y: Positive numbers, as many.

    Returns:
        Exponent, its interval, and factor. The interval takes deviations from a line as noise; a
        curve has no exponent, and its interval only says how straight it is.

    Raises:
        ArgumentError: A number is not positive, or there are too few.

    Example:
        >>> round(power_law([0.5, 1.0, 2.0], [0.25, 1.0, 4.0]).exponent, 12)
        2.0
    """
    across, up = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    if across.ndim != 1 or across.shape != up.shape or len(set(across.tolist())) < 3:
        raise ArgumentError("'x' and 'y' should hold as many numbers, at least three different x.")
    if not (np.isfinite([across, up]).all() and across.min() > 0 and up.min() > 0):
        raise ArgumentError("'x' and 'y' should be positive: they are compared on log axes.")
    slope, intercept, _, _, error = map(float, linregress(np.log(across), np.log(up)))
    slack = float(t.ppf((1 + CONFIDENCE) / 2, len(across) - 2)) * error
    return PowerLaw(slope, slope - slack, slope + slack, math.exp(intercept))
