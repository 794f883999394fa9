"""Any map of positive determinant as eleven couplings, or more, in closed form."""

import numpy as np

from kappaflow.factor.factors import Factor, unit_factors
from kappaflow.factor.pairs import Pairs, share_pairs
from kappaflow.factor.peel import rotation_blocks
from kappaflow.factor.rotation import UNIT_BOUND
from kappaflow.factor.spread import spread

CARRIED = 10.0  # how much more than T's own condition a carrier may have


def factor_eleven(
    matrix: np.ndarray, small: int | None = None, *, carriers: int = 2
) -> list[Factor]:
    r"""Returns eleven factors of T: nine of condition at most 13.6, two that carry that of T.

    T = O1 M O2, where O1 is six unit factors L U L U L U and O2 is U L U L U L. M has the singular
    values of T: those of its two-by-two blocks, each made of `carriers` couplings. The first and
    the last but one of them merge with the U of O1 and of O2; the last one is a diagonal in the L
    that follows. The smallest singular value goes with the largest, and so on inwards.

    Args:
        matrix: T, (n, n), det T > 0.
        small: Size of the first part, half of n if left out, and at most that.
        carriers: How many factors share the condition number of T, an even number: each has about
            cond(T)^(1 / carriers). There are 9 + carriers factors. With more than two, none is
            held to 13.6: the worst of all is what is made least.

    Returns:
        The factors in the order of the product, lower first; the carriers are those from the
        sixth on, for two halves. Parts of different sizes take more (see `peel.py`).

    Note:
        No iteration but that of the decompositions, of one number a pair, and of a small
        geometric program for the scales.

    Source:
        Ours; the corollary of theorem B, with the singular values shared out in pairs.
    """
    first = len(matrix) // 2 if small is None else small
    left, values, right = _paired(matrix, first)
    scale = float(np.exp(np.log(values).mean()))
    low, high = values[:first] / scale, values[first : 2 * first] / scale
    pairs = share_pairs(low, high, carriers - 1)
    one, other = _rotations(pairs.product(carriers - 1))
    _turn(left.T, one)
    _turn(right, other)
    *before, meeting = rotation_blocks(left, first)
    # The inverse of `right` is its transpose; the inverse of a product is that of its factors.
    parting, beside, *after = (-block for block in reversed(rotation_blocks(right.T, first)))
    middle = _carriers(pairs, values[2 * first :] / scale, carriers)
    behind = middle[-1].diagonal
    middle[0] = middle[0]._replace(weight=middle[0].weight + meeting)
    middle[-2] = _with_unit_behind(middle[-2], parting / behind)
    middle[-1] = middle[-1]._replace(weight=behind[:, None] * beside)
    # The scale in two carriers: the bounded factors stay as they are, for `spread` to decide.
    middle[0] = middle[0]._replace(diagonal=scale * middle[0].diagonal)
    middle[1] = Factor(True, scale * middle[1].weight, scale * middle[1].diagonal)
    factors = [*unit_factors(before), *middle, *unit_factors(after, lower_first=False)]
    if carriers > 2:
        return spread(factors)
    return _spread_within(factors, len(before), float(values.max() / values.min()))


def _paired(matrix: np.ndarray, first: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns a singular value decomposition into rotations, small values first.

    Behind the `first` smallest, ascending, are as many largest, descending, and then the others.
    """
    left, values, right = np.linalg.svd(matrix)
    n = len(values)
    order = np.r_[n - 1 - np.arange(first), np.arange(n - first)]
    left, values, right = left[:, order].copy(), values[order], right[order].copy()
    if np.linalg.slogdet(left)[0] < 0:  # then that of `right` is negative as well
        left[:, 0] *= -1
        right[0] *= -1
    return left, values, right


def _rotations(made: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns rotations A, B (m, 2, 2) with made = A diag(low, high) B^T."""
    one, _, other = np.linalg.svd(made)
    one, other = one[:, :, ::-1].copy(), other[:, ::-1].copy()
    negative = np.linalg.det(one) < 0
    one[negative, :, 0] *= -1
    other[negative, 0] *= -1
    return one, other.transpose(0, 2, 1)


def _turn(rows: np.ndarray, rotations: np.ndarray) -> None:
    """Turns rows i and m + i by the i-th of m rotations, in place."""
    m = len(rotations)
    turned = np.einsum("mij,jmn->imn", rotations, np.stack([rows[:m], rows[m : 2 * m]]))
    rows[:m], rows[m : 2 * m] = turned


def _carriers(pairs: Pairs, others: np.ndarray, count: int) -> list[Factor]:
    """Returns the couplings of all pairs, U L U ... L, the others shared by the lower ones."""
    first = len(pairs.shear)
    shears = np.zeros((first, first + len(others)))
    shears[:, :first] = np.diag(pairs.shear)
    share = others ** (2 / count)
    upper = Factor(False, shears, pairs.upper)
    lower = Factor(True, shears.T, np.r_[pairs.lower, share])
    last = Factor(True, np.zeros_like(shears.T), np.r_[pairs.behind, share])
    return [*[upper, lower] * (count // 2 - 1), upper, last]


def _with_unit_behind(factor: Factor, weight: np.ndarray) -> Factor:
    """Returns an upper factor times U(weight)."""
    return factor._replace(weight=factor.weight + factor.diagonal[:, None] * weight)


def _spread_within(factors: list[Factor], carrier: int, condition: float) -> list[Factor]:
    """Returns the factors, spread; all but two keep to their bound unless these suffer.

    A map of an extreme scale, such as 1e12, is more than nine factors within 13.6 can make.
    """
    carriers = (carrier, carrier + 1)
    bounded = spread(factors, limit=UNIT_BOUND, free=carriers)
    carried = max(np.linalg.cond(bounded[number].matrix) for number in carriers)
    return bounded if carried <= CARRIED * condition else spread(factors)
