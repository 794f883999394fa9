"""A fully connected conditioner on columns: its products and their gradients.

A column is a row of the batch, so a linear layer is (outputs, inputs) @ (inputs, columns). All
results are written to preallocated buffers. In training, products may have a narrower dtype
(bfloat16) than inputs and outputs; sums over columns never do.
"""

import torch
from torch import Tensor

from kappaflow.nets.mlp import LEVELS, halves, levels_of
from kappaflow.stack.operations import Operations
from kappaflow.stack.shape import NetworkShape
from kappaflow.stack.weights import Views


class Activations:
    """Intermediate results of a conditioner that its gradients need.

    `active` are the hidden layers after ReLU and dropout; with residual blocks, every second one
    is the sum before ReLU. `read` are the inputs of the next layers: the same, or sums with the
    layer before. The narrow ones have the dtype of the products.
    """

    def __init__(
        self, shape: NetworkShape, columns: int, like: Tensor, product_dtype: torch.dtype
    ) -> None:
        self.active = [like.new_empty(n, columns, dtype=product_dtype) for n in shape.outputs[:-1]]
        self.read = [
            torch.empty_like(h) if shape.adds(layer) or _opens(shape, layer) else h
            for layer, h in enumerate(self.active)
        ]
        self.answer = like.new_empty(shape.outputs[-1], columns)
        self.narrow_kept = like.new_empty(shape.widths[0], columns, dtype=product_dtype)
        self.narrow_answer = self.answer.to(product_dtype)


class Slopes:
    """Gradients of the layers of a conditioner before ReLU, in the rows of one buffer."""

    def __init__(self, shape: NetworkShape, buffer: Tensor) -> None:
        self.everything = buffer[len(buffer) - sum(shape.outputs) :]
        *self.hidden, self.answer = self.everything.split(shape.outputs)


class DropoutMasks:
    """Dropout masks that are drawn from a seed, and drawn again in the backward pass."""

    def __init__(self, shape: NetworkShape, columns: int, device: torch.device) -> None:
        self._left_out = levels_of(shape.dropout)
        self.scale = LEVELS / (LEVELS - self._left_out)
        units = columns * max(shape.outputs[:-1], default=0)
        words = torch.empty((units + 7) // 8, dtype=torch.int64, device=device)
        levels, dropped = words.view(torch.uint8), torch.empty_like(words).view(torch.bool)
        self._layers = [
            (
                words[: (width * columns + 7) // 8],
                *(flat[: width * columns].view(width, columns) for flat in (levels, dropped)),
            )
            for width in shape.outputs[:-1]
        ]
        self._generator = torch.Generator(device)

    def start(self, ops: Operations, seed: Tensor) -> None:
        """Seeds the masks of one conditioner."""
        ops.seed(self._generator, seed)

    def drop(self, ops: Operations, layer: int, h: Tensor) -> None:
        """Sets some units to zero and scales the others to keep the mean."""
        words, levels, dropped = self._layers[layer]
        ops.drop(self._generator, words, levels, self._left_out, self.scale, dropped, h)


def evaluate(
    ops: Operations,
    shape: NetworkShape,
    views: Views,
    kept: Tensor,
    context: Tensor,
    activations: Activations,
    masks: DropoutMasks | None,
) -> None:
    """Evaluates a conditioner at `kept` and a context, and writes into `activations`."""
    h = kept
    if kept.dtype != context.dtype:
        ops.copy(kept, activations.narrow_kept)
        h = activations.narrow_kept
    extra = (views.context_weight, context) if shape.context_features else (None, None)
    for layer, active in enumerate(activations.active):
        sums = shape.has_blocks and layer % 2 == 0
        _linear(ops, shape, views, layer, h, extra, not sums, active)
        if sums:
            if layer:
                ops.add(activations.active[layer - 2], active)
            if activations.read[layer] is not active:
                ops.relu(active, activations.read[layer])
            h, extra = activations.read[layer], (None, None)
            continue
        if masks is not None:
            masks.drop(ops, layer, active)
        read = activations.read[layer]
        if read is not active:
            ops.residual(h, extra[1], active, read)
        h, extra = read, (None, None)
    _linear(ops, shape, views, len(activations.active), h, extra, False, activations.narrow_answer)
    if activations.narrow_answer is not activations.answer:
        ops.copy(activations.narrow_answer, activations.answer)


def _linear(
    ops: Operations,
    shape: NetworkShape,
    views: Views,
    layer: int,
    h: Tensor,
    extra: tuple[Tensor | None, Tensor | None],
    active: bool,
    target: Tensor,
) -> None:
    """Writes a linear layer; in a `PairedMLP`, after the first layer, each half separately."""
    weight, bias = views.weights[layer], views.biases[layer]
    if layer == 0:
        ops.linear(bias, weight, h, *extra, active, target)
        return
    for r, c in _blocks(shape, weight):
        ops.linear(bias[r], weight[r, c], h[c], *extra, active, target[r])


def _blocks(shape: NetworkShape, weight: Tensor) -> tuple[tuple[slice, slice], ...]:
    """Returns rows and columns of the used blocks of a weight: two in a `PairedMLP`."""
    return halves(weight) if shape.is_paired else ((slice(None), slice(None)),)


class NetworkBackward:
    """The backward pass of conditioners of one shape, with its buffers."""

    def __init__(
        self, shape: NetworkShape, columns: int, like: Tensor, product_dtype: torch.dtype
    ) -> None:
        self.shape = shape
        self.narrow = None
        if like.dtype != product_dtype:
            buffer = like.new_empty(sum(shape.outputs), columns, dtype=product_dtype)
            self.narrow = Slopes(shape, buffer)
        # Gradients that skip a layer: one buffer is enough, since only equal widths are added.
        adding = [n if shape.adds(layer) else 0 for layer, n in enumerate(shape.outputs[:-1])]
        carried = like.new_empty(max(adding, default=0), columns, dtype=product_dtype)
        self.carried = [carried[:n] if n else None for n in adding]
        self.ones = like.new_ones(columns)

    def __call__(
        self,
        ops: Operations,
        views: Views,
        kept: Tensor,
        context: Tensor,
        activations: Activations,
        slopes: Slopes,
        gradients: Views,
        kept_gradient: Tensor,
        context_gradient: Tensor,
        beta: int,
        scale: float,
    ) -> None:
        """Computes the gradients of weights, kept half and context from that of the output."""
        if self.narrow is not None:
            ops.copy(slopes.answer, self.narrow.answer)
            slopes, kept = self.narrow, activations.narrow_kept
        slope, carried = slopes.answer, None
        if self.shape.has_blocks:
            slope = self._through_blocks(ops, views, activations, slopes, gradients, beta)
        for layer in range(0 if self.shape.has_blocks else len(activations.active), 0, -1):
            carried_next, back = self.carried[layer - 1], slopes.hidden[layer - 1]
            turned, active = views.weights[layer].T, activations.active[layer - 1]
            read, gradient = activations.read[layer - 1], gradients.weights[layer]
            for r, c in _blocks(self.shape, gradient):
                ops.add_outer(slope[r], read[c], beta, gradient[r, c])
                ops.layer_pull(
                    turned[c, r], slope[r], active[c], scale, carried, carried_next, back[c]
                )
            slope, carried = back, carried_next
        ops.add_outer(slope, kept, beta, gradients.weights[0])
        ops.add_product(views.weights[0].T, slope, 1, kept_gradient)
        if self.shape.context_features:
            ops.add_outer(slope, context, beta, gradients.context_weight)
            ops.add_product(views.context_weight.T, slope, 1, context_gradient)
        if carried is not None:
            ops.add(carried[: len(kept)], kept_gradient)
            ops.add(carried[len(kept) :], context_gradient)
        ops.add_columns(slopes.everything, self.ones, beta, gradients.biases[0])

    def _through_blocks(
        self,
        ops: Operations,
        views: Views,
        activations: Activations,
        slopes: Slopes,
        gradients: Views,
        beta: int,
    ) -> Tensor:
        """Returns the gradient of the first hidden layer, through all residual blocks.

        The gradient of a sum is also the gradient of each part. So it is the gradient of the
        second layer of the previous block, and it is added to the gradient of that block's input.
        """
        hidden, weights = slopes.hidden, [weight.T for weight in views.weights]
        last = len(activations.active)
        ops.add_outer(slopes.answer, activations.read[-1], beta, gradients.weights[last])
        ops.add_product(weights[last], slopes.answer, 0, hidden[-1])
        for layer in range(last - 1, 0, -1):
            ops.add_outer(
                hidden[layer], activations.read[layer - 1], beta, gradients.weights[layer]
            )
            turned, active, back = weights[layer], activations.read[layer - 1], hidden[layer - 1]
            ops.layer_pull(turned, hidden[layer], active, 1.0, None, None, back)
            if layer % 2:
                ops.add(hidden[layer + 1], back)
        return hidden[0]


def _opens(shape: NetworkShape, layer: int) -> bool:
    """Returns whether a layer is a sum that a residual block reads after ReLU."""
    return shape.has_blocks and layer % 2 == 0 and layer < len(shape.outputs) - 2
