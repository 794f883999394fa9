"""Maps that are a product of at most three couplings, recognized by their structure.

In blocks T = (P, Q; R, S), with diagonal matrices B and C:
one coupling L: P = 1, Q = 0, and S is diagonal;
two couplings L U: P and the Schur complement S - R P^-1 Q are diagonal;
three couplings L U L, if Q is square and invertible: S Q^-1 P - R = B Q^-1 C.
Exchanging the two parts gives the conditions for U, U L and U L U. All diagonals are positive,
except for one negative number if the determinant is negative.
"""

import numpy as np

from kappaflow.factor.coupling import Factor
from kappaflow.factor.problem import power_of_two
from kappaflow.factor.rescale import rescale

ROUNDING = 64 * np.finfo(float).eps  # error of a number, relative to the terms of its sum
TRUSTED = 1e8  # largest condition number of a block whose inverse may reveal structure


def direct_factors(matrix: np.ndarray, first: int, *, most: int = 4) -> list[Factor] | None:
    """Returns the fewest factors of a map with one of these structures, else None."""
    if np.array_equal(matrix, np.eye(len(matrix))):
        return []
    size = power_of_two(matrix)  # so that products of three entries do not overflow
    for count, find in enumerate((_one, _two, _three, _four), start=1):
        if count > most:
            break
        unit = matrix if count <= 2 else matrix / size
        for lower_first in (True, False):
            factors = find(_ordered(unit, first, lower_first), lower_first)
            if factors is not None and _signs_are_right(matrix, factors):
                return rescale(factors, scale=size) if count > 2 else factors
    return None


def _ordered(matrix: np.ndarray, first: int, lower_first: bool) -> tuple[np.ndarray, ...]:
    """Returns P, Q, R, S, or S, R, Q, P if the product begins with U."""
    blocks = (
        matrix[:first, :first],
        matrix[:first, first:],
        matrix[first:, :first],
        matrix[first:, first:],
    )
    return blocks if lower_first else blocks[::-1]


def _one(blocks: tuple[np.ndarray, ...], lower: bool) -> list[Factor] | None:
    p, q, r, s = blocks
    d = _diagonal(s, 0.0)
    if d is None or q.any() or not np.array_equal(p, np.eye(len(p))):
        return None
    return [Factor(lower, r, d)]


def _two(blocks: tuple[np.ndarray, ...], lower_first: bool) -> list[Factor] | None:
    p, q, r, s = blocks
    c = _diagonal(p, 0.0)
    if c is None:
        return None
    a = r / c
    b = _diagonal(s - a @ q, np.abs(s) + np.abs(a) @ np.abs(q))
    if b is None:
        return None
    return [Factor(lower_first, a, b), Factor(not lower_first, q, c)]


def _three(blocks: tuple[np.ndarray, ...], lower_first: bool) -> list[Factor] | None:
    p, q, r, s = blocks
    if q.shape[0] != q.shape[1] or np.linalg.cond(q) > TRUSTED:
        return None
    inverse = np.linalg.inv(q)
    left = np.linalg.solve(q.T, s.T).T
    size = np.abs(s) @ np.abs(inverse) @ np.abs(p) + np.abs(r)
    scales = _both_sides(left @ p - r, inverse, ROUNDING * np.linalg.cond(q) * size.max())
    if scales is None:
        return None
    b, c = scales
    # Unit factors of diag(c, b)^-1 T; the first two take the diagonals.
    last = np.linalg.solve(q, p - np.diag(c))
    first = np.linalg.solve(q.T, (s - np.diag(b)).T).T
    factors = [
        Factor(lower_first, first, b),
        Factor(not lower_first, q, c),
        Factor(lower_first, last, np.ones(len(b))),
    ]
    return factors


def _four(blocks: tuple[np.ndarray, ...], lower_first: bool) -> list[Factor] | None:
    """Returns four factors of a map of two features: T U(1), or T L(1), needs three."""
    p, q, r, s = blocks
    if p.size + s.size > 2:
        return None
    sheared = _three((p, q + p, r, s + r), lower_first)
    return sheared and [*sheared, Factor(not lower_first, -np.ones((1, 1)), np.ones(1))]


def _both_sides(
    scaled: np.ndarray, plain: np.ndarray, tolerance: float
) -> tuple[np.ndarray, np.ndarray] | None:
    """Returns b, c with scaled = diag(b) plain diag(c), or None; c is 1 if any value works."""
    # A walk over the entries that are not zero up to rounding propagates the ratios.
    d = len(plain)
    solid = np.abs(plain) > 1e-10 * np.abs(plain).max()
    b, c = np.zeros(d), np.zeros(d)
    for start in range(d):
        if c[start]:
            continue
        c[start] = 1.0
        columns = [start]
        while columns:
            column = columns.pop()
            rows = np.flatnonzero(solid[:, column] & (b == 0))
            b[rows] = scaled[rows, column] / (plain[rows, column] * c[column])
            if (b[rows] == 0).any():
                return None
            for row in rows:
                fresh = np.flatnonzero(solid[row] & (c == 0))
                c[fresh] = scaled[row, fresh] / (plain[row, fresh] * b[row])
                if (c[fresh] == 0).any():
                    return None
                columns += fresh.tolist()
    if (b == 0).any() or np.abs(b[:, None] * plain * c - scaled).max() > tolerance:
        return None
    return b, c


def _diagonal(block: np.ndarray, size: np.ndarray | float) -> np.ndarray | None:
    """Returns the diagonal of a matrix that is diagonal up to rounding, else None."""
    diagonal, tolerance = np.diag(block), ROUNDING * np.broadcast_to(size, block.shape)
    off_diagonal = np.abs(block - np.diag(diagonal)) > tolerance
    if off_diagonal.any() or (np.abs(diagonal) <= np.diag(tolerance)).any():
        return None
    return diagonal.copy()


def _signs_are_right(matrix: np.ndarray, factors: list[Factor]) -> bool:
    """Returns whether there are no more negative scales than the determinant requires."""
    negative = sum(int((factor.diagonal < 0).sum()) for factor in factors)
    return negative == int(np.linalg.slogdet(matrix)[0] < 0)
