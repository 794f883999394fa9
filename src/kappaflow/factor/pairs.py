r"""Two singular values as a product of two-by-two couplings that share their ratio evenly.

Shears of one size x line up: (1, x; 0, 1) (1, 0; x, 1) (1, x; 0, 1) ... has about the product of
their condition numbers. So k couplings, U L U ... U, and a diagonal (1, delta) behind them, which
another coupling takes, make the singular values low < high with k + 1 condition numbers of about
(high / low)^(1 / (k + 1)). Rotations on both sides are free: only the singular values count.
"""

from typing import NamedTuple

import numpy as np

HALVINGS = 80


class Pairs(NamedTuple):
    """Couplings of m pairs at once; U is (upper, shear; 0, 1) and L is (1, 0; shear, lower).

    Attributes:
        upper: Diagonal of each U, (m,).
        lower: Diagonal of each L, (m,).
        shear: x, (m,), at least 0.
        behind: delta of the diagonal (1, delta) behind them, (m,).
    """

    upper: np.ndarray
    lower: np.ndarray
    shear: np.ndarray
    behind: np.ndarray

    def product(self, count: int) -> np.ndarray:
        """Returns U L U ... U (1, delta), `count` couplings of each pair, (m, 2, 2)."""
        result = np.zeros((len(self.shear), 2, 2))
        result[:, 0, 0], result[:, 1, 1] = 1, self.behind
        for number in reversed(range(count)):
            changed, kept = (0, 1) if number % 2 == 0 else (1, 0)
            scale = self.upper if number % 2 == 0 else self.lower
            result[:, changed] *= scale[:, None]
            result[:, changed] += self.shear[:, None] * result[:, kept]
        return result


def share_pairs(low: np.ndarray, high: np.ndarray, count: int) -> Pairs:
    """Returns couplings whose product has these singular values, pair by pair.

    Args:
        low: Smaller singular values, (m,), above 0.
        high: Larger ones, (m,).
        count: k, odd.

    Returns:
        The couplings. For one the shear is zero: the diagonals are the singular values.

    Note:
        The product has the right determinant and, without shears, a ratio that is too small; the
        difference of its singular values grows with the shear, found by halving intervals.

    Source:
        Ours.

    Example:
        >>> pairs = share_pairs(np.array([1e-3]), np.array([1e3]), 5)
        >>> np.linalg.svd(pairs.product(5))[1].round(6).tolist()
        [[1000.0, 0.001]]
        >>> round(float(np.linalg.cond([[pairs.upper[0], pairs.shear[0]], [0, 1]])), 1)
        10.3
    """
    ratio, size = high / low, np.sqrt(low * high)
    above, below = size * ratio ** (-0.5 / count), size * ratio ** (0.5 / count)
    # Small pairs are made small by each of the m / 2 that can; what is behind never makes large.
    share = (ratio * np.minimum(size, 1) ** 2) ** (1 / (count + 1))
    behind = below if count == 1 else share
    upper = above ** (2 / (count + 1))
    lower = np.ones_like(low) if count == 1 else (below / behind) ** (2 / (count - 1))

    def too_large(shear: np.ndarray) -> np.ndarray:
        made = Pairs(upper, lower, shear, behind).product(count)
        # The difference of the singular values, which stays exact where they are nearly equal.
        apart = np.hypot(made[:, 0, 0] - made[:, 1, 1], made[:, 0, 1] + made[:, 1, 0])
        return apart > high - low

    left, right = np.zeros_like(low), np.ones_like(low)
    if count == 1:
        return Pairs(upper, lower, left, behind)
    while not too_large(right).all():
        right = np.where(too_large(right), right, 2 * right)
    for _ in range(HALVINGS):
        middle = (left + right) / 2
        large = too_large(middle)
        left, right = np.where(large, left, middle), np.where(large, middle, right)
    return Pairs(upper, lower, left, behind)
