r"""A smooth stand-in for the largest block norm, with its gradient by hand."""

from collections.abc import Sequence

import numpy as np
from numpy.linalg import solve

from kappaflow.factor.word import Target, Word, middle, peel

Blocks = Sequence[np.ndarray]


def power_norm(blocks: Blocks, power: int) -> float:
    r"""Returns the logarithm of the Schatten norm of order 2 `power` of all blocks together.

    It lies between the logarithm of the largest singular value of any block, which it approaches
    as the power grows, and that plus log(number of singular values) / (2 power).

    Args:
        blocks: The blocks, (d, d) each, not all zero.
        power: 1, 2, 4, 8 and so on.

    Returns:
        The logarithm.

    Example:
        >>> round(power_norm([np.diag([3.0, 1.0]), np.eye(2)], 8), 6) == round(np.log(3), 6)
        True
    """
    return _with_gradient(blocks, power)[0]


def power_norm_gradient(
    word: Word, target: Target, values: Blocks, power: int
) -> tuple[float, list[np.ndarray]]:
    """Returns `power_norm` of all couplings' blocks, and its derivative by the unknown ones.

    Args:
        word: Where the blocks stand.
        target: The map.
        values: The unknown blocks.
        power: Order of the norm, halved.

    Returns:
        The value, and the gradient, one (d, d) array for each unknown block.
    """
    peeled = peel(word, target.matrix, values)
    three = middle(peeled[-1])
    value, by_block = _with_gradient([*three, *values], power)
    by = _middle_adjoint(three, by_block[:3])
    by_values = _peel_adjoint(word, peeled, values, by)
    return value, list(map(np.add, by_values, by_block[3:]))


def _with_gradient(blocks: Blocks, power: int) -> tuple[float, list[np.ndarray]]:
    """Returns the logarithm of the norm and its derivative by each block."""
    size = max(np.linalg.norm(block) for block in blocks)  # keeps high powers within range
    total, gradients = 0.0, []
    for block in blocks:
        gradient = block / size
        square = gradient.T @ gradient
        for _ in range(power.bit_length() - 1):  # (B^T B)^(1 + 2 + 4 + ...)
            gradient, square = gradient @ square, square @ square
        total += np.trace(square)
        gradients.append(gradient)
    value = float(np.log(total) / (2 * power) + np.log(size))
    return value, [gradient / (total * size) for gradient in gradients]


def _middle_adjoint(three: Blocks, by_three: Blocks) -> np.ndarray:
    """Returns the derivative by M of A1, X1, A2, as `middle` has them."""
    a1, x1, a2 = three
    by_m22 = solve(x1, by_three[0].T).T
    by_m11 = solve(x1.T, by_three[2])
    by_m12 = by_three[1] - by_m11 @ a2.T - a1.T @ by_m22
    return np.block([[by_m11, by_m12], [np.zeros_like(x1), by_m22]])


def _peel_adjoint(
    word: Word, peeled: Blocks, values: Blocks, by: np.ndarray
) -> list[np.ndarray]:
    """Returns the derivative by the unknown blocks, from that by M, which is overwritten."""
    before, behind = word.sides(len(by))
    states = iter(peeled[-2::-1])
    last, first = [], []
    for (changed, kept), block in zip(behind, values[word.before :], strict=True):
        last.append(-next(states)[:, changed].T @ by[:, kept])
        by[:, changed] -= by[:, kept] @ block.T
    for (changed, kept), block in zip(before[::-1], values[: word.before][::-1], strict=True):
        first.append(-by[changed] @ next(states)[kept].T)
        by[kept] -= block.T @ by[changed]
    return first[::-1] + last
