r"""One small equation for any number of couplings, linearized, and Newton's method on it.

Write T = (L U L) N, the first three couplings and the others. A matrix M with M12 invertible is
L(A1) U(X1) L(A2) exactly when M12 + (M^-1)12 = 0; hence so many couplings make T exactly when

    (T N^-1)12 + (N T^-1)12 = 0.

The blocks of N are the unknowns, and X1 = M12, A2 = X1^-1 (M11 - 1), A1 = (M22 - 1) X1^-1 follow.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.linalg import LinAlgError, norm, solve

from kappaflow.factor.kronecker import KroneckerMap, NormalEquations

Blocks = Sequence[np.ndarray]

SMALLEST_DAMPING = 1 / 64


@dataclass(frozen=True)
class Target:
    """A map of determinant 1, (2d, 2d), beside its inverse."""

    matrix: np.ndarray
    inverse: np.ndarray

    @classmethod
    def of(cls, matrix: np.ndarray) -> "Target":
        """Returns the target with its inverse, from its singular values."""
        left, values, right = np.linalg.svd(matrix)
        return cls(matrix, (right.T / values) @ left.T)


def halves(features: int, upper: bool) -> tuple[slice, slice]:
    """Returns which rows a coupling changes and which it keeps, U or L."""
    first, second = slice(0, features // 2), slice(features // 2, features)
    return (first, second) if upper else (second, first)


def peel(matrix: np.ndarray, values: Blocks) -> list[np.ndarray]:
    """Returns T, T E^-1 with the last coupling E taken off, and so on to M = T N^-1."""
    peeled = [matrix]
    for position in reversed(range(len(values))):
        changed, kept = halves(len(matrix), position % 2 == 0)
        rest = peeled[-1].copy()
        rest[:, kept] -= rest[:, changed] @ values[position]
        peeled.append(rest)
    return peeled


def stack(inverse: np.ndarray, values: Blocks) -> np.ndarray:
    """Returns M^-1 = N T^-1."""
    product = inverse.copy()
    for position in reversed(range(len(values))):
        changed, kept = halves(len(inverse), position % 2 == 0)
        product[changed] += values[position] @ product[kept]
    return product


def first_three(matrix: np.ndarray) -> list[np.ndarray]:
    """Returns A1, X1, A2 of M = L(A1) U(X1) L(A2), from all of M but M21."""
    d = len(matrix) // 2
    x1, one = matrix[:d, d:], np.eye(d)
    a1 = solve(x1.T, (matrix[d:, d:] - one).T).T
    return [a1, x1, solve(x1, matrix[:d, :d] - one)]


def all_blocks(target: Target, values: Blocks) -> list[np.ndarray]:
    """Returns the blocks of all couplings in the order of the product, L first."""
    return [*first_three(peel(target.matrix, values)[-1]), *values]


@dataclass(frozen=True)
class Linearized:
    """The equation at a point in relative form, X1^-1 times it, and its derivative there."""

    defect: np.ndarray
    derivative: KroneckerMap
    missed: np.ndarray  # det (N T^-1)12 = det -(T N^-1)12 everywhere: no step moves along it

    @property
    def error(self) -> float:
        """The Frobenius norm of the defect."""
        return float(norm(self.defect))

    def equations(self) -> NormalEquations:
        """Returns the solver for steps of least norm."""
        return NormalEquations(self.derivative, self.missed)


def defect(target: Target, values: Blocks) -> np.ndarray:
    """Returns 1 + (M12)^-1 (M^-1)12."""
    d = len(target.matrix) // 2
    x1 = peel(target.matrix, values)[-1][:d, d:]
    return np.eye(d) + solve(x1, stack(target.inverse, values)[:d, d:])


def linearize(target: Target, values: Blocks) -> Linearized:
    """Returns the equation and its derivative, a sum of two Kronecker products for each block.

    Args:
        target: The map.
        values: The blocks of N, (d, d) each, U first.

    Returns:
        The linearized equation.

    Raises:
        LinAlgError: M12 is singular.

    Source:
        Ours.
    """
    n, d = len(target.matrix), len(target.matrix) // 2
    rest, back = peel(target.matrix, values)[-1], stack(target.inverse, values)
    x1_inverse = np.linalg.inv(rest[:d, d:])
    e = -x1_inverse @ back[:d, d:]
    # The couplings of N in front of the one that moves: as they are (top rows of the product),
    # times M in front (top rows), and inverted, times M^-1 behind (right columns).
    front, turned = np.eye(n)[:d], rest[:d].copy()
    undone, undone_back = np.eye(n)[:, d:], back[:, d:].copy()
    terms = []
    for position, block in enumerate(values):
        changed, kept = halves(n, position % 2 == 0)
        one = (-x1_inverse @ turned[:, changed], undone[kept] @ e)
        other = (x1_inverse @ front[:, changed], undone_back[kept].copy())
        terms.append((one, other))
        for rows in (front, turned):
            rows[:, kept] += rows[:, changed] @ block
        for columns in (undone, undone_back):
            columns[changed] -= block @ columns[kept]
    return Linearized(np.eye(d) - e, KroneckerMap(terms), np.linalg.inv(e).T)


def move(values: Blocks, step: Blocks, length: float = 1.0) -> list[np.ndarray]:
    """Returns the point a step away."""
    return [block + length * change for block, change in zip(values, step, strict=True)]


def newton(
    target: Target, values: Blocks, *, tolerance: float = 1e-9, steps: int = 12
) -> tuple[list[np.ndarray], float, int]:
    """Returns a solution near a point, by damped Newton steps of least norm.

    Args:
        target: The map.
        values: Where to start: the blocks of N.
        tolerance: Norm of the defect that is small enough.
        steps: At most so many.

    Returns:
        The point reached, its error, and how many steps it took; the caller judges the error.
    """
    values, taken = list(values), 0
    here = linearize(target, values)
    while here.error > tolerance and taken < steps:
        trial = _damped(target, values, here)
        if trial is None:
            break
        values, here = trial
        taken += 1
    return values, here.error, taken


def _damped(
    target: Target, values: Blocks, here: Linearized
) -> tuple[list[np.ndarray], Linearized] | None:
    """Returns the first point along Newton's step at which the error fell, if there is one."""
    step = here.equations().least_norm(-here.defect)
    length = 1.0
    while length >= SMALLEST_DAMPING:
        trial = move(values, step, length)
        try:
            there = linearize(target, trial)
        except LinAlgError:
            length /= 2
            continue
        if there.error < (1 - length / 4) * here.error:
            return trial, there
        length /= 2
    return None
