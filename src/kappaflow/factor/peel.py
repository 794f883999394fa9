"""Rotations in parts of different sizes: the larger part gives up one direction after another.

Let w be a unit vector of the larger part, and T w = alpha a + beta u + gamma w, with a in the
smaller part and u in the larger one, orthogonal to w. Two rotations, of the plane (a, w) and of
the plane (a, u), take w there; each is three shears, L U L, whatever the planes are. What is left
of T fixes w: it is a rotation in one dimension less. At equal sizes theorem B takes over.
"""

import numpy as np
from scipy.linalg import null_space

from kappaflow.factor.rotation import factor_rotation

TINY = 1e-14  # a component that is rounding


def rotation_blocks(rotation: np.ndarray, small: int) -> list[np.ndarray]:
    """Returns the blocks of unit factors L U L U ... L U of a rotation, in closed form.

    Args:
        rotation: O, (n, n), orthogonal with determinant 1.
        small: Size of the first part, at most half of n: L changes the second part.

    Returns:
        Blocks, (n - small, small) and (small, n - small) taking turns: six for two halves, at
        most four more for each feature that the second part has more than the first (six more,
        where the symmetric part of the lower right block is negative definite). No weight is
        larger than sqrt((2 + sqrt 2)^2 + 1), no condition number than 14.6.

    Source:
        Ours.

    Example:
        >>> len(rotation_blocks(np.eye(5)[[1, 2, 3, 4, 0]], 2))
        8
    """
    large = len(rotation) - small
    if large == small:
        return list(factor_rotation(rotation))
    blocks, left, w = _first_rotations(rotation, small)
    rest = null_space(w[None, :])  # (large, large - 1): orthonormal, orthogonal to w
    inside = np.zeros((len(rotation), len(rotation) - 1))
    inside[:small, :small], inside[small:, small:] = np.eye(small), rest
    for number, block in enumerate(rotation_blocks(inside.T @ left @ inside, small)):
        embedded = rest @ block if number % 2 == 0 else block @ rest.T
        if number == 0 and blocks:
            blocks[-1] = blocks[-1] + embedded
        else:
            blocks.append(embedded)
    return blocks


def _first_rotations(
    rotation: np.ndarray, small: int
) -> tuple[list[np.ndarray], np.ndarray, np.ndarray]:
    """Returns shears L U ... L, what they leave of a rotation, and the w that this fixes."""
    w = _fixed_best(rotation[small:, small:])
    image = rotation[:, small:] @ w
    gamma = float(np.clip(w @ image[small:], -1, 1))
    u, beta = _unit(image[small:] - gamma * w)
    a, alpha = _unit(image[:small])
    if alpha <= TINY:
        a = np.eye(small)[0]
    turns = []
    if beta > TINY:
        turns.append((u, float(np.arctan2(beta, alpha))))
    angle = float(np.arctan2(np.hypot(alpha, beta), gamma))
    parts = 1 if gamma >= 0 else 2
    if angle > TINY:
        turns += [(w, -angle / parts)] * parts
    blocks: list[np.ndarray] = []
    for direction, turn in turns:
        rotation = _turned(rotation, a, direction, -turn)
        shear = np.tan(turn / 2) * np.outer(direction, a)
        before = blocks.pop() if blocks else 0.0
        blocks += [before + shear, -np.sin(turn) * np.outer(a, direction), shear]
    return blocks, rotation, w


def _fixed_best(lower_right: np.ndarray) -> np.ndarray:
    """Returns the w that is turned by the fewest shears: a real eigenvector saves two of four."""
    values, vectors = np.linalg.eig(lower_right)
    real = np.where(np.imag(values) == 0, np.real(values), -1.0)
    if real.max() >= 0:
        return _unit(np.real(vectors[:, real.argmax()]))[0]
    return np.linalg.eigh(lower_right + lower_right.T)[1][:, -1]


def _turned(matrix: np.ndarray, a: np.ndarray, b: np.ndarray, angle: float) -> np.ndarray:
    """Returns the matrix after a rotation from a, in the first part, towards b, in the second."""
    small, (c, s) = len(a), (np.cos(angle) - 1, np.sin(angle))
    along_a, along_b = a @ matrix[:small], b @ matrix[small:]
    turned = matrix.copy()
    turned[:small] += np.outer(a, c * along_a - s * along_b)
    turned[small:] += np.outer(b, s * along_a + c * along_b)
    return turned


def _unit(vector: np.ndarray) -> tuple[np.ndarray, float]:
    """Returns the direction of a vector, and its length."""
    length = float(np.linalg.norm(vector))
    return vector / (length or 1.0), length
