"""Rotations as unit couplings in closed form (theorem B), also for parts of different sizes.

Two halves: `factor_rotation` finds six couplings from a singular value decomposition and a real
Schur form. Different sizes: `uneven_rotation_blocks` splits off directions of the larger part,
one by one, until theorem B applies. Let w be a unit vector of the larger part and
T w = alpha a + beta u + gamma w, with a in the smaller part and u in the larger part orthogonal to
w. Two rotations, in the plane (a, w) and in the plane (a, u), bring T w back to w; each is a
product of three shears L U L. The rest of T fixes w and is a rotation in one dimension less.
"""

import numpy as np
from numpy.linalg import solve
from scipy.linalg import null_space, schur

WEIGHT_BOUND = 2 + 2**0.5
UNIT_BOUND = ((WEIGHT_BOUND + (WEIGHT_BOUND**2 + 4) ** 0.5) / 2) ** 2
ORTHOGONAL = 1e-12  # largest entry of |O^T O - 1| for a rotation
TINY = 1e-14  # a component this small is rounding


def commutator(rotation: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns orthogonal K, Z with N = K^-1 Z K Z^-1, and no eigenvalue of K far from 1."""
    # Theorem B: in each plane that N rotates by theta, K rotates by -theta/2 and Z reflects, so
    # that Z K Z^-1 = K^-1. On the eigenvalues 1 both are the identity. Hence |K - 1| <= sqrt 2.
    form, basis = schur(rotation, output="real")[:2]
    k, z = np.eye(len(form)), np.eye(len(form))
    for i, j, angle in _planes(form):
        half = -angle / 2
        k[np.ix_([i, j], [i, j])] = [[np.cos(half), -np.sin(half)], [np.sin(half), np.cos(half)]]
        z[j, j] = -1.0
    return basis @ k @ basis.T, basis @ z @ basis.T


def _planes(form: np.ndarray) -> list[tuple[int, int, float]]:
    """Returns planes (i, j) and angles of a quasi-triangular orthogonal matrix."""
    planes, half_turns, i = [], [], 0
    while i < len(form):
        if i + 1 < len(form) and form[i + 1, i] != 0:
            sine = form[i + 1, i] - form[i, i + 1]
            planes.append((i, i + 1, np.arctan2(sine, form[i, i] + form[i + 1, i + 1])))
            i += 2
            continue
        if form[i, i] < 0:
            half_turns.append(i)
        i += 1
    # The determinant is 1, so the number of eigenvalues -1 is even.
    planes += [(i, j, np.pi) for i, j in zip(half_turns[::2], half_turns[1::2], strict=False)]
    return planes


def six_blocks(
    matrix: np.ndarray, x: np.ndarray, k: np.ndarray, z: np.ndarray
) -> tuple[np.ndarray, ...]:
    """Returns the six blocks of T, (2d, 2d), that belong to X, K, Z (proof of theorem B).

    T = L(A1) U(X1) L(A2) U(X2) L(A3) U(X3), with L(A) = (1, 0; A, 1) and U(X) = (1, X; 0, 1).
    """
    # If P X + Q, K and Z are invertible, the product has the blocks P, Q, R of T. It also has S if
    # K (X Sh - Qh) = Z K Z^-1 (P X + Q), where the h marks blocks of T^-1.
    d = len(matrix) // 2
    p, q = matrix[:d, :d], matrix[:d, d:]
    r, s = matrix[d:, :d], matrix[d:, d:]
    upper = p @ x + q  # Q' of the proof
    a3 = solve(upper, p - k)
    x1 = solve(z, upper)
    a2 = solve(upper, z @ (k - np.eye(d)))
    lower = r - (r @ x + s) @ a3  # R'
    a1 = solve(k.T, (lower - a2).T).T
    return a1, x1, a2, solve(k, upper - x1), a3, -x


def rotation_solution(rotation: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns the X, K, Z of theorem B for a rotation, (2d, 2d), in closed form; (d, d) each."""
    # |X| <= 1, and P X + Q (the orthogonal matrix nearest to Q), K and Z are orthogonal.
    d = len(rotation) // 2
    p, q = rotation[:d, :d], rotation[:d, d:]
    left, sines, right = np.linalg.svd(q)
    # P P^T = 1 - Q Q^T = left cos^2 left^T, and cos^2 / (1 + sin) + sin = 1.
    x = p.T @ (left / (1 + sines)) @ right
    inverse = rotation.T
    n = (x @ inverse[d:, d:] - inverse[:d, d:]) @ (left @ right).T
    return (x, *commutator(n))


def factor_rotation(rotation: np.ndarray) -> tuple[np.ndarray, ...]:
    """Returns the blocks of six unit couplings of condition number at most 13.6."""
    # Theorem B: the blocks have norms at most 2 + sqrt 2, 1, sqrt 2, 2, 2, 1 in any dimension.
    return six_blocks(rotation, *rotation_solution(rotation))


def uneven_rotation_blocks(rotation: np.ndarray, small: int) -> list[np.ndarray]:
    """Returns the blocks of unit factors L U L U ... L U of a rotation, in closed form."""
    # The first part has `small` features, at most half of n. There are six blocks for halves, and
    # at most four more for each feature in excess (six more if the symmetric part of the lower
    # right block is negative definite). No weight is above sqrt((2 + sqrt 2)^2 + 1), no condition
    # above 14.6.
    large = len(rotation) - small
    if large == small:
        return list(factor_rotation(rotation))
    blocks, left, w = _first_rotations(rotation, small)
    rest = null_space(w[None, :])  # (large, large - 1): orthonormal, orthogonal to w
    inside = np.zeros((len(rotation), len(rotation) - 1))
    inside[:small, :small], inside[small:, small:] = np.eye(small), rest
    for number, block in enumerate(uneven_rotation_blocks(inside.T @ left @ inside, small)):
        embedded = rest @ block if number % 2 == 0 else block @ rest.T
        if number == 0 and blocks:
            blocks[-1] = blocks[-1] + embedded
        else:
            blocks.append(embedded)
    return blocks


def _first_rotations(
    rotation: np.ndarray, small: int
) -> tuple[list[np.ndarray], np.ndarray, np.ndarray]:
    """Returns the shears L U ... L, the remaining rotation, and the w that it fixes."""
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
    """Returns the w that needs the fewest shears; a real eigenvector saves two of four."""
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
    """Returns the direction and the length of a vector."""
    length = float(np.linalg.norm(vector))
    return vector / (length or 1.0), length
