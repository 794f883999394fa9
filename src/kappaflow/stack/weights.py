"""The weights of many conditioners of one shape, stacked: few tensors, however deep the flow."""

from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, nn

from kappaflow.stack.shape import BlockShape, NetworkShape


class StackedNetworks(nn.Module):
    """The weights of `count` fully connected conditioners of one shape.

    Attributes:
        weights: One (count, outputs, inputs) for each linear layer.
        biases: (count, sum of outputs), those of the first linear layer first.
    """

    def __init__(self, count: int, shape: NetworkShape) -> None:
        super().__init__()
        self.shape = shape
        sizes = zip(shape.outputs, shape.inputs, strict=True)
        self.weights = nn.ParameterList(torch.zeros(count, *size) for size in sizes)
        self.biases = nn.Parameter(torch.zeros(count, sum(shape.outputs)))

    def tensors(self) -> list[Tensor]:
        """Returns the weights, then the biases."""
        return [*self.weights, self.biases]

    @torch.no_grad()
    def take(self, row: int, network: nn.Module) -> None:
        """Copies the weights of one conditioner."""
        own = named_rows(self.shape, self.tensors())[row]
        for name, tensor in network.named_parameters():
            own[name].copy_(tensor)


def named_rows(shape: NetworkShape, tensors: Sequence[Tensor]) -> list[dict[str, Tensor]]:
    """Returns the weights of each stacked conditioner under the names that an `MLP` gives them.

    They are slices, so gradients reach the stacked tensors.
    """
    *weights, biases = tensors
    found: list[dict[str, Tensor]] = [{} for _ in biases]
    parts = zip(weights, biases.split(shape.outputs, dim=1), strict=True)
    for layer, (weight, bias) in enumerate(parts):
        for row, w, b in zip(found, weight.unbind(), bias.unbind(), strict=True):
            row[f"layers.{layer}.weight"], row[f"layers.{layer}.bias"] = w, b
    return found


@dataclass(frozen=True)
class Views:
    """Weights of one conditioner, or their gradients, ready for products with columns.

    Attributes:
        weights: (outputs, inputs) of each linear layer, without the columns of the context.
        context_weight: (outputs, context) of the first layer.
        biases: (outputs, 1) of each linear layer; of gradients one (sum of outputs,).
    """

    weights: tuple[Tensor, ...]
    context_weight: Tensor
    biases: tuple[Tensor, ...]


@dataclass(frozen=True)
class Transposes:
    """Transposed weights of one conditioner, which take gradients back.

    Attributes:
        weights: (inputs, outputs) of each linear layer, without the rows of the context.
        context_weight: (context, outputs) of the first layer.
    """

    weights: tuple[Tensor, ...]
    context_weight: Tensor


def weight_views(shape: NetworkShape, tensors: Sequence[Tensor]) -> list[Views]:
    """Returns the views of each of the stacked conditioners, for their products."""
    *weights, biases = tensors
    columns = [part.unsqueeze(2).unbind() for part in biases.split(shape.outputs, dim=1)]
    return _views(shape, weights, zip(*columns, strict=True))


def gradient_views(shape: NetworkShape, tensors: Sequence[Tensor]) -> list[Views]:
    """Returns the views of gradients of each of the stacked conditioners."""
    *weights, biases = tensors
    return _views(shape, weights, zip(biases.unbind()))


def transposes(shape: NetworkShape, tensors: Sequence[Tensor]) -> list[Transposes]:
    """Returns the transposed weights of each of the stacked conditioners."""
    turned = [weight.mT for weight in tensors[:-1]]
    kept = turned[0].narrow(1, 0, shape.widths[0])
    context = turned[0].narrow(1, shape.widths[0], shape.context_features)
    rows = zip(*(part.unbind() for part in (kept, *turned[1:])), strict=True)
    return [Transposes(*row) for row in zip(rows, context.unbind(), strict=True)]


def _views(
    shape: NetworkShape, weights: Sequence[Tensor], biases: Iterable[tuple[Tensor, ...]]
) -> list[Views]:
    kept = weights[0].narrow(2, 0, shape.widths[0])
    context = weights[0].narrow(2, shape.widths[0], shape.context_features)
    rows = zip(*(part.unbind() for part in (kept, *weights[1:])), strict=True)
    return [Views(*row) for row in zip(rows, context.unbind(), biases, strict=True)]


V = TypeVar("V")


def layer_rows(shape: BlockShape, tensors: Sequence[Tensor]) -> list[dict[str, Tensor]]:
    """Returns the `named_rows` of each coupling."""
    return _by_layer(shape, _each(named_rows, shape, tensors))


def layer_weights(
    shape: BlockShape, tensors: Sequence[Tensor], product_dtype: torch.dtype
) -> list[Views]:
    """Returns the weights of each coupling."""
    own = [tensor.detach().to(product_dtype) for tensor in tensors]
    return _by_layer(shape, _each(weight_views, shape, own))


def layer_transposes(
    shape: BlockShape, tensors: Sequence[Tensor], product_dtype: torch.dtype
) -> list[Transposes]:
    """Returns the transposed weights of each coupling, for the backward pass."""
    own = [tensor.detach().to(product_dtype) for tensor in tensors]
    return _by_layer(shape, _each(transposes, shape, own))


class GradientSet:
    """Gradients of the weights, accumulated by one thread.

    Attributes:
        tensors: As the weights are stacked.
        layers: The same, by layer.
    """

    def __init__(self, shape: BlockShape, tensors: Sequence[Tensor]) -> None:
        # Zeros, because some weights of a `PairedMLP` are never written.
        self.tensors = [torch.zeros_like(t) for t in tensors]
        self.layers = _by_layer(shape, _each(gradient_views, shape, self.tensors))


def storage_key(tensors: Sequence[Tensor]) -> Hashable:
    """Returns the addresses and strides of tensors, which change when other memory is used."""
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
