"""Linear layers as a matrix and a shift, in float64."""

import copy
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from kappaflow.bijection import Bijection, Chain
from kappaflow.linearization import AutogradLinearization


class AffineMap(NamedTuple):
    """x -> matrix x + shift, on columns x."""

    matrix: np.ndarray
    shift: np.ndarray

    def then(self, other: "AffineMap") -> "AffineMap":
        """Returns this map followed by another."""
        return AffineMap(other.matrix @ self.matrix, other.matrix @ self.shift + other.shift)

    def reordered(self, order: Sequence[int]) -> "AffineMap":
        """Returns the same map of features that stand in another order."""
        return AffineMap(self.matrix[np.ix_(order, order)], self.shift[list(order)])

    @classmethod
    def move(cls, order: Sequence[int]) -> "AffineMap":
        """Returns the map x -> x[order]."""
        return cls(np.eye(len(order))[list(order)], np.zeros(len(order)))


@torch.no_grad()
def affine_map(parts: Sequence[Bijection], features: int) -> AffineMap:
    """Returns what linear layers do, one after the other: to zero, and in its neighbourhood.

    The matrix is not a difference of values, in which a large shift would drown it.
    """
    chain = Chain(copy.deepcopy(list(parts))).double().cpu().eval()
    zero = torch.zeros(1, features, dtype=torch.float64)
    at_zero = AutogradLinearization(chain, chain.inverse, zero, None)  # which sees hooks too
    columns = at_zero.jv(torch.eye(features, dtype=torch.float64)[:, None])[:, 0]
    return AffineMap(columns.T.numpy().copy(), at_zero.value[0].numpy().copy())
