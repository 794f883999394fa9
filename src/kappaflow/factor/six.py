"""Six unit couplings from one small solution: the formulas of theorem B, shared by all routes."""

from typing import NamedTuple

import numpy as np
from numpy.linalg import solve


class Six(NamedTuple):
    """The blocks of T = L(A1) U(X1) L(A2) U(X2) L(A3) U(X3), each (d, d), diagonals all one.

    L(A) is (1, 0; A, 1) and U(X) is (1, X; 0, 1).
    """

    a1: np.ndarray
    x1: np.ndarray
    a2: np.ndarray
    x2: np.ndarray
    a3: np.ndarray
    x3: np.ndarray


def six_blocks(
    matrix: np.ndarray, x: np.ndarray, k: np.ndarray, z: np.ndarray
) -> tuple[np.ndarray, ...]:
    """Returns the six blocks of T that belong to X, K, Z (theorem C).

    The product has the blocks P, Q, R of T whatever X, K and Z are, and its S as well where they
    solve K (X Sh - Qh) = Z K Z^-1 (P X + Q).

    Args:
        matrix: T, (2d, 2d).
        x: X, (d, d), with P X + Q invertible.
        k: K, (d, d), invertible.
        z: Z, (d, d), invertible.

    Returns:
        A1, X1, A2, X2, A3, X3 in the order of `Six`.

    Source:
        Ours; theorem B, the formulas at the end of its proof.
    """
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
