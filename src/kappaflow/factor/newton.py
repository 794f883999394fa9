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


@dataclass(frozen=True)
class Word:
    """How many couplings there are, and how many of them stand before the L U L that follows.

    Args:
        couplings: All of them, L first.
        before: Those in front of the L U L, an even number; their blocks come first among the
            unknowns, then those behind.
    """

    couplings: int
    before: int = 0
    start: int = 0

    def sides(self, features: int) -> tuple[list, list]:
        """Returns what each unknown coupling changes and keeps: those before, those behind."""
        behind = self.couplings - 3 - self.before
        return (
            [halves(features, position % 2 == 1) for position in range(self.before)],
            [halves(features, position % 2 == 0) for position in range(behind)],
        )

    def all(self, first: Blocks, values: Blocks) -> list[np.ndarray]:
        """Returns all blocks in the order of the product."""
        return [*values[: self.before], *first, *values[self.before :]]


def peel(word: Word, matrix: np.ndarray, values: Blocks) -> list[np.ndarray]:
    """Returns T, T without its first coupling, and so on; then without its last: at the end M."""
    peeled = [matrix]
    before, behind = word.sides(len(matrix))
    for (changed, kept), block in zip(before, values, strict=False):
        rest = peeled[-1].copy()
        rest[changed] -= block @ rest[kept]
        peeled.append(rest)
    for (changed, kept), block in zip(behind[::-1], values[::-1], strict=False):
        rest = peeled[-1].copy()
        rest[:, kept] -= rest[:, changed] @ block
        peeled.append(rest)
    return peeled


def stack(word: Word, inverse: np.ndarray, values: Blocks) -> np.ndarray:
    """Returns M^-1."""
    product = inverse.copy()
    before, behind = word.sides(len(inverse))
    for (changed, kept), block in zip(before, values, strict=False):
        product[:, kept] += product[:, changed] @ block
    for (changed, kept), block in zip(behind[::-1], values[::-1], strict=False):
        product[changed] += block @ product[kept]
    return product


def first_three(matrix: np.ndarray) -> list[np.ndarray]:
    """Returns A1, X1, A2 of M = L(A1) U(X1) L(A2), from all of M but M21."""
    d = len(matrix) // 2
    x1, one = matrix[:d, d:], np.eye(d)
    a1 = solve(x1.T, (matrix[d:, d:] - one).T).T
    return [a1, x1, solve(x1, matrix[:d, :d] - one)]


def all_blocks(word: Word, target: Target, values: Blocks) -> list[np.ndarray]:
    """Returns the blocks of all couplings in the order of the product, L first."""
    return word.all(first_three(peel(word, target.matrix, values)[-1]), values)


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


def defect(word: Word, target: Target, values: Blocks) -> np.ndarray:
    """Returns 1 + (M12)^-1 (M^-1)12."""
    d = len(target.matrix) // 2
    x1 = peel(word, target.matrix, values)[-1][:d, d:]
    return np.eye(d) + solve(x1, stack(word, target.inverse, values)[:d, d:])


def linearize(word: Word, target: Target, values: Blocks) -> Linearized:
    """Returns the equation and its derivative, a sum of two Kronecker products for each block.

    Args:
        word: Where the blocks stand.
        target: The map.
        values: The unknown blocks, (d, d) each.

    Returns:
        The linearized equation.

    Raises:
        LinAlgError: M12 is singular.

    Source:
        Ours.
    """
    n, d = len(target.matrix), len(target.matrix) // 2
    rest, back = peel(word, target.matrix, values)[-1], stack(word, target.inverse, values)
    x1_inverse = np.linalg.inv(rest[:d, d:])
    e = -x1_inverse @ back[:d, d:]
    before, behind = word.sides(n)
    terms = []
    # Top rows and right columns of the couplings between a block and the L U L, as they are and
    # inverted, alone and times M or its inverse.
    rows, rows_back = np.eye(n)[:d], back[:d].copy()
    columns, columns_rest = np.eye(n)[:, d:], rest[:, d:].copy()
    for (changed, kept), block in zip(before[::-1], values[: word.before][::-1], strict=True):
        one = (-x1_inverse @ rows[:, changed], columns_rest[kept] @ e)
        terms.insert(0, (one, (x1_inverse @ rows_back[:, changed], columns[kept].copy())))
        for some in (rows, rows_back):
            some[:, kept] -= some[:, changed] @ block
        for some in (columns, columns_rest):
            some[changed] += block @ some[kept]
    rows, rows_rest = np.eye(n)[:d], rest[:d].copy()
    columns, columns_back = np.eye(n)[:, d:], back[:, d:].copy()
    for (changed, kept), block in zip(behind, values[word.before :], strict=True):
        one = (-x1_inverse @ rows_rest[:, changed], columns[kept] @ e)
        terms.append((one, (x1_inverse @ rows[:, changed], columns_back[kept].copy())))
        for some in (rows, rows_rest):
            some[:, kept] += some[:, changed] @ block
        for some in (columns, columns_back):
            some[changed] -= block @ some[kept]
    return Linearized(np.eye(d) - e, KroneckerMap(terms), np.linalg.inv(e).T)


def move(values: Blocks, step: Blocks, length: float = 1.0) -> list[np.ndarray]:
    """Returns the point a step away."""
    return [block + length * change for block, change in zip(values, step, strict=True)]


def newton(
    word: Word, target: Target, values: Blocks, *, tolerance: float = 1e-9, steps: int = 12
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
    here = linearize(word, target, values)
    while here.error > tolerance and taken < steps:
        trial = _damped(word, target, values, here)
        if trial is None:
            break
        values, here = trial
        taken += 1
    return values, here.error, taken


def _damped(
    word: Word, target: Target, values: Blocks, here: Linearized
) -> tuple[list[np.ndarray], Linearized] | None:
    """Returns the first point along Newton's step at which the error fell, if there is one."""
    step = here.equations().least_norm(-here.defect)
    length = 1.0
    while length >= SMALLEST_DAMPING:
        trial = move(values, step, length)
        try:
            there = linearize(word, target, trial)
        except LinAlgError:
            length /= 2
            continue
        if there.error < (1 - length / 4) * here.error:
            return trial, there
        length /= 2
    return None
