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
    """Returns the weights of each layer, ready for what `arithmetic.Affine` makes of the answer.

    Args:
        shape: The couplings.
        tensors: The stacked weights and the biases of each network.
        kind: The type of the products.

    Returns:
        One for each layer.
    """
    parts = []
    for network, own in zip(shape.networks, _by_network(shape, tensors), strict=True):
        *weights, biases = (tensor.detach() for tensor in own)
        if shape.affine:
            weights[-1], biases = _scaled(network, weights[-1], biases, 2 / shape.scale_bound)
        parts.append(weight_views(network, [t.to(kind) for t in (*weights, biases)]))
    return _by_layer(shape, parts)


def prepared_transposes(
    shape: BlockShape, tensors: Sequence[Tensor], kind: torch.dtype
) -> list[Transposes]:
    """Returns the transposed weights of each layer, for the way back."""
    own = [tensor.detach().to(kind) for tensor in tensors]
    return _by_layer(shape, _each(transposes, shape, own))


def prepared_gradients(shape: BlockShape, tensors: Sequence[Tensor]) -> list[Views]:
    """Returns the gradients of each layer."""
    return _by_layer(shape, _each(gradient_views, shape, tensors))


def _scaled(
    network: NetworkShape, weight: Tensor, biases: Tensor, factor: float
) -> tuple[Tensor, Tensor]:
    """Returns the last weights and the biases with the part for raw log-scales times a factor."""
    outputs = network.outputs[-1]
    scale = weight.new_ones(biases.shape[1])
    scale[-outputs : -(outputs // 2)] = factor
    return weight * scale[-outputs:, None], biases * scale


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
