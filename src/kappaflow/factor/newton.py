r"""The equation of `word`, linearized, and Newton's method on it with steps of least norm."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.linalg import LinAlgError, norm

from kappaflow.factor.kronecker import KroneckerMap, NormalEquations, Pair
from kappaflow.factor.word import Target, Word, right_inverse, sweep

Blocks = Sequence[np.ndarray]

SMALLEST_DAMPING = 1 / 64
INEXACT = 1e-2  # of the linear systems: each step still gains two digits


@dataclass(frozen=True)
class Linearized:
    """The equation at a point, scaled so that X1 has orthonormal rows, and its derivative."""

    defect: np.ndarray
    derivative: KroneckerMap
    # With square blocks det M12 = det -(M^-1)12 for every M of determinant 1: no step moves it.
    missed: np.ndarray | None

    @property
    def error(self) -> float:
        """The Frobenius norm of the defect."""
        return float(norm(self.defect))

    def equations(self) -> NormalEquations:
        """Returns the solver for steps of least norm."""
        return NormalEquations(self.derivative, self.missed)


def defect(word: Word, target: Target, values: Blocks) -> np.ndarray:
    """Returns S (M12 + (M^-1)12), zero where the couplings make the map."""
    d = len(target.matrix) // 2
    x1 = sweep(word, target.matrix, values, sign=-1)[-1][:d, d:]
    other = sweep(word, target.inverse, values, sign=1)[-1][:d, d:]
    return right_inverse(x1)[1] @ (x1 + other)


def linearize(word: Word, target: Target, values: Blocks) -> Linearized:
    """Returns the equation and its derivative, a sum of two Kronecker products for each block.

    Args:
        word: Where the blocks stand.
        target: The map.
        values: The unknown blocks.

    Returns:
        The linearized equation.

    Raises:
        LinAlgError: M12 has not full row rank.

    Source:
        Ours; theorem E.
    """
    n, d = len(target.matrix), len(target.matrix) // 2
    rest = sweep(word, target.matrix, values, sign=-1)[-1]
    back = sweep(word, target.inverse, values, sign=1)[-1]
    off = rest[:d, d:] + back[:d, d:]
    inverse, scale = right_inverse(rest[:d, d:])
    e = np.eye(n - d) - inverse @ off  # S moves as well: S X1 stays as it is
    before, behind = word.sides(n)
    # From the L U L outwards on either side. On the left M and its inverse change their parts.
    first = _outwards(before[::-1], values[: word.before][::-1], (back, rest), sign=-1)
    last = _outwards(behind, values[word.before :], (rest, back), sign=1)
    terms = []
    for left, back_left, right, back_right in first[::-1]:
        terms.append(((-scale @ left, back_right @ e), (scale @ back_left, right)))
    for left, back_left, right, back_right in last:
        terms.append(((-scale @ back_left, right @ e), (scale @ left, back_right)))
    missed = np.linalg.inv(e).T if n % 2 == 0 else None
    return Linearized(scale @ off, KroneckerMap(terms), missed)


def move(values: Blocks, step: Blocks, length: float = 1.0) -> list[np.ndarray]:
    """Returns the point a step away."""
    return [block + length * change for block, change in zip(values, step, strict=True)]


def newton(
    word: Word, target: Target, values: Blocks, *, tolerance: float, steps: int
) -> tuple[list[np.ndarray], float, int]:
    """Returns a solution near a point, by damped Newton steps of least norm.

    Args:
        word: Where the blocks stand.
        target: The map.
        values: Where to start: the unknown blocks.
        tolerance: Norm of the defect that is small enough.
        steps: At most so many.

    Returns:
        The point reached, its error, and how many steps it took; the caller judges the error.
    """
    values, taken = list(values), 0
    here = linearize(word, target, values)
    while here.error > tolerance and taken < steps:
        step = here.equations().least_norm(-here.defect, tolerance=INEXACT)
        trial = _damped(word, target, values, step, here.error)
        if trial is None:
            break
        values, here = trial
        taken += 1
    return values, here.error, taken


def _damped(
    word: Word, target: Target, values: Blocks, step: Blocks, error: float
) -> tuple[list[np.ndarray], Linearized] | None:
    """Returns the first point along a step at which the error fell, if there is one."""
    length = 1.0
    while length >= SMALLEST_DAMPING:
        trial = move(values, step, length)
        try:
            there = linearize(word, target, trial)
        except LinAlgError:
            length /= 2
            continue
        if there.error < (1 - length / 4) * error:
            return trial, there
        length /= 2
    return None


def _outwards(
    sides: Sequence, values: Blocks, ends: Pair, *, sign: int
) -> list[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]]:
    """Returns what stands to the left and right of each coupling when it moves alone."""
    # With G the couplings between the L U L and this one, inverted on the left side (sign -1):
    # top rows of G and of the first end times G, right columns of G^-1 and of G^-1 times the
    # other end, each at the half that this coupling changes or keeps.
    n, d = len(ends[0]), len(ends[0]) // 2
    rows, rows_end = np.eye(n)[:d], ends[0][:d].copy()
    columns, columns_end = np.eye(n)[:, d:], ends[1][:, d:].copy()
    parts = []
    for (changed, kept), block in zip(sides, values, strict=True):
        left, right = (rows, rows_end), (columns, columns_end)
        parts.append((*[r[:, changed].copy() for r in left], *[c[kept].copy() for c in right]))
        for r in left:
            r[:, kept] += sign * r[:, changed] @ block
        for c in right:
            c[changed] -= sign * block @ c[kept]
    return parts
