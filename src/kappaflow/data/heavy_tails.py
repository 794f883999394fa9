"""How heavy the tails of a column are."""

import math
from dataclasses import dataclass

import numpy as np

from kappaflow.data.table import FloatArray

LEAST = 1000  # values, for a tail to be seen
SHARE = 0.05  # of the values, those furthest out
ERRORS, HEAVY = 3.0, 0.1


@dataclass(frozen=True)
class Tail:
    """The extreme-value index of a column: 0 for Gaussian and exponential tails.

    Attributes:
        index: Moments of order 1 / index and above are infinite, if it is positive.
        standard_error: Of the index.
    """

    index: float
    standard_error: float

    @property
    def is_heavy(self) -> bool:
        """Whether the tail is a power of the distance, by three standard errors."""
        return self.index - ERRORS * self.standard_error > HEAVY


def tail_of(column: FloatArray) -> Tail | None:
    """Returns the tail of a column by the moments of the logarithms of its furthest values.

    The estimator of Dekkers, Einmahl and de Haan (1989) of distances from the median.

    Args:
        column: Finite values, (N,).

    Returns:
        The tail; None for fewer than 1,000 values, or where the furthest are all equal.

    Example:
        >>> cauchy = np.random.default_rng(0).standard_cauchy(5000)
        >>> tail_of(cauchy).is_heavy, tail_of(np.arctan(cauchy)).is_heavy
        (True, False)
    """
    if len(column) < LEAST:
        return None
    away = np.sort(np.abs(column - np.median(column)))
    k = int(SHARE * len(away))
    if away[-k - 1] <= 0:
        return None
    logs = np.log(away[-k:] / away[-k - 1])
    first, second = float(logs.mean()), float(np.square(logs).mean())
    if second <= first**2 or second == 0:
        return None
    index = first + 1 - 0.5 / (1 - first**2 / second)
    spread = math.sqrt(1 + index**2) if index > 0 else 1.0
    return Tail(index, spread / math.sqrt(k))
