"""How far a product of couplings is from a matrix, with the product in higher precision."""

from collections.abc import Sequence

import numpy as np

from kappaflow.factor.factors import Factor
from kappaflow.factor.matrices import power_of_two

SPLITTER = 2.0**27 + 1


def relative_residual(factors: Sequence[Factor], matrix: np.ndarray) -> float:
    r"""Returns :math:`\|M_1 M_2 \cdots - T\|_F / \|T\|_F`.

    The product is kept as a sum of two float64 matrices. Of each weight the leading bits, so few
    that their products with the leading bits of the other matrix add up without rounding, are
    multiplied apart: the error is some 2^-20 of a float64 product's, at the price of four.

    Args:
        factors: In the order of the product; each acts on columns.
        matrix: T, (n, n).

    Returns:
        The residual, a pure number.

    Source:
        The split of a product into exact ones: Ozaki, Ogita, Oishi, Rump 2012.
    """
    high, low = np.eye(len(matrix)), np.zeros_like(matrix)
    for factor in reversed(factors):
        changed, kept = factor.weight.shape
        rows, read = slice(kept, None), slice(kept)
        if not factor.lower:
            rows, read = slice(changed), slice(changed, None)
        mixed = _product(factor.weight, high[read], low[read])
        scaled = _scaled(factor.diagonal[:, None], high[rows], low[rows])
        high[rows], low[rows] = _sum(mixed, scaled)
    size = power_of_two(matrix)  # squares stay within range
    off = (high - matrix) / size + low / size
    return float(np.linalg.norm(off) / np.linalg.norm(matrix / size))


def _product(a: np.ndarray, high: np.ndarray, low: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns a (high + low) as a sum of two matrices."""
    bits = (53 - int(np.ceil(np.log2(max(a.shape[1], 2))))) // 2
    leading, leading_high = _leading(a, bits, axis=1), _leading(high, bits, axis=0)
    exact = leading @ leading_high
    rest = leading @ (high - leading_high) + (a - leading) @ high + a @ low
    return _two_sum(exact, rest)


def _leading(a: np.ndarray, bits: int, *, axis: int) -> np.ndarray:
    """Returns a rounded to so many bits below the largest entry of its row or column."""
    largest = np.abs(a).max(axis=axis, keepdims=True, initial=0.0)
    shift = 0.75 * 2.0 ** (np.ceil(np.log2(np.where(largest > 0, largest, 1))) + 54 - bits)
    return (a + shift) - shift


def _scaled(d: np.ndarray, high: np.ndarray, low: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns d (high + low), the error of the product with `high` found as by Dekker 1971."""
    value = d * high
    d_big, high_big = _half(d), _half(high)
    d_small, high_small = d - d_big, high - high_big
    error = d_big * high_big - value + d_big * high_small + d_small * high_big
    return value, error + d_small * high_small + d * low


def _half(a: np.ndarray) -> np.ndarray:
    """Returns the leading 26 bits of each entry."""
    large = SPLITTER * a
    return large - (large - a)


def _sum(
    one: tuple[np.ndarray, np.ndarray], other: tuple[np.ndarray, np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the sum of two matrices of two parts."""
    high, low = _two_sum(one[0], other[0])
    return _two_sum(high, low + one[1] + other[1])


def _two_sum(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the rounded sum and its error, as by Knuth."""
    total = a + b
    virtual = total - a
    return total, (a - (total - virtual)) + (b - virtual)
