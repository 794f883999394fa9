r"""Theorem C's equation, relative and linearized: what path, Newton and descent all stand on."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.linalg import LinAlgError, inv, norm

from kappaflow.factor.kronecker import KroneckerMap, NormalEquations

Blocks = Sequence[np.ndarray]
SMALLEST_DAMPING = 1 / 64


@dataclass(frozen=True)
class Target:
    """A map of determinant 1, beside its inverse."""

    matrix: np.ndarray
    inverse: np.ndarray

    @classmethod
    def of(cls, matrix: np.ndarray) -> "Target":
        """Returns the target with an inverse by its singular values."""
        left, values, right = np.linalg.svd(matrix)
        return cls(matrix, (right.T / values) @ left.T)


def is_upper(position: int, outer: int) -> bool:
    """Returns whether an outer coupling is U: the last of them stands before an L."""
    return (outer - position) % 2 == 1


def peel(target: Target, outer: Blocks) -> Target:
    """Returns what is left for the six when the outer couplings are taken off on the left."""
    d = len(target.matrix) // 2
    matrix, inverse = target.matrix.copy(), target.inverse.copy()
    for position, block in enumerate(outer):
        changed, kept = _sides(d, is_upper(position, len(outer)))
        matrix[changed] -= block @ matrix[kept]
        inverse[:, kept] += inverse[:, changed] @ block
    return Target(matrix, inverse)


@dataclass(frozen=True)
class Linearized:
    r"""The relative equation at a point: E = (Z K Z^-1)^-1 K (X Sh - Qh) (P X + Q)^-1.

    A point solves it where E = 1. Increments are dX, then k and z that stand for K -> K (1 + k)
    and Z -> (1 + z) Z, then those of the outer blocks.
    """

    defect: np.ndarray  # 1 - E
    derivative: KroneckerMap
    left_null: np.ndarray  # det E = 1 everywhere: no step moves E along E^-T

    @property
    def error(self) -> float:
        """The Frobenius norm of 1 - E."""
        return float(norm(self.defect))

    def equations(self) -> NormalEquations:
        """Returns the solver for steps of least norm."""
        return NormalEquations(self.derivative, self.left_null)


def defect(target: Target, values: Blocks) -> np.ndarray:
    """Returns 1 - E."""
    x, k, z = values[:3]
    d = len(x)
    six = peel(target, values[3:])
    upper = six.matrix[:d, :d] @ x + six.matrix[:d, d:]
    right = x @ six.inverse[d:, d:] - six.inverse[:d, d:]
    return np.eye(d) - z @ inv(z @ k) @ k @ right @ inv(upper)


def linearize(target: Target, values: Blocks) -> Linearized:
    """Returns E and its derivative, a sum of Kronecker products, at a point.

    Args:
        target: The map, (2d, 2d), and its inverse.
        values: X, K, Z and the outer blocks from the left, (d, d) each.

    Returns:
        The linearized equation.

    Raises:
        LinAlgError: One of K, Z and P X + Q is singular.

    Source:
        Ours; theorem C, differentiated.
    """
    x, k, z = values[:3]
    d, one = len(x), np.eye(len(x))
    six = peel(target, values[3:])
    # Notation of theorem C: P, Q of the map, Qh, Sh of its inverse; conjugate = Z K Z^-1.
    p, q = six.matrix[:d, :d], six.matrix[:d, d:]
    qh, sh = six.inverse[:d, d:], six.inverse[d:, d:]
    upper_inverse, z_inverse, k_inverse = inv(p @ x + q), inv(z), inv(k)
    conjugate, back = z @ k @ z_inverse, z @ k_inverse @ z_inverse
    turned = back @ k
    e = turned @ (x @ sh - qh) @ upper_inverse
    pairs = [
        ((turned, sh @ upper_inverse), (-e @ p, upper_inverse)),
        ((-z, z_inverse @ e), (turned, k_inverse @ conjugate @ e)),
        ((-back, conjugate @ e), (one, e)),
    ]
    column, row = np.vstack((x, one)), np.hstack((-one, x))
    for u, w in _outer_sides(values[3:], d):
        first = (e @ u[:d], w @ six.matrix @ column @ upper_inverse)
        second = (turned @ (row @ six.inverse @ u), w[:, d:] @ upper_inverse)
        pairs.append((first, second))
    return Linearized(one - e, KroneckerMap(pairs), inv(e).T)


def move(values: Blocks, step: Blocks, length: float = 1.0) -> list[np.ndarray]:
    """Returns the point a step away."""
    x, k, z = values[:3]
    dx, dk, dz = step[:3]
    six = [x + length * dx, k + length * (k @ dk), z + length * (dz @ z)]
    return six + [b + length * db for b, db in zip(values[3:], step[3:], strict=True)]


def newton(
    target: Target, values: Blocks, *, tolerance: float = 1e-9, steps: int = 12
) -> tuple[list[np.ndarray], float, int]:
    """Returns a solution near a point, by damped Newton steps of least norm.

    Args:
        target: The map.
        values: Where to start: X, K, Z and the outer blocks.
        tolerance: Error of E, in the Frobenius norm, that is small enough.
        steps: At most so many.

    Returns:
        The point reached, its error, and how many steps it took; the caller judges the error.
    """
    values, taken = list(values), 0
    here = linearize(target, values)
    while here.error > tolerance and taken < steps:
        step = here.equations().least_norm(here.defect)
        trial = _damped(target, values, step, here.error)
        if trial is None:
            break
        values, here = trial
        taken += 1
    return values, here.error, taken


def _damped(
    target: Target, values: Blocks, step: Blocks, error: float
) -> tuple[list[np.ndarray], Linearized] | None:
    """Returns the first point along a step at which the error fell, if there is one."""
    length = 1.0
    while length >= SMALLEST_DAMPING:
        trial = move(values, step, length)
        try:
            there = linearize(target, trial)
        except LinAlgError:
            length /= 2
            continue
        if there.error < (1 - length / 4) * error:
            return trial, there
        length /= 2
    return None


def _sides(d: int, upper: bool) -> tuple[slice, slice]:
    """Returns the changed half and the kept half of a coupling."""
    first, second = slice(0, d), slice(d, 2 * d)
    return (first, second) if upper else (second, first)


def _outer_sides(outer: Blocks, d: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Returns u and w for each outer block: T of the six changes by -u (d block) w T."""
    sides = []
    left, right = np.eye(2 * d), np.eye(2 * d)  # the couplings behind, inverted; and as they are
    for position in reversed(range(len(outer))):
        changed, kept = _sides(d, is_upper(position, len(outer)))
        sides.append((left[:, changed].copy(), right[kept].copy()))
        left[:, kept] -= left[:, changed] @ outer[position]
        right[changed] += outer[position] @ right[kept]
    return sides[::-1]
