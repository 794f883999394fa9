"""Rotations as six unit couplings in closed form: theorem B."""

import numpy as np

from kappaflow.errors import ArgumentError, NumericalError
from kappaflow.factor.commutator import commutator
from kappaflow.factor.six import Six, six_blocks

WEIGHT_BOUND = 2 + 2**0.5
UNIT_BOUND = ((WEIGHT_BOUND + (WEIGHT_BOUND**2 + 4) ** 0.5) / 2) ** 2
ORTHOGONAL = 1e-12  # |O^T O - 1| beyond which a matrix is no rotation


def rotation_start(rotation: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns the X, K, Z of theorem C for a rotation, in closed form.

    Args:
        rotation: O, (2d, 2d), orthogonal with determinant 1.

    Returns:
        X with |X| <= 1 and P X + Q orthogonal, the nearest one to Q; K and Z, orthogonal;
        (d, d) each.

    Source:
        Ours; theorem B.
    """
    d = len(rotation) // 2
    p, q = rotation[:d, :d], rotation[:d, d:]
    left, sines, right = _singular(q)
    # P P^T = 1 - Q Q^T = left cos^2 left^T, and cos^2 / (1 + sin) + sin = 1.
    x = p.T @ (left / (1 + sines)) @ right
    inverse = rotation.T
    n = (x @ inverse[d:, d:] - inverse[:d, d:]) @ (left @ right).T
    return (x, *commutator(n))


def factor_rotation(rotation: np.ndarray) -> Six:
    r"""Returns six unit couplings whose product is a rotation, each of condition at most 13.6.

    Args:
        rotation: O, (2d, 2d), orthogonal with determinant 1; even permutations are such.

    Returns:
        The blocks, with norms at most 2 + sqrt 2, 1, sqrt 2, 2, 2, 1, whatever the dimension.

    Raises:
        ArgumentError: The matrix is not orthogonal, or its determinant is -1.

    Note:
        One singular value decomposition, one Schur form and a few products, all d x d.

    Source:
        Ours; theorem B.

    Example:
        >>> six = factor_rotation(np.eye(64)[np.roll(np.arange(64), 2)])
        >>> bool(max(np.linalg.norm(block, 2) for block in six) <= WEIGHT_BOUND)
        True
    """
    rotation = np.asarray(rotation, dtype=float)
    if np.abs(rotation.T @ rotation - np.eye(len(rotation))).max() > ORTHOGONAL:
        raise ArgumentError(
            "'rotation' should be orthogonal, got a matrix that is not: "
            "factor_linear takes any invertible one."
        )
    if np.linalg.slogdet(rotation)[0] < 0:
        raise ArgumentError(
            "'rotation' should have determinant 1, got -1: change the sign of one row first, "
            "as factor_linear does."
        )
    return Six(*six_blocks(rotation, *rotation_start(rotation)))


def _singular(block: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns a singular value decomposition, or says that LAPACK found none."""
    try:
        return np.linalg.svd(block)
    except np.linalg.LinAlgError as error:
        raise NumericalError(
            f"the singular values of a block of a rotation were not found: {error}. Likely cause: "
            "numbers that are not finite; check the matrix with np.isfinite."
        ) from None
