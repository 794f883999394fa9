r"""A smooth stand-in for the largest block norm, with its gradient by hand."""

from collections.abc import Sequence

import numpy as np

from kappaflow.factor.word import Target, Word, middle, right_inverse, sweep, sweep_adjoint

Blocks = Sequence[np.ndarray]


def power_norm(blocks: Blocks, power: int) -> float:
    r"""Returns the logarithm of the Schatten norm of order 2 `power` of all blocks together.

    It lies between the logarithm of the largest singular value of any block, which it approaches
    as the power grows, and that plus log(number of singular values) / (2 power).

    Args:
        blocks: The blocks, not all zero.
        power: 1, 2, 4, 8 and so on.

    Returns:
        The logarithm.

    Example:
        >>> round(power_norm([np.diag([3.0, 1.0]), np.eye(2)], 8) / float(np.log(3)), 6)
        1.0
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
        The value, and the gradient, one array for each unknown block.
    """
    rest = sweep(word, target.matrix, values, sign=-1)
    back = sweep(word, target.inverse, values, sign=1) if len(target.matrix) % 2 else None
    three = middle(rest[-1], back[-1] if back else None)
    value, by_block = _with_gradient([*three, *values], power)
    by_rest, by_back = _middle_adjoint(rest[-1], back[-1] if back else None, by_block[:3])
    gradient = list(map(np.add, by_block[3:], sweep_adjoint(word, rest, values, by_rest, sign=-1)))
    if back and by_back is not None:
        gradient = list(map(np.add, gradient, sweep_adjoint(word, back, values, by_back, sign=1)))
    return value, gradient


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


def _middle_adjoint(
    rest: np.ndarray, back: np.ndarray | None, by_three: Blocks
) -> tuple[np.ndarray, np.ndarray | None]:
    """Returns the derivative by M, and by its inverse, of A1, X1, A2 as `middle` has them."""
    by_a1, by_x1, by_a2 = by_three
    d = len(rest) // 2
    x1, small, large = rest[:d, d:], np.eye(d), np.eye(len(rest) - d)
    inverse = right_inverse(x1)[0]
    by_rest, by_back = np.zeros_like(rest), None
    by_rest[:d, :d], by_rest[d:, d:] = inverse.T @ by_a2, by_a1 @ inverse.T
    by_inverse = (rest[d:, d:] - large).T @ by_a1 + by_a2 @ (rest[:d, :d] - small).T
    by_x1 = by_x1.copy()
    if back is not None:
        beyond, other = large - inverse @ x1, back[d:, d:] - large  # beyond the rows of X1
        by_back = np.zeros_like(back)
        by_back[d:, d:] = beyond @ by_a2 @ inverse.T
        by_beyond = by_a2 @ (other @ inverse).T
        by_inverse += other.T @ beyond @ by_a2 - by_beyond @ x1.T
        by_x1 += inverse.T @ (inverse @ by_inverse.T @ beyond - by_beyond)
    by_rest[:d, d:] = by_x1 - inverse.T @ by_inverse @ inverse.T
    return by_rest, by_back
