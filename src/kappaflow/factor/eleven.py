"""Any map of positive determinant as eleven couplings in closed form."""

import numpy as np

from kappaflow.factor.factors import Factor, unit_factors
from kappaflow.factor.rotation import UNIT_BOUND, factor_rotation
from kappaflow.factor.spread import spread

CARRIED = 10.0  # how much more than T's own condition a carrier may have


def factor_eleven(matrix: np.ndarray) -> list[Factor]:
    r"""Returns eleven factors of T: nine of condition at most 13.6, two that carry that of T.

    T = O1 diag(s) O2 with six unit factors of O1, L U L U L U, and six of O2, U L U L U L, that
    meet in one U. The smaller half of the singular values is in that U, the larger half in the
    L behind it, so that no weight of the two is more than twice as large as the diagonals.

    Args:
        matrix: T, (2d, 2d), det T > 0.

    Returns:
        The factors in the order of the product, lower first; the sixth and the seventh carry.

    Note:
        No iteration but that of the decompositions, and a small geometric program for the scales.
        With t any number between the two halves of the spectrum, the carriers have condition
        numbers of about max(s) / t and t / min(s): the square root of that of T for a spectrum
        that is even on both sides of its middle.

    Source:
        Ours; the corollary of theorem B, with the singular values dealt out by size.
    """
    d = len(matrix) // 2
    left, values, right = np.linalg.svd(matrix)
    left, values, right = left[:, ::-1].copy(), values[::-1], right[::-1].copy()
    if np.linalg.slogdet(left)[0] < 0:  # then that of `right` is negative as well
        left[:, 0] *= -1
        right[0] *= -1
    small, large = values[:d], values[d:]
    *first, meeting = factor_rotation(left)
    # The inverse of `right` is its transpose; the inverse of a product is that of its factors.
    other, *last = (-block for block in reversed(factor_rotation(right.T)))
    upper = Factor(False, meeting + small[:, None] * other / large, small)
    lower = Factor(True, large[:, None] * last[0], large)
    factors = [*unit_factors(first), upper, lower, *unit_factors(last[1:], lower_first=False)]
    return _spread_within(factors, values[-1] / values[0])


def _spread_within(factors: list[Factor], condition: float) -> list[Factor]:
    """Returns the factors, spread; the nine within their bound unless the carriers suffer.

    A map of an extreme scale, such as 1e12, is more than nine factors within 13.6 can make.
    """
    bounded = spread(factors, limit=UNIT_BOUND)
    carriers = max(np.linalg.cond(factor.matrix) for factor in bounded[5:7])
    return bounded if carriers <= CARRIED * condition else spread(factors)
