"""A matrix to factor: checked, its features in blocks, its scale and its sign taken out."""

from dataclasses import dataclass

import numpy as np
from scipy.linalg import lapack
from torch import Tensor

from kappaflow._checks import one_of, positive_int
from kappaflow.errors import ArgumentError
from kappaflow.factor.matrices import power_of_two, square_floats
from kappaflow.partition import Partition

PARTITIONS = ("half", "alternating")
SINGULAR = 4 * np.finfo(float).eps  # of the reciprocal of the condition number, in the 1-norm


@dataclass(frozen=True)
class Problem:
    """What the routes work on.

    Attributes:
        given: The matrix as it was given, (n, n).
        partition: What a lower factor keeps, and changes.
        order: The kept features, then the changed ones.
        matrix: The matrix in this order, its last row negated where `flipped`: det > 0.
        flipped: Whether the determinant was negative.
        scale: |det|^(1/n).
    """

    given: np.ndarray
    partition: Partition
    order: np.ndarray
    matrix: np.ndarray
    flipped: bool
    scale: float

    @property
    def first(self) -> int:
        """How many features a lower factor keeps."""
        return len(self.partition.kept)

    @property
    def even(self) -> bool:
        """Whether the partition has two halves of one size."""
        return 2 * self.first == len(self.matrix)

    @property
    def blocks(self) -> np.ndarray:
        """The matrix in blocks with its own sign."""
        return self.given[np.ix_(self.order, self.order)]


def problem_of(matrix: Tensor | np.ndarray, partition: str | int | Partition) -> Problem:
    """Returns the problem, or says why there is none.

    Args:
        matrix: T, (n, n), at least 2 x 2, finite and invertible to rounding.
        partition: "half", "alternating", how many features the first part has, or a partition.

    Returns:
        The problem.

    Raises:
        ArgumentError: One of the two cannot be used.
    """
    given = square_floats(matrix)
    split = two_parts(partition, len(given))
    _check_invertible(given)
    order = np.array(split.kept + split.changed)
    blocks = given[np.ix_(order, order)].copy()
    sign, log_size = np.linalg.slogdet(blocks)
    if sign < 0:
        blocks[-1] *= -1
    scale = float(np.exp(log_size / len(given)))
    return Problem(given, split, order, blocks, bool(sign < 0), scale)


def _check_invertible(given: np.ndarray) -> None:
    """Refuses a matrix that is singular to rounding: LAPACK's estimate, no decomposition."""
    unit = given / power_of_two(given)
    factors, _, stopped = lapack.dgetrf(unit)  # pyright: ignore[reportAttributeAccessIssue]
    estimate = lapack.dgecon  # pyright: ignore[reportAttributeAccessIssue]
    reciprocal = 0.0 if stopped else estimate(factors, np.abs(unit).sum(0).max())[0]
    if not reciprocal > SINGULAR:
        raise ArgumentError(
            "'matrix' should be invertible, got a condition number of about "
            f"{1 / reciprocal if reciprocal else np.inf:.1g}: every coupling is invertible, and "
            "so is every product of couplings."
        )


def two_parts(given: str | int | Partition, n: int) -> Partition:
    """Returns the partition that was named, if it has two parts."""
    if isinstance(given, Partition):
        partition = given
    elif isinstance(given, str):
        named = one_of("partition", given, PARTITIONS)
        partition = Partition.half(n) if named == "half" else Partition.alternating(n)
    else:
        first = positive_int("partition", given, "how many features the first part has.")
        partition = Partition(n, tuple(range(min(first, n - 1)))) if first < n else None
    if partition is None or partition.features != n or not partition.kept:
        raise ArgumentError(
            f"'partition' should split {n} features into two parts, got {given!r}: "
            "lower couplings change one part, upper ones the other."
        )
    return partition
