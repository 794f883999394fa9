r"""A smooth stand-in for the largest block norm, with its gradient by hand."""

from collections.abc import Sequence

import numpy as np
from numpy.linalg import solve

from kappaflow.factor.newton import Target, is_upper, peel
from kappaflow.factor.six import six_blocks

Blocks = Sequence[np.ndarray]


def all_blocks(target: Target, values: Blocks) -> list[np.ndarray]:
    """Returns the blocks of all couplings, from the left: the outer ones, then the six."""
    six = peel(target, values[3:])
    return [*values[3:], *six_blocks(six.matrix, *values[:3])]


def power_norm(blocks: Blocks, power: int) -> float:
    r"""Returns the logarithm of the Schatten norm of order 2 `power` of all blocks together.

    It lies between the logarithm of the largest singular value of any block, which it approaches
    as the power grows, and that plus log(number of singular values) / (2 power).

    Args:
        blocks: The blocks, (d, d) each.
        power: 1, 2, 4, 8 and so on.

    Returns:
        The logarithm.
    """
    return _power_norm(blocks, power)[0]


def power_norm_gradient(
    target: Target, values: Blocks, power: int
) -> tuple[float, list[np.ndarray]]:
    """Returns `power_norm` of all couplings, and its derivative by the increments of a step.

    Args:
        target: The map.
        values: X, K, Z and the outer blocks.
        power: Order of the norm, halved.

    Returns:
        The value, and the gradient in the coordinates of `newton.move`.
    """
    x, k, z, *outer = values
    six = peel(target, outer)
    blocks = six_blocks(six.matrix, x, k, z)
    value, by_block = _power_norm([*outer, *blocks], power)
    by_x, by_k, by_z, by_six = _six_adjoint(
        six.matrix, (x, k, z), blocks, by_block[len(outer) :]
    )
    by_outer = _peel_adjoint(target.matrix, outer, by_six)
    direct = by_block[: len(outer)]
    return value, [by_x, k.T @ by_k, by_z @ z.T, *map(np.add, direct, by_outer)]


def _power_norm(blocks: Blocks, power: int) -> tuple[float, list[np.ndarray]]:
    """Returns the logarithm of the norm and its derivative by each block."""
    size = max(np.linalg.norm(block) for block in blocks)  # keeps high powers within range
    total, gradients = 0.0, []
    for block in blocks:
        scaled = block / size
        square = scaled.T @ scaled
        gradient, trace = scaled, 0.0
        for _ in range(power.bit_length() - 1):  # (B^T B)^(1 + 2 + 4 + ...)
            gradient, square = gradient @ square, square @ square
        trace = np.trace(square)
        total += trace
        gradients.append(gradient)
    value = np.log(total) / (2 * power) + np.log(size)
    return value, [gradient / (total * size) for gradient in gradients]


def _six_adjoint(
    matrix: np.ndarray, small: Blocks, blocks: Blocks, by_block: Blocks
) -> tuple[np.ndarray, ...]:
    """Returns the derivative by X, K, Z and T: `six_blocks` line by line, from the last."""
    (x, k, z), (a1, x1, a2, x2, a3, _) = small, blocks
    by_a1, by_x1, by_a2, by_x2, by_a3, by_x3 = by_block
    d, one = len(x), np.eye(len(x))
    p, q, r, s = matrix[:d, :d], matrix[:d, d:], matrix[d:, :d], matrix[d:, d:]
    upper_t = (p @ x + q).T
    by_upper = solve(k.T, by_x2)
    by_k = -by_upper @ x2.T
    step = solve(z.T, by_x1 - by_upper)
    by_upper = by_upper + step
    by_z = -step @ x1.T
    by_lower = solve(k, by_a1.T).T
    by_k -= a1.T @ by_lower
    by_right = -by_lower @ a3.T
    step = solve(upper_t, by_a2 - by_lower)
    by_z += step @ (k - one).T
    by_k += z.T @ step
    by_upper -= step @ a2.T
    step = solve(upper_t, by_a3 - (r @ x + s).T @ by_lower)
    by_k -= step
    by_upper -= step @ a3.T
    by_x = p.T @ by_upper + r.T @ by_right - by_x3
    by_matrix = np.block([[step + by_upper @ x.T, by_upper], [by_lower + by_right @ x.T, by_right]])
    return by_x, by_k, by_z, by_matrix


def _peel_adjoint(matrix: np.ndarray, outer: Blocks, by_six: np.ndarray) -> list[np.ndarray]:
    """Returns the derivative by the outer blocks, from that by what `peel` leaves."""
    d, by = len(matrix) // 2, by_six.copy()
    states = [matrix]
    for position, block in enumerate(outer):
        states.append(states[-1].copy())
        changed, kept = _halves(d, position, len(outer))
        states[-1][changed] -= block @ states[-1][kept]
    gradients: list[np.ndarray] = []
    for position in reversed(range(len(outer))):
        changed, kept = _halves(d, position, len(outer))
        gradients.append(-by[changed] @ states[position][kept].T)
        by[kept] -= outer[position].T @ by[changed]
    return gradients[::-1]


def _halves(d: int, position: int, outer: int) -> tuple[slice, slice]:
    """Returns the changed and the kept half of an outer coupling."""
    first, second = slice(0, d), slice(d, 2 * d)
    return (first, second) if is_upper(position, outer) else (second, first)
