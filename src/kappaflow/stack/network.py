"""A fully connected conditioner on columns: its products, and their gradients.

A column is a row of the batch: a linear layer is (outputs, inputs) @ (inputs, columns). Everything
is written into buffers that exist already. Products may be of a narrower type than what goes in
and comes out (bfloat16, for training); sums over columns never are.
"""

import torch
from torch import Tensor

from kappaflow.nets.dropout import LEVELS, levels_of
from kappaflow.nets.twin_mlp import halves
from kappaflow.stack.operations import Operations
from kappaflow.stack.shape import NetworkShape
from kappaflow.stack.weights import Transposes, Views


class Activations:
    """What a conditioner computes on its way, and its gradients need again.

    Attributes:
        active: The hidden layers after ReLU and dropout, (width, columns) each; in a conditioner
            of residual blocks every second one is what has been added up, before ReLU.
        read: What the linear layers behind the first one read: `active`, or in a residual
            conditioner its sum with the layer before.
        answer: (outputs, columns).
        narrow_kept: What the first layer reads, in the type of the products.
        narrow_answer: The answer as the last product gives it; `answer` itself if of its type.
    """

    def __init__(self, shape: NetworkShape, columns: int, like: Tensor, kind: torch.dtype) -> None:
        self.active = [like.new_empty(n, columns, dtype=kind) for n in shape.outputs[:-1]]
        self.read = [
            torch.empty_like(h) if shape.adds(layer) or _opens(shape, layer) else h
            for layer, h in enumerate(self.active)
        ]
        self.answer = like.new_empty(shape.outputs[-1], columns)
        self.narrow_kept = like.new_empty(shape.widths[0], columns, dtype=kind)
        self.narrow_answer = self.answer.to(kind)


class Slopes:
    """Gradients with respect to what a conditioner computes, in the rows of one buffer.

    Attributes:
        hidden: Of the hidden layers before ReLU, (width, columns) each.
        answer: Of the answer, (outputs, columns).
        everything: Both, (sum of outputs, columns), in the order of the biases.
    """

    def __init__(self, shape: NetworkShape, buffer: Tensor) -> None:
        self.everything = buffer[len(buffer) - sum(shape.outputs) :]
        *self.hidden, self.answer = self.everything.split(shape.outputs)


class Draws:
    """Which hidden units are left out: drawn from a seed, and again wherever they are needed."""

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

    def start(self, do: Operations, seed: int) -> None:
        """Begins the draws of one conditioner."""
        do.seed(self._generator, seed)

    def drop(self, do: Operations, layer: int, h: Tensor) -> None:
        """Sets some units to zero and scales the others up to keep the mean."""
        words, levels, dropped = self._layers[layer]
        do.drop(self._generator, words, levels, self._left_out, self.scale, dropped, h)


def evaluate(
    do: Operations,
    shape: NetworkShape,
    views: Views,
    kept: Tensor,
    context: Tensor,
    found: Activations,
    draws: Draws | None,
) -> None:
    """Writes into `found` what a conditioner makes of kept (inputs, columns) and a context.

    Args:
        do: Executes, or records.
        shape: Of the conditioner.
        views: Its weights.
        kept: What it reads, (inputs, columns).
        context: What it reads beside it, (context, columns), in the type of the products.
        found: Takes the answer, and all that leads to it.
        draws: Which hidden units are left out; None for none.
    """
    h = kept
    if kept.dtype != context.dtype:
        do.copy(kept, found.narrow_kept)
        h = found.narrow_kept
    beside = (views.context_weight, context) if shape.context_features else (None, None)
    for layer, active in enumerate(found.active):
        sums = shape.has_blocks and layer % 2 == 0
        _linear(do, shape, views, layer, h, beside, not sums, active)
        if sums:
            if layer:
                do.add(found.active[layer - 2], active)
            if found.read[layer] is not active:
                do.relu(active, found.read[layer])
            h, beside = found.read[layer], (None, None)
            continue
        if draws is not None:
            draws.drop(do, layer, active)
        read = found.read[layer]
        if read is not active:
            do.residual(h, beside[1], active, read)
        h, beside = read, (None, None)
    _linear(do, shape, views, len(found.active), h, beside, False, found.narrow_answer)
    if found.narrow_answer is not found.answer:
        do.copy(found.narrow_answer, found.answer)


def _linear(
    do: Operations,
    shape: NetworkShape,
    views: Views,
    layer: int,
    h: Tensor,
    beside: tuple[Tensor | None, Tensor | None],
    active: bool,
    target: Tensor,
) -> None:
    """Writes a linear layer: of twins, behind the first layer, each half of it by itself."""
    weight, bias = views.weights[layer], views.biases[layer]
    if layer == 0:
        do.linear(bias, weight, h, *beside, active, target)
        return
    for r, c in _blocks(shape, weight):
        do.linear(bias[r], weight[r, c], h[c], *beside, active, target[r])


def _blocks(shape: NetworkShape, weight: Tensor) -> tuple[tuple[slice, slice], ...]:
    """Returns rows and columns of the blocks of a weight that count: all of it, but of twins."""
    return halves(weight) if shape.has_twins else ((slice(None), slice(None)),)


class Pull:
    """The way back through conditioners of one shape, with its buffers."""

    def __init__(self, shape: NetworkShape, columns: int, like: Tensor, kind: torch.dtype) -> None:
        self.shape, self.wide = shape, like.dtype == kind
        rows = 0 if self.wide else sum(shape.outputs)
        self.narrow = None
        if not self.wide:
            self.narrow = Slopes(shape, like.new_empty(rows, columns, dtype=kind))
        # What passes a hidden layer by: one buffer will do, since only equal widths are added.
        adding = [n if shape.adds(layer) else 0 for layer, n in enumerate(shape.outputs[:-1])]
        carried = like.new_empty(max(adding, default=0), columns, dtype=kind)
        self.carried = [carried[:n] if n else None for n in adding]
        self.ones = like.new_ones(columns)

    def __call__(
        self,
        do: Operations,
        transposes: Transposes,
        kept: Tensor,
        context: Tensor,
        found: Activations,
        slopes: Slopes,
        gradients: Views,
        kept_gradient: Tensor,
        context_gradient: Tensor,
        beta: int,
        scale: float,
    ) -> None:
        """Takes the gradient of the answer back to weights, kept half and context.

        Args:
            do: Executes, or records.
            transposes: The weights.
            kept: What the conditioner has read, (inputs, columns).
            context: (context, columns), in the type of the products.
            found: What it made of it.
            slopes: The gradient of the answer; those of the hidden layers are written here.
            gradients: Those of the weights, which are added to with `beta` 1, overwritten with 0.
            kept_gradient: (inputs, columns), added to.
            context_gradient: (context, columns), added to.
            beta: 0 or 1.
            scale: By how much dropout has scaled up what it left, 1 without it.
        """
        if self.narrow is not None:
            do.copy(slopes.answer, self.narrow.answer)
            slopes, kept = self.narrow, found.narrow_kept
        slope, carried = slopes.answer, None
        if self.shape.has_blocks:
            slope = self._through_blocks(do, transposes, found, slopes, gradients, beta)
        for layer in range(0 if self.shape.has_blocks else len(found.active), 0, -1):
            carried_on, back = self.carried[layer - 1], slopes.hidden[layer - 1]
            turned, active = transposes.weights[layer], found.active[layer - 1]
            read, gradient = found.read[layer - 1], gradients.weights[layer]
            for r, c in _blocks(self.shape, gradient):
                do.add_outer(slope[r], read[c], beta, gradient[r, c])
                do.layer_pull(
                    turned[c, r], slope[r], active[c], scale, carried, carried_on, back[c]
                )
            slope, carried = back, carried_on
        do.add_outer(slope, kept, beta, gradients.weights[0])
        do.add_product(transposes.weights[0], slope, 1, kept_gradient)
        if self.shape.context_features:
            do.add_outer(slope, context, beta, gradients.context_weight)
            do.add_product(transposes.context_weight, slope, 1, context_gradient)
        if carried is not None:
            do.add(carried[: len(kept)], kept_gradient)
            do.add(carried[len(kept) :], context_gradient)
        do.add_columns(slopes.everything, self.ones, beta, gradients.biases[0])

    def _through_blocks(
        self,
        do: Operations,
        transposes: Transposes,
        found: Activations,
        slopes: Slopes,
        gradients: Views,
        beta: int,
    ) -> Tensor:
        """Returns the gradient of the first hidden layer; residual blocks are passed on the way.

        The gradient of a sum is that of each of its parts: it is the slope of the second layer of
        the block in front of it, and added to what comes back through that block.
        """
        hidden, weights = slopes.hidden, transposes.weights
        last = len(found.active)
        do.add_outer(slopes.answer, found.read[-1], beta, gradients.weights[last])
        do.add_product(weights[last], slopes.answer, 0, hidden[-1])
        for layer in range(last - 1, 0, -1):
            do.add_outer(hidden[layer], found.read[layer - 1], beta, gradients.weights[layer])
            turned, active, back = weights[layer], found.read[layer - 1], hidden[layer - 1]
            do.layer_pull(turned, hidden[layer], active, 1.0, None, None, back)
            if layer % 2:
                do.add(hidden[layer + 1], back)
        return hidden[0]


def _opens(shape: NetworkShape, layer: int) -> bool:
    """Returns whether a sum goes through ReLU into a residual block, and is needed itself too."""
    return shape.has_blocks and layer % 2 == 0 and layer < len(shape.outputs) - 2
