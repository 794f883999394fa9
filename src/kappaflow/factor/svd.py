"""Any map of positive determinant as eleven or more couplings, in closed form by its SVD.

T = O1 M O2 with rotations O1 and O2. The singular values of T are grouped in pairs of a small and
a large one, and M consists of two-by-two blocks with these singular values. Each block is a
product of couplings with nearly equal condition numbers. Rotations on both sides are free, so only
the singular values matter. Shears of equal size x line up: (1, x; 0, 1) (1, 0; x, 1) (1, x; 0, 1)
... has about the product of their condition numbers. So k couplings U L U ... U and a trailing
diagonal (1, delta), which the next coupling takes, make the singular values low < high with k + 1
condition numbers of about (high / low)^(1 / (k + 1)).
"""

from typing import NamedTuple

import numpy as np

from kappaflow.factor.coupling import Factor, unit_factors
from kappaflow.factor.rescale import rescale
from kappaflow.factor.rotation import UNIT_BOUND, uneven_rotation_blocks

HALVINGS = 80
CARRIED = 10.0  # largest condition number of a carrier, in units of T's condition number


class SingularValuePairs(NamedTuple):
    """Couplings for m pairs at once; U is (upper, shear; 0, 1) and L is (1, 0; shear, lower)."""

    upper: np.ndarray  # the diagonals of each U, (m,), as of each L
    lower: np.ndarray
    shear: np.ndarray  # x >= 0
    trailing: np.ndarray  # the delta of the trailing diagonal (1, delta)

    def product(self, count: int) -> np.ndarray:
        """Returns U L U ... U (1, delta) with `count` couplings for each pair, (m, 2, 2)."""
        result = np.zeros((len(self.shear), 2, 2))
        result[:, 0, 0], result[:, 1, 1] = 1, self.trailing
        for number in reversed(range(count)):
            changed, kept = (0, 1) if number % 2 == 0 else (1, 0)
            scale = self.upper if number % 2 == 0 else self.lower
            result[:, changed] *= scale[:, None]
            result[:, changed] += self.shear[:, None] * result[:, kept]
        return result


def singular_value_pairs(low: np.ndarray, high: np.ndarray, count: int) -> SingularValuePairs:
    """Returns `count` couplings, an odd number, with these singular values (m,), pair by pair."""
    # Without shears the product has too small a ratio of singular values. Bisection finds the
    # shear; for one coupling it is zero and the diagonals are the singular values.
    ratio, size = high / low, np.sqrt(low * high)
    above, below = size * ratio ** (-0.5 / count), size * ratio ** (0.5 / count)
    # All couplings share the scale of a pair; the trailing diagonal never enlarges it.
    share = (ratio * np.minimum(size, 1) ** 2) ** (1 / (count + 1))
    trailing = below if count == 1 else share
    upper = above ** (2 / (count + 1))
    lower = np.ones_like(low) if count == 1 else (below / trailing) ** (2 / (count - 1))

    def too_large(shear: np.ndarray) -> np.ndarray:
        products = SingularValuePairs(upper, lower, shear, trailing).product(count)
        # The difference of the singular values is accurate even if they are nearly equal.
        apart = np.hypot(
            products[:, 0, 0] - products[:, 1, 1], products[:, 0, 1] + products[:, 1, 0]
        )
        return apart > high - low

    left, right = np.zeros_like(low), np.ones_like(low)
    if count == 1:
        return SingularValuePairs(upper, lower, left, trailing)
    while not too_large(right).all():
        right = np.where(too_large(right), right, 2 * right)
    for _ in range(HALVINGS):
        middle = (left + right) / 2
        large = too_large(middle)
        left, right = np.where(large, left, middle), np.where(large, middle, right)
    return SingularValuePairs(upper, lower, left, trailing)


def factor_svd(matrix: np.ndarray, small: int | None = None, *, carriers: int = 2) -> list[Factor]:
    """Returns eleven factors of T: nine of condition number at most 13.6, and two carriers.

    The carriers share the condition number of T = O1 M O2. O1 is six unit factors L U L U L U, and
    O2 is U L U L U L. M has two-by-two blocks with the singular values of T, of `carriers`
    couplings each. The first and the last but one of M merge with the U of O1 and of O2; the last
    one is a diagonal in the next L. The smallest singular value is paired with the largest, and so
    on inwards. The only iterations are those of the decompositions, a bisection for each pair, and
    a small geometric program for the scales.

    Source:
        Ours; the corollary of theorem B, with the singular values distributed in pairs.
    """
    first = len(matrix) // 2 if small is None else small
    left, values, right = _paired(matrix, first)
    scale = float(np.exp(np.log(values).mean()))
    low, high = values[:first] / scale, values[first : 2 * first] / scale
    pairs = singular_value_pairs(low, high, carriers - 1)
    one, other = _rotations(pairs.product(carriers - 1))
    _turn(left.T, one)
    _turn(right, other)
    *before, left_upper = uneven_rotation_blocks(left, first)
    # The inverse of `right` is its transpose; a product is inverted factor by factor.
    right_upper, right_lower, *after = (
        -block for block in reversed(uneven_rotation_blocks(right.T, first))
    )
    middle = _carriers(pairs, values[2 * first :] / scale, carriers)
    trailing = middle[-1].diagonal
    middle[0] = middle[0]._replace(weight=middle[0].weight + left_upper)
    upper = middle[-2]  # times U(right_upper / trailing)
    merged = upper.weight + upper.diagonal[:, None] * (right_upper / trailing)
    middle[-2] = upper._replace(weight=merged)
    middle[-1] = middle[-1]._replace(weight=trailing[:, None] * right_lower)
    # Two carriers take the scale, so that `rescale` starts from bounded factors.
    middle[0] = middle[0]._replace(diagonal=scale * middle[0].diagonal)
    middle[1] = Factor(True, scale * middle[1].weight, scale * middle[1].diagonal)
    factors = [*unit_factors(before), *middle, *unit_factors(after, lower_first=False)]
    if carriers > 2:
        return rescale(factors)
    return _rescale_within(factors, len(before), float(values.max() / values.min()))


def _paired(matrix: np.ndarray, first: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns a singular value decomposition into rotations, in the order of the pairs."""
    # The `first` smallest values come first, ascending; then the `first` largest, descending; then
    # the others.
    left, values, right = np.linalg.svd(matrix)
    n = len(values)
    order = np.r_[n - 1 - np.arange(first), np.arange(n - first)]
    left, values, right = left[:, order].copy(), values[order], right[order].copy()
    if np.linalg.slogdet(left)[0] < 0:  # the determinant of `right` is negative as well
        left[:, 0] *= -1
        right[0] *= -1
    return left, values, right


def _rotations(blocks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns rotations A, B (m, 2, 2) with made = A diag(low, high) B^T."""
    left, _, right = np.linalg.svd(blocks)
    left, right = left[:, :, ::-1].copy(), right[:, ::-1].copy()
    negative = np.linalg.det(left) < 0
    left[negative, :, 0] *= -1
    right[negative, 0] *= -1
    return left, right.transpose(0, 2, 1)


def _turn(rows: np.ndarray, rotations: np.ndarray) -> None:
    """Applies the i-th of m rotations to rows i and m + i, in place."""
    m = len(rotations)
    turned = np.einsum("mij,jmn->imn", rotations, np.stack([rows[:m], rows[m : 2 * m]]))
    rows[:m], rows[m : 2 * m] = turned


def _carriers(pairs: SingularValuePairs, others: np.ndarray, count: int) -> list[Factor]:
    """Returns the couplings U L U ... L of all pairs; lower ones share the other values."""
    first = len(pairs.shear)
    shears = np.zeros((first, first + len(others)))
    shears[:, :first] = np.diag(pairs.shear)
    share = others ** (2 / count)
    upper = Factor(False, shears, pairs.upper)
    lower = Factor(True, shears.T, np.r_[pairs.lower, share])
    last = Factor(True, np.zeros_like(shears.T), np.r_[pairs.trailing, share])
    return [*[upper, lower] * (count // 2 - 1), upper, last]


def _rescale_within(factors: list[Factor], carrier: int, condition: float) -> list[Factor]:
    """Returns rescaled factors: all but two keep their bound, unless the two become too bad."""
    carriers = (carrier, carrier + 1)
    bounded = rescale(factors, limit=UNIT_BOUND, free=carriers)
    carried = max(bounded[number].condition_number for number in carriers)
    return bounded if carried <= CARRIED * condition else rescale(factors)
