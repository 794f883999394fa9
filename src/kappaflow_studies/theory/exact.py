"""Matrices of fractions, in which zero is exact, and of floats, with a threshold for zero."""

from dataclasses import dataclass
from fractions import Fraction
from numbers import Integral
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import null_space

from kappaflow.errors import ArgumentError, NumericalError
from kappaflow.factor.problem import array_of, finite_floats

Array = NDArray[Any]
Number = Fraction | float

EXACT_UP_TO = 64  # rows; above, elimination with fractions takes minutes unless most are zero


@dataclass(frozen=True)
class Numbers:
    """An arithmetic: of fractions (`tolerance` None), or of floats with a threshold for zero.

    A float counts as zero if it is at most `tolerance` times the largest entry of its matrix.
    Conclusions then hold for some matrix within this distance: "to rounding".
    """

    tolerance: float | None

    @property
    def exact(self) -> bool:
        return self.tolerance is None

    def cleaned(self, matrix: Array, *terms: Array) -> Array:
        """Returns the matrix, with zero for each entry that is negligible next to all others."""
        if self.tolerance is None or not matrix.size:
            return matrix
        largest = max(abs(term).max() for term in (matrix, *terms))
        return np.where(abs(matrix) <= self.tolerance * largest, 0.0, matrix)

    def inverse(self, matrix: Array) -> Array:
        """Returns the inverse, cleaned; raises NumericalError if there is none."""
        if self.tolerance is not None:
            values = np.linalg.svd(matrix, compute_uv=False)
            if values[-1] <= self.tolerance * values[0]:
                raise NumericalError("The matrix has no inverse, to rounding.")
            return self.cleaned(np.linalg.solve(matrix, np.eye(len(matrix))))
        n = len(matrix)
        reduced, pivots = reduced_rows(np.hstack((matrix, fractions(np.eye(n, dtype=int)))), n)
        if len(pivots) < n:
            raise NumericalError("The matrix has no inverse.")
        return reduced[:, n:]

    def product(self, a: Array, b: Array) -> Array:
        """Returns a @ b; for fractions, zero entries are skipped."""
        if self.tolerance is not None:
            return a @ b
        result = fractions(np.zeros((len(a), b.shape[1]), dtype=int))
        for i, k in np.argwhere(a != 0).tolist():
            result[i] = result[i] + a[i, k] * b[k]
        return result

    def is_singular(self, matrix: Array) -> bool:
        try:
            self.inverse(matrix)
        except NumericalError:
            return True
        return False

    def null_space(self, matrix: Array) -> Array:
        """Returns a basis of the null space, as columns."""
        if self.tolerance is not None:
            if not matrix.any():
                return np.eye(matrix.shape[1])
            return self.cleaned(null_space(matrix, rcond=self.tolerance))
        columns = matrix.shape[1]
        reduced, pivots = reduced_rows(matrix, columns)
        free = [j for j in range(columns) if j not in pivots]
        basis = fractions(np.zeros((columns, len(free)), dtype=int))
        for k, j in enumerate(free):
            basis[j, k] = Fraction(1)
            for row, pivot in enumerate(pivots):
                basis[pivot, k] = -reduced[row, j]
        return basis

    def sign(self, matrix: Array) -> int | None:
        """Returns the sign of the determinant, -1, 0 or 1; None if rounding hides it."""
        if self.tolerance is None:
            value = determinant(matrix)
            return (value > 0) - (value < 0)
        if len(matrix) == 1:
            return int(np.sign(matrix[0, 0]))  # an entry has been cleaned already
        if not matrix.any(axis=0).all() or not matrix.any(axis=1).all():
            return 0
        values = np.linalg.svd(matrix, compute_uv=False)
        sure = values[-1] > self.tolerance * values[0]
        return int(np.linalg.slogdet(matrix)[0]) if sure else None

    def agree(self, a: Number, b: Number) -> bool:
        """Returns whether two results of longer computations are equal."""
        return abs(a - b) <= (self.tolerance or 0) ** 0.5 * max(abs(a), abs(b))

    def too_ill_conditioned(self, matrix: Array) -> bool:
        """Returns whether rounding errors times this condition number exceed the tolerance."""
        if self.tolerance is None:
            return False
        return np.linalg.cond(matrix) * np.finfo(float).eps > self.tolerance


def numbers_of(matrix: object, tolerance: float) -> tuple[Array, Numbers]:
    """Returns a square matrix and its arithmetic: exact for few integers, or for fractions."""
    array = array_of(matrix)
    if array.ndim != 2 or array.shape[0] != array.shape[1] or len(array) < 2:
        raise ArgumentError(f"'matrix' should be square, 2 x 2 or more, got shape {array.shape}.")
    if array.dtype == object and all(isinstance(x, (Integral, Fraction)) for x in array.flat):
        return fractions(array), Numbers(None)
    values = finite_floats(array)
    is_quick = len(values) <= EXACT_UP_TO or np.count_nonzero(values) <= 2 * len(values)
    if is_quick and (values == np.round(values)).all():
        return fractions(values), Numbers(None)
    numbers = Numbers(tolerance)
    return numbers.cleaned(values), numbers


def fractions(matrix: Array) -> Array:
    """Returns the array with each entry as an exact fraction."""
    exact = np.empty(matrix.size, dtype=object)
    # A NumPy integer inside a fraction would overflow.
    exact[:] = [Fraction(int(x) if isinstance(x, Integral) else x) for x in matrix.flat]
    return exact.reshape(matrix.shape)


def reduced_rows(matrix: Array, columns: int) -> tuple[Array, list[int]]:
    """Returns the reduced echelon form over the first columns, and the pivot columns."""
    rows, pivots = matrix.copy(), []
    for column in range(columns):
        step = len(pivots)
        candidates = [i for i in range(step, len(rows)) if rows[i, column] != 0]
        if not candidates:
            continue
        rows[[step, candidates[0]]] = rows[[candidates[0], step]]
        rows[step] = rows[step] / rows[step, column]
        for i in range(len(rows)):
            if i != step and rows[i, column] != 0:
                rows[i] = rows[i] - rows[i, column] * rows[step]
        pivots.append(column)
    return rows, pivots


def determinant(matrix: Array) -> Fraction:
    """Returns the determinant of a matrix of fractions, by elimination."""
    rows, value = matrix.copy(), Fraction(1)
    for step in range(len(rows)):
        candidates = [i for i in range(step, len(rows)) if rows[i, step] != 0]
        if not candidates:
            return Fraction(0)
        if candidates[0] != step:
            rows[[step, candidates[0]]] = rows[[candidates[0], step]]
            value = -value
        value *= rows[step, step]
        for i in candidates:
            if i > step and rows[i, step] != 0:
                rows[i] = rows[i] - rows[i, step] / rows[step, step] * rows[step]
    return value
