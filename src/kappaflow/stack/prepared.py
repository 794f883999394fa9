"""The weights of a block, prepared for a pass: in the type of its products, cut up by layer."""

from collections.abc import Callable, Hashable, Sequence
from typing import TypeVar

import torch
from torch import Tensor

from kappaflow.stack.shape import BlockShape, NetworkShape
from kappaflow.stack.weights import (
    Transposes,
    Views,
    gradient_views,
    transposes,
    weight_views,
)

V = TypeVar("V")


def prepared_weights(
    shape: BlockShape, tensors: Sequence[Tensor], kind: torch.dtype
) -> list[Views]:
    """Returns the weights of each layer."""
    own = [tensor.detach().to(kind) for tensor in tensors]
    return _by_layer(shape, _each(weight_views, shape, own))


def prepared_transposes(
    shape: BlockShape, tensors: Sequence[Tensor], kind: torch.dtype
) -> list[Transposes]:
    """Returns the transposed weights of each layer, for the way back."""
    own = [tensor.detach().to(kind) for tensor in tensors]
    return _by_layer(shape, _each(transposes, shape, own))


class GradientSet:
    """Gradients of the weights, that one thread adds up.

    Attributes:
        tensors: As the weights are stacked.
        layers: The same, by layer.
    """

    def __init__(self, shape: BlockShape, tensors: Sequence[Tensor]) -> None:
        # Zeros, since of a twin's weights some are never written.
        self.tensors = [torch.zeros_like(t) for t in tensors]
        self.layers = _by_layer(shape, _each(gradient_views, shape, self.tensors))


def where_they_lie(tensors: Sequence[Tensor]) -> Hashable:
    """Returns what changes if other memory is read as these tensors."""
    return tuple((t.data_ptr(), t.stride()) for t in tensors)


def _by_network(shape: BlockShape, tensors: Sequence[Tensor]) -> list[Sequence[Tensor]]:
    parts = len(tensors) // len(shape.networks)
    return [tensors[i * parts : (i + 1) * parts] for i in range(len(shape.networks))]


def _each(
    cut: Callable[[NetworkShape, Sequence[Tensor]], list[V]],
    shape: BlockShape,
    tensors: Sequence[Tensor],
) -> list[list[V]]:
    own = zip(shape.networks, _by_network(shape, tensors), strict=True)
    return [cut(network, part) for network, part in own]


def _by_layer(shape: BlockShape, by_network: Sequence[Sequence[V]]) -> list[V]:
    return [by_network[n][r] for n, r in zip(shape.network_of, shape.row_of, strict=True)]
