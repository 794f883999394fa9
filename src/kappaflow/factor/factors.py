"""One linear coupling in numbers, before it is a layer; and lists of them."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from kappaflow.factor.coupling import LinearCoupling
from kappaflow.partition import Partition


class Factor(NamedTuple):
    """L = (1, 0; weight, diagonal) if `lower`, else U = (diagonal, weight; 0, 1), in blocks."""

    lower: bool
    weight: np.ndarray
    diagonal: np.ndarray

    @property
    def matrix(self) -> np.ndarray:
        """The factor as a dense matrix, (n, n)."""
        changed, kept = self.weight.shape
        first = kept if self.lower else changed
        dense = np.eye(changed + kept)
        rows, columns = (
            (slice(first, None), slice(first))
            if self.lower
            else (slice(first), slice(first, None))
        )
        dense[rows, columns], dense[rows, rows] = self.weight, np.diag(self.diagonal)
        return dense


def unit_factors(blocks: Sequence[np.ndarray], *, lower_first: bool = True) -> list[Factor]:
    """Returns factors with these weights and diagonals one, lower and upper ones taking turns."""
    return [
        Factor((i % 2 == 0) == lower_first, block, np.ones(len(block)))
        for i, block in enumerate(blocks)
    ]


def flip_last(factors: Sequence[Factor]) -> tuple[list[Factor], int]:
    """Returns factors of diag(1, ..., 1, -1) T, and which one took the sign: the first lower.

    The sign passes an upper factor in front of it as a sign of its last column.
    """
    changed = list(factors)
    for number, factor in enumerate(factors):
        if factor.lower:
            sign = np.ones(len(factor.diagonal))
            sign[-1] = -1
            weight = sign[:, None] * factor.weight
            changed[number] = Factor(True, weight, sign * factor.diagonal)
            return changed, number
        weight = factor.weight.copy()
        weight[:, -1] *= -1
        changed[number] = Factor(False, weight, factor.diagonal)
    raise ValueError("there is no lower factor to take the sign")


def layers(factors: Sequence[Factor], partition: Partition) -> tuple[LinearCoupling, ...]:
    """Returns the factors as bijections: a lower one keeps what the partition keeps."""
    lower, upper = partition, partition.swapped()
    return tuple(
        LinearCoupling.of(lower if f.lower else upper, f.weight, f.diagonal) for f in factors
    )


def numbers(coupling: LinearCoupling) -> tuple[np.ndarray, np.ndarray]:
    """Returns the weight and the diagonal of a coupling as it computes with them."""
    weight, diagonal = coupling.weight.detach(), coupling.diagonal.detach()
    return weight.double().numpy(), diagonal.double().numpy()
