"""Any map of positive determinant as eleven couplings in closed form."""

import numpy as np

from kappaflow.factor.factors import Factor, unit_factors
from kappaflow.factor.peel import rotation_blocks
from kappaflow.factor.rotation import UNIT_BOUND
from kappaflow.factor.spread import spread

CARRIED = 10.0  # how much more than T's own condition a carrier may have


def factor_eleven(matrix: np.ndarray, small: int | None = None) -> list[Factor]:
    r"""Returns eleven factors of T: nine of condition at most 13.6, two that carry that of T.

    T = O1 diag(s) O2 with six unit factors of O1, L U L U L U, and six of O2, U L U L U L, that
    meet in one U. The smaller singular values are in that U, the larger ones in the L behind it,
    so that no weight of the two is more than twice as large as the diagonals.

    Args:
        matrix: T, (n, n), det T > 0.
        small: Size of the first part, half of n if left out, and at most that.

    Returns:
        The factors in the order of the product, lower first; those in the middle carry: the sixth
        and the seventh, for two halves. Parts of different sizes take more (see `peel.py`).

    Note:
        No iteration but that of the decompositions, and a small geometric program for the scales.
        With t any number between the two parts of the spectrum, the carriers have condition
        numbers of about max(s) / t and t / min(s): the square root of that of T for a spectrum
        that is even on both sides of its middle.

    Source:
        Ours; the corollary of theorem B, with the singular values dealt out by size.
    """
    first = len(matrix) // 2 if small is None else small
    left, values, right = np.linalg.svd(matrix)
    left, values, right = left[:, ::-1].copy(), values[::-1], right[::-1].copy()
    if np.linalg.slogdet(left)[0] < 0:  # then that of `right` is negative as well
        left[:, 0] *= -1
        right[0] *= -1
    low, high = values[:first], values[first:]
    *before, meeting = rotation_blocks(left, first)
    # The inverse of `right` is its transpose; the inverse of a product is that of its factors.
    other, beside, *after = (-block for block in reversed(rotation_blocks(right.T, first)))
    upper = Factor(False, meeting + low[:, None] * other / high, low)
    lower = Factor(True, high[:, None] * beside, high)
    factors = [*unit_factors(before), upper, lower, *unit_factors(after, lower_first=False)]
    return _spread_within(factors, len(before), values[-1] / values[0])


def _spread_within(factors: list[Factor], carrier: int, condition: float) -> list[Factor]:
    """Returns the factors, spread; the bounded ones keep to that unless the carriers suffer.

    A map of an extreme scale, such as 1e12, is more than nine factors within 13.6 can make.
    """
    bounded = spread(factors, limit=UNIT_BOUND)
    carried = max(np.linalg.cond(factor.matrix) for factor in bounded[carrier : carrier + 2])
    return bounded if carried <= CARRIED * condition else spread(factors)
