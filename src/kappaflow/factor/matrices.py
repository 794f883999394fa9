"""What a user gives as a matrix, as an array; or what is wrong with it."""

import numpy as np
import torch
from torch import Tensor

from kappaflow.errors import ArgumentError


def square_floats(given: object) -> np.ndarray:
    """Returns a matrix as float64, if it is one that has couplings at all.

    Args:
        given: Tensor, array or nested list of real numbers.

    Returns:
        (n, n), n at least 2, finite; it may share memory with what was given.

    Raises:
        ArgumentError: It is none.
    """
    matrix = array_of(given)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
        raise ArgumentError(
            f"'matrix' should be square, got shape {matrix.shape}: couplings are invertible maps "
            "from n features to n."
        )
    if len(matrix) < 2:
        raise ArgumentError(
            f"'matrix' should have at least 2 rows, got {len(matrix)}: a coupling changes one "
            "feature by what it reads from another."
        )
    return finite_floats(matrix)


def array_of(given: object) -> np.ndarray:
    """Returns what was given as an array of real numbers, of the kind that they have."""
    try:
        if isinstance(given, Tensor):
            plain = given.detach().cpu()
            array = (plain.float() if plain.dtype == torch.bfloat16 else plain).numpy()
        else:
            array = np.asarray(given)
    except (TypeError, ValueError, RuntimeError):
        raise ArgumentError(
            f"'matrix' should be a square matrix of numbers, got {type(given).__name__}."
        ) from None
    if array.dtype.kind not in "biufO":
        raise ArgumentError(f"'matrix' should hold real numbers, got {array.dtype}.")
    return array


def finite_floats(array: np.ndarray) -> np.ndarray:
    """Returns an array as float64, if all of its numbers are finite there."""
    try:
        with np.errstate(over="ignore"):
            values = np.asarray(array, dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        raise ArgumentError(f"'matrix' should hold real numbers, got {array.dtype}.") from None
    if not np.isfinite(values).all():
        raise ArgumentError("'matrix' should hold finite numbers: look for nan or inf in it.")
    return values


def power_of_two(matrix: np.ndarray) -> float:
    """Returns the size of the largest entry, to a power of two: dividing by it rounds nothing.

    Example:
        >>> power_of_two(np.array([[3.0, -5.0]]))
        4.0
    """
    largest = np.abs(matrix).max()
    return float(2.0 ** np.floor(np.log2(largest))) if largest > 0 else 1.0
