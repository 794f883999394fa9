"""Stacked weights: the parameters of many conditioners of one shape, side by side in memory.

The parameters are those of ordinary networks. A block places them in few memory areas, which it
reads as stacked tensors. Parameters that are elsewhere, as with `torch.func.functional_call` or
`fully_shard`, are copied to stacked tensors in each call.
"""

import functools
import math
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import TypeVar

import torch
from torch import Tensor

from kappaflow.stack.shape import BlockShape, NetworkShape

T = TypeVar("T", bound=Tensor)


@dataclass(frozen=True)
class StackedTensor:
    """The layout of a stacked tensor: one weight, or all biases, of conditioners of one shape."""

    name: str  # in the block
    size: tuple[int, ...]  # (count, outputs, inputs), or (count, sum of outputs)
    leaf: str  # the name of its parameters in their layer, "weight" or "bias"
    parts: tuple[tuple[int, str], ...]  # coupling and linear layer, such as (0, "layers.0")
    sizes: tuple[tuple[int, ...], ...]  # of each parameter

    def split(self, tensor: Tensor) -> list[Tensor]:
        """Returns the part of each parameter, views of a stacked tensor."""
        if tensor.dim() == 3:
            return list(tensor.unbind())
        widths = [width for (width,) in self.sizes[: len(self.parts) // len(tensor)]]
        columns = [column.unbind() for column in tensor.split_with_sizes(widths, dim=1)]
        return [part for row in zip(*columns, strict=True) for part in row]

    def view_of(self, parts: Sequence[Tensor]) -> Tensor | None:
        """Returns the stacked tensor whose memory is that of the parts; None if there is none."""
        first = parts[0].detach()
        start, step, (*offsets, entries) = first.data_ptr(), first.element_size(), self._ends
        if list(map(Tensor.data_ptr, parts)) != [start + step * offset for offset in offsets]:
            return None
        # All of it is one live storage, so that no part can be in another one.
        room = first.untyped_storage().nbytes() // step - first.storage_offset()
        if room < entries or not all(map(Tensor.is_contiguous, parts)):
            return None
        return first.as_strided(self.size, self._strides)

    @functools.cached_property
    def _strides(self) -> tuple[int, ...]:
        return tuple(math.prod(self.size[i + 1 :]) for i in range(len(self.size)))

    @functools.cached_property
    def _ends(self) -> list[int]:
        """The number of entries before each parameter, and of all."""
        return list(accumulate(map(math.prod, self.sizes), initial=0))


@functools.lru_cache(maxsize=1024)
def stacked_tensors(shape: BlockShape) -> tuple[StackedTensor, ...]:
    """Returns the layout of a block: for each network shape its weights, then its biases."""
    tensors = []
    for number, network in enumerate(shape.networks):
        own = [layer for layer, kind in enumerate(shape.network_of) if kind == number]
        sizes = zip(network.outputs, network.inputs, strict=True)
        tensors += [
            StackedTensor(
                f"networks.{number}.weights.{i}",
                (len(own), *size),
                "weight",
                tuple((layer, f"layers.{i}") for layer in own),
                (size,) * len(own),
            )
            for i, size in enumerate(sizes)
        ]
        tensors.append(
            StackedTensor(
                f"networks.{number}.biases",
                (len(own), sum(network.outputs)),
                "bias",
                tuple((k, f"layers.{i}") for k in own for i in range(len(network.outputs))),
                tuple((width,) for width in network.outputs) * len(own),
            )
        )
    return tuple(tensors)


def grouped(shape: BlockShape, parameters: Sequence[T]) -> list[Sequence[T]]:
    """Returns the parameters of each stacked tensor."""
    ends = [0]
    for stacked in stacked_tensors(shape):
        ends.append(ends[-1] + len(stacked.parts))
    return [parameters[a:b] for a, b in zip(ends, ends[1:], strict=False)]


@dataclass(frozen=True)
class Weights:
    """The parameters of a block, and the stacked tensors with the same memory, if there are any.

    The parameters are the stacked tensors themselves if these receive the gradients.
    """

    parameters: Sequence[Tensor]
    stacked: Sequence[Tensor] | None

    @property
    def joined(self) -> bool:
        """Whether the stacked tensors receive the gradients."""
        return self.parameters is self.stacked


def weights_of(shape: BlockShape, parameters: Sequence[Tensor]) -> Weights:
    """Returns the weights of a block."""
    views = []
    for stacked, parts in zip(stacked_tensors(shape), grouped(shape, parameters), strict=True):
        view = stacked.view_of(parts)
        if view is None:
            return Weights(parameters, None)
        views.append(view)
    return Weights(parameters, views)


def separated(shape: BlockShape, tensors: Sequence[Tensor]) -> list[Tensor]:
    """Returns the part of each parameter, views of stacked tensors."""
    pairs = zip(stacked_tensors(shape), tensors, strict=True)
    return [part for stacked, tensor in pairs for part in stacked.split(tensor)]


@dataclass(frozen=True)
class Views:
    """Weights of one conditioner, or their gradients, ready for products with columns."""

    weights: tuple[Tensor, ...]  # (outputs, inputs), without context columns
    context_weight: Tensor  # of the first layer, (outputs, context)
    biases: tuple[Tensor, ...]  # (outputs, 1); for gradients a single tensor, (sum of outputs,)


def weight_views(shape: NetworkShape, tensors: Sequence[Tensor]) -> list[Views]:
    """Returns the views of each stacked conditioner's weights, for products."""
    *weights, biases = tensors
    columns = [part.unsqueeze(2).unbind() for part in biases.split(shape.outputs, dim=1)]
    return _views(shape, weights, zip(*columns, strict=True))


def gradient_views(shape: NetworkShape, tensors: Sequence[Tensor]) -> list[Views]:
    """Returns the views of each stacked conditioner's gradients."""
    *weights, biases = tensors
    return _views(shape, weights, zip(biases.unbind()))


def _views(
    shape: NetworkShape, weights: Sequence[Tensor], biases: Iterable[tuple[Tensor, ...]]
) -> list[Views]:
    kept = weights[0].narrow(2, 0, shape.widths[0])
    context = weights[0].narrow(2, shape.widths[0], shape.context_features)
    rows = zip(*(part.unbind() for part in (kept, *weights[1:])), strict=True)
    return [Views(*row) for row in zip(rows, context.unbind(), biases, strict=True)]


def layer_weights(
    shape: BlockShape, tensors: Sequence[Tensor], product_dtype: torch.dtype
) -> list[Views]:
    """Returns the weights of each coupling."""
    return _by_layer(shape, weight_views, [t.detach().to(product_dtype) for t in tensors])


class GradientSet:
    """Gradients of the weights, accumulated by one thread."""

    moved: Sequence[tuple[Tensor, Tensor]] = ()  # as in `Job`

    def __init__(self, shape: BlockShape, tensors: Sequence[Tensor]) -> None:
        self.tensors = new_gradients(shape, tensors)
        self.layers = _by_layer(shape, gradient_views, self.tensors)


def new_gradients(shape: BlockShape, tensors: Sequence[Tensor]) -> list[Tensor]:
    """Returns tensors for the gradients of the weights, to be overwritten."""
    # Some weights of a `PairedMLP` are never written; memory that nobody writes is not resident.
    is_paired = any(network.is_paired for network in shape.networks)
    return [(torch.zeros_like if is_paired else torch.empty_like)(t) for t in tensors]


def storage_key(tensors: Sequence[Tensor]) -> Hashable:
    """Returns the addresses and strides of tensors, which change when other memory is used."""
    return tuple((t.data_ptr(), t.stride()) for t in tensors)


def _by_layer(
    shape: BlockShape,
    views_of: Callable[[NetworkShape, Sequence[Tensor]], list[Views]],
    tensors: Sequence[Tensor],
) -> list[Views]:
    """Returns the views of each coupling, given the tensors of each network shape in turn."""
    size = len(tensors) // len(shape.networks)
    views = [
        views_of(n, tensors[i * size : i * size + size]) for i, n in enumerate(shape.networks)
    ]
    return [views[number][row] for number, row in zip(shape.network_of, shape.row_of, strict=True)]
