"""What a flow on one partition consists of, before its linear maps are factored."""

from dataclasses import dataclass

import numpy as np
import torch

from kappaflow.bijection import Bijection, Inverse
from kappaflow.bijections import AdditiveCoupling, AffineCoupling, ElementwiseAffine
from kappaflow.factor import LinearCoupling
from kappaflow.partition import Partition
from kappaflow.rewrite.mixed import SandwichCoupling


@dataclass(frozen=True)
class LinearMap:
    """A linear map that no coupling of the partition is yet, (n, n) on columns.

    Attributes:
        matrix: float64.
        name: What it stands for, in words.
        frozen: Whether it is not to be trained.
    """

    matrix: np.ndarray
    name: str
    frozen: bool = False


Item = Bijection | LinearMap


def partition_of(item: Item | None) -> Partition | None:
    """Returns the partition of a coupling of any kind, None of anything else."""
    if isinstance(item, Inverse):
        return partition_of(item.bijection)
    if isinstance(item, AffineCoupling | AdditiveCoupling | SandwichCoupling | LinearCoupling):
        return item.partition if isinstance(item.partition, Partition) else None
    return None


def is_any_coupling(item: Item) -> bool:
    """Returns whether it is a coupling, linear or not, in either direction."""
    item = item.bijection if isinstance(item, Inverse) else item
    return isinstance(item, AffineCoupling | AdditiveCoupling | SandwichCoupling | LinearCoupling)


def elementwise(
    scale: np.ndarray, shift: np.ndarray, *, frozen: bool = False
) -> ElementwiseAffine:
    """Returns the layer x -> scale x + shift of positive scales, in float64."""
    layer = ElementwiseAffine(len(scale)).double()
    state = {"log_scale": np.log(scale), "shift": shift.copy()}
    layer.load_state_dict({name: torch.from_numpy(value) for name, value in state.items()})
    return layer.requires_grad_(not frozen)


def elementwise_if_any(
    scale: np.ndarray, shift: np.ndarray, *, frozen: bool = False
) -> list[Bijection]:
    """Returns the same as a list, which is empty if it does nothing."""
    does_nothing = (scale == 1).all() and not shift.any()
    return [] if does_nothing else [elementwise(scale, shift, frozen=frozen)]
