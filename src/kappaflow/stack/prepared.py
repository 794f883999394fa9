"""The weights of a block, prepared for a pass: in the type of its products, cut up by layer."""

from collections.abc import Callable, Sequence
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


def prepared_gradients(shape: BlockShape, tensors: Sequence[Tensor]) -> list[Views]:
    """Returns the gradients of each layer."""
    return _by_layer(shape, _each(gradient_views, shape, tensors))


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
