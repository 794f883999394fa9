"""What a flow on one partition consists of, before its linear maps are factored."""

from dataclasses import dataclass

import numpy as np
import torch

from kappaflow.bijection import Bijection
from kappaflow.bijections import AdditiveCoupling, AffineCoupling, ElementwiseAffine
from kappaflow.factor import LinearCoupling
from kappaflow.partition import Partition
from kappaflow.rewrite.mixed import MixedCoupling


@dataclass(frozen=True)
class LinearMap:
    """A linear map that no coupling of the partition is yet, (n, n) on columns.

    Attributes:
        matrix: float64.
        name: What it stands for, in words.
    """

    matrix: np.ndarray
    name: str


Item = Bijection | LinearMap


def partition_of(item: Item | None) -> Partition | None:
    """Returns the partition of a coupling of any kind, None of anything else."""
    if isinstance(item, AffineCoupling | AdditiveCoupling | MixedCoupling | LinearCoupling):
        return item.partition
    return None


def elementwise(scale: np.ndarray, shift: np.ndarray) -> list[Bijection]:
    """Returns x -> scale x + shift as at most two layers: a negative scale takes a coupling.

    Args:
        scale: (n,), positive.
        shift: (n,).

    Returns:
        None or one layer.
    """
    if (scale == 1).all() and not shift.any():
        return []
    layer = ElementwiseAffine(len(scale)).double()
    layer.load_state_dict({
        "log_scale": torch.from_numpy(np.log(scale)),
        "shift": torch.from_numpy(shift),
    })
    return [layer]
