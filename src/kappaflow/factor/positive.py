"""Symmetric positive definite maps of even size as six unit couplings, in closed form.

By theorem C (docs/theory/six-couplings.md), six unit couplings make T = (P, Q; R, S) if X, K, Z
solve K (X Sh - Qh) = Z K Z^-1 (P X + Q), where Qh and Sh are the right blocks of T^-1.

P and Sh are symmetric here: P = U p U^T and Sh = V s V^T. With X = P^-1 (U e V^T - Q), for any
diagonal e, the equation becomes K N = Z K Z^-1 with N = U diag(s / p) U^T. In this basis K is
diagonal too: each entry of K N is the next entry of K, on a cycle through all of them, and the
permutation Z moves them. The entries of K are partial products of s / p, which the order keeps
small (docs/theory/conditioning.md, theorem 4).
"""

import numpy as np

from kappaflow.errors import NumericalError
from kappaflow.factor.coupling import Factor, unit_factors
from kappaflow.factor.rescale import rescale
from kappaflow.factor.rotation import six_blocks

SYMMETRIC = 1e-14  # largest difference of opposite entries, in units of the largest entry


def is_positive_definite(matrix: np.ndarray) -> bool:
    """Returns whether a matrix is symmetric up to rounding, and positive definite."""
    if np.abs(matrix - matrix.T).max() > SYMMETRIC * np.abs(matrix).max():
        return False
    try:
        np.linalg.cholesky(matrix)
    except np.linalg.LinAlgError:
        return False
    return True


def factor_positive_definite(matrix: np.ndarray, *, scale: float = 1.0) -> list[Factor]:
    """Returns six factors of `scale` times a symmetric positive definite map, (2d, 2d), det 1."""
    # The condition numbers of the factors grow with that of the map: by a power of 0.25 to 0.8 in
    # tests. The order of partial sums: Steinitz 1913.
    d = len(matrix) // 2
    p, u = np.linalg.eigh(matrix[:d, :d])
    s, v = np.linalg.eigh(np.linalg.inv(matrix)[d:, d:])
    if not (p[0] > 0 and s[0] > 0):  # also if they are nan
        raise NumericalError(
            "the matrix is too ill-conditioned for the closed form of positive definite maps: its "
            "blocks have eigenvalues that are not positive in float64. method='svd' accepts any "
            "invertible matrix."
        )
    logs = np.log(s) - np.log(p)
    cycle = _order(logs - logs.mean())
    k = np.zeros(d)
    k[cycle[1:]] = np.cumsum(logs[cycle])[:-1]
    z = np.zeros((d, d))
    z[cycle, np.roll(cycle, -1)] = 1
    z = u @ z @ u.T
    best_factors, best_condition = [], np.inf
    for e, shift in ((np.ones(d), np.ptp(k) / 2), (p**0.5, np.ptp(k) / 2), (s**-0.5, 0.0)):
        x = np.linalg.solve(matrix[:d, :d], u * e @ v.T - matrix[:d, d:])
        factors = unit_factors(six_blocks(matrix, x, u * np.exp(k - k.min() - shift) @ u.T, z))
        factors = rescale(factors, scale=scale)
        worst = max(factor.condition_number for factor in factors)
        if worst < best_condition:
            best_factors, best_condition = factors, worst
    return best_factors


def _order(logs: np.ndarray) -> np.ndarray:
    """Returns an order whose partial sums never exceed the largest absolute value, for sum 0."""
    up, down = (list(np.flatnonzero(sign)) for sign in (logs > 0, logs <= 0))
    up.sort(key=lambda i: logs[i])
    down.sort(key=lambda i: -logs[i])
    order, total = [], 0.0
    while up or down:
        order.append((down if (total > 0 and down) or not up else up).pop())
        total += logs[order[-1]]
    return np.array(order)
