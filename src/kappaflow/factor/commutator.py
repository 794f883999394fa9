"""A rotation as a commutator K^-1 Z K Z^-1 of two orthogonal matrices, by its real Schur form."""

import numpy as np
from scipy.linalg import schur


def commutator(rotation: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    r"""Returns orthogonal K, Z with N = K^-1 Z K Z^-1, and no eigenvalue of K far from 1.

    On each plane that N turns by theta, K turns by -theta/2 and Z reflects, so that
    Z K Z^-1 = K^-1; on the eigenvalues 1 both are the identity. Hence |K - 1| <= sqrt 2.

    Args:
        rotation: N, (d, d), orthogonal with determinant 1.

    Returns:
        K and Z, (d, d) each.

    Source:
        Ours; theorem B. That a matrix of determinant 1 is a commutator: Thompson 1961.

    Example:
        >>> n = np.diag([-1.0, 1.0, -1.0])
        >>> k, z = commutator(n)
        >>> bool(np.allclose(k.T @ z @ k @ z.T, n))
        True
    """
    form, basis = schur(rotation, output="real")[:2]
    k, z = np.eye(len(form)), np.eye(len(form))
    for i, j, angle in _planes(form):
        half = -angle / 2
        k[np.ix_([i, j], [i, j])] = [[np.cos(half), -np.sin(half)], [np.sin(half), np.cos(half)]]
        z[j, j] = -1.0
    return basis @ k @ basis.T, basis @ z @ basis.T


def _planes(form: np.ndarray) -> list[tuple[int, int, float]]:
    """Returns the planes (i, j) that a quasi-triangular orthogonal matrix turns, with angles."""
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
    # The determinant is 1: the eigenvalues -1 are even in number.
    planes += [(i, j, np.pi) for i, j in zip(half_turns[::2], half_turns[1::2], strict=False)]
    return planes
