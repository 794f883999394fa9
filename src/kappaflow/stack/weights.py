"""Stacked weights: the weights of many conditioners of one shape in few tensors."""

from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, nn

from kappaflow.stack.shape import BlockShape, NetworkShape


class StackedNetworks(nn.Module):
    """The weights of `count` fully connected conditioners of one shape.

    Attributes:
        weights: The weights of each linear layer, (count, outputs, inputs).
        biases: The biases of all linear layers, (count, sum of outputs), first layer first.
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
        """Copies the weights of a conditioner to a row of the stack."""
        own = named_rows(self.shape, self.tensors())[row]
        for name, tensor in network.named_parameters():
            own[name].copy_(tensor)


def named_rows(shape: NetworkShape, tensors: Sequence[Tensor]) -> list[dict[str, Tensor]]:
    """Returns the weights of each stacked conditioner, by their names in an `MLP`.

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
        weights: The weights of each linear layer, (outputs, inputs), without context columns.
        context_weight: The context columns of the first layer, (outputs, context).
        biases: The biases of each linear layer, (outputs, 1); for gradients a single tensor,
            (sum of outputs,).
    """

    weights: tuple[Tensor, ...]
    context_weight: Tensor
    biases: tuple[Tensor, ...]


@dataclass(frozen=True)
class Transposes:
    """Transposed weights of one conditioner for the backward pass.

    Attributes:
        weights: The weights of each linear layer, (inputs, outputs), without context rows.
        context_weight: The context rows of the first layer, (context, outputs).
    """

    weights: tuple[Tensor, ...]
    context_weight: Tensor


def weight_views(shape: NetworkShape, tensors: Sequence[Tensor]) -> list[Views]:
    """Returns the views of each stacked conditioner's weights, for products."""
    *weights, biases = tensors
    columns = [part.unsqueeze(2).unbind() for part in biases.split(shape.outputs, dim=1)]
    return _views(shape, weights, zip(*columns, strict=True))


def gradient_views(shape: NetworkShape, tensors: Sequence[Tensor]) -> list[Views]:
    """Returns the views of each stacked conditioner's gradients."""
    *weights, biases = tensors
    return _views(shape, weights, zip(biases.unbind()))


def transposes(shape: NetworkShape, tensors: Sequence[Tensor]) -> list[Transposes]:
    """Returns the transposed weights of each stacked conditioner."""
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
        tensors: The gradients of the stacked weights.
        layers: Views of the same gradients, by layer.
        moved: Pairs of these tensors and others that a native tape writes in their place.
    """

    moved: Sequence[tuple[Tensor, Tensor]] = ()

    def __init__(self, shape: BlockShape, tensors: Sequence[Tensor]) -> None:
        self.tensors = new_gradients(shape, tensors)
        self.layers = _by_layer(shape, _each(gradient_views, shape, self.tensors))


def new_gradients(shape: BlockShape, tensors: Sequence[Tensor]) -> list[Tensor]:
    """Returns tensors for the gradients of the weights, to be overwritten."""
    # Some weights of a `PairedMLP` are never written; memory that nobody writes is not resident.
    is_paired = any(network.is_paired for network in shape.networks)
    return [(torch.zeros_like if is_paired else torch.empty_like)(t) for t in tensors]


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
