"""The matrix to factor: checked, reordered into blocks, scaled, with positive determinant."""

from dataclasses import dataclass
from functools import cached_property
from typing import get_args

import numpy as np
import torch
from scipy.linalg import lapack
from torch import Tensor

from kappaflow._checks import one_of, positive_int
from kappaflow.errors import ArgumentError
from kappaflow.options import FixedPartition
from kappaflow.partition import Partition

PARTITIONS: tuple[FixedPartition, ...] = get_args(FixedPartition)
SINGULAR = 4 * np.finfo(float).eps  # smallest reciprocal condition number, in the 1-norm


def square_floats(matrix_like: object) -> np.ndarray:
    """Returns a tensor, array or nested list as float64, (n, n), with n at least 2."""
    matrix = array_of(matrix_like)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
        raise ArgumentError(
            f"'matrix' should be square, got shape {matrix.shape}: couplings are invertible maps "
            "from n features to n features."
        )
    if len(matrix) < 2:
        raise ArgumentError(
            f"'matrix' should have at least 2 rows, got {len(matrix)}: a coupling changes one "
            "feature depending on another."
        )
    return finite_floats(matrix)


def array_of(value: object) -> np.ndarray:
    """Returns the input as an array of real numbers, with its dtype unchanged."""
    try:
        if isinstance(value, Tensor):
            plain = value.detach().cpu()
            array = (plain.float() if plain.dtype == torch.bfloat16 else plain).numpy()
        else:
            array = np.asarray(value)
    except (TypeError, ValueError, RuntimeError):
        raise ArgumentError(
            f"'matrix' should be a square matrix of numbers, got {type(value).__name__}."
        ) from None
    if array.dtype.kind not in "biufO":
        raise ArgumentError(f"'matrix' should hold real numbers, got {array.dtype}.")
    return array


def finite_floats(array: np.ndarray) -> np.ndarray:
    """Returns an array as float64; raises ArgumentError if a number is not finite."""
    try:
        with np.errstate(over="ignore"):
            values = np.asarray(array, dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        raise ArgumentError(f"'matrix' should hold real numbers, got {array.dtype}.") from None
    if not np.isfinite(values).all():
        raise ArgumentError("'matrix' should hold finite numbers: look for nan or inf in it.")
    return values


def power_of_two(matrix: np.ndarray) -> float:
    """Returns the largest power of two below the largest entry; dividing by it rounds nothing."""
    largest = np.abs(matrix).max()
    return float(2.0 ** np.floor(np.log2(largest))) if largest > 0 else 1.0


@dataclass(frozen=True)
class FactorProblem:
    """A checked matrix in the form that the methods work on."""

    given: np.ndarray  # the matrix as the user gave it
    partition: Partition
    order: np.ndarray  # the kept features, then the changed ones
    matrix: np.ndarray  # in this order
    flipped: bool  # whether its last row is negated: the determinant was negative
    scale: float  # |det|^(1/n)

    @property
    def first(self) -> int:
        """How many features a lower factor keeps."""
        return len(self.partition.kept)

    @property
    def even(self) -> bool:
        """Whether both parts of the partition have the same size."""
        return 2 * self.first == len(self.matrix)

    @cached_property
    def singular_values(self) -> np.ndarray:
        """The singular values of the matrix, descending."""
        return np.linalg.svd(self.matrix, compute_uv=False)

    @property
    def condition_number(self) -> float:
        """The largest singular value divided by the smallest."""
        return float(self.singular_values[0] / self.singular_values[-1])

    @property
    def blocks(self) -> np.ndarray:
        """The matrix in block order, with its own sign."""
        return self.given[np.ix_(self.order, self.order)]


def factor_problem(matrix: Tensor | np.ndarray, partition: str | int | Partition) -> FactorProblem:
    """Returns the problem for a matrix and a partition; raises ArgumentError if one is invalid."""
    square = square_floats(matrix)
    split = resolve_partition(partition, len(square))
    _check_invertible(square)
    order = np.array(split.kept + split.changed)
    blocks = square[np.ix_(order, order)].copy()
    sign, log_size = np.linalg.slogdet(blocks)
    if sign < 0:
        blocks[-1] *= -1
    scale = float(np.exp(log_size / len(square)))
    return FactorProblem(square, split, order, blocks, bool(sign < 0), scale)


def _check_invertible(matrix: np.ndarray) -> None:
    """Raises ArgumentError for a numerically singular matrix, by LAPACK's condition estimate."""
    unit = matrix / power_of_two(matrix)
    factors, _, stopped = lapack.dgetrf(unit)  # pyright: ignore[reportAttributeAccessIssue]
    estimate = lapack.dgecon  # pyright: ignore[reportAttributeAccessIssue]
    reciprocal = 0.0 if stopped else estimate(factors, np.abs(unit).sum(0).max())[0]
    if not reciprocal > SINGULAR:
        raise ArgumentError(
            "'matrix' should be invertible, got a condition number of about "
            f"{1 / reciprocal if reciprocal else np.inf:.1g}: every coupling is invertible, and "
            "so is every product of couplings."
        )


def resolve_partition(value: str | int | Partition, n: int) -> Partition:
    """Returns the partition of n features that a name, a size or a partition stands for."""
    if isinstance(value, Partition):
        partition = value
    elif isinstance(value, str):
        named = one_of("partition", value, PARTITIONS)
        partition = Partition.half(n) if named == "half" else Partition.alternating(n)
    else:
        first = positive_int("partition", value, "how many features the first part has.")
        partition = Partition(n, tuple(range(min(first, n - 1)))) if first < n else None
    if partition is None or partition.features != n or not partition.kept:
        raise ArgumentError(
            f"'partition' should split {n} features into two parts, got {value!r}: "
            "lower couplings change one part, upper ones the other."
        )
    return partition
