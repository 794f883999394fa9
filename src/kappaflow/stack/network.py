"""A fully connected conditioner on columns: its products, and their gradients.

A column is a row of the batch: a linear layer is (outputs, inputs) @ (inputs, columns). Everything
is written into buffers that exist already. Products may be of a narrower type than what goes in
and comes out (bfloat16, for training); sums over columns never are.
"""

import torch
from torch import Tensor

from kappaflow.nets.dropout import LEVELS, levels_of
from kappaflow.stack.shape import NetworkShape
from kappaflow.stack.weights import Transposes, Views

_relu_backward = torch.ops.aten.threshold_backward.grad_input


class Activations:
    """What a conditioner computes on its way, and its gradients need again.

    Attributes:
        active: The hidden layers after ReLU and dropout, (width, columns) each.
        read: What the linear layers behind the first one read: `active`, or in a residual
            conditioner its sum with the layer before.
        answer: (outputs, columns).
        narrow_kept: What the first layer reads, in the type of the products.
        narrow_answer: The answer as the last product gives it; `answer` itself if of its type.
    """

    def __init__(self, shape: NetworkShape, columns: int, like: Tensor, kind: torch.dtype) -> None:
        self.active = [like.new_empty(n, columns, dtype=kind) for n in shape.outputs[:-1]]
        self.read = [
            torch.empty_like(h) if shape.adds(layer) else h for layer, h in enumerate(self.active)
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
        self._words = torch.empty((units + 7) // 8, dtype=torch.int64, device=device)
        self._bytes = self._words.view(torch.uint8)
        self._dropped = torch.empty(units, dtype=torch.bool, device=device)
        self._generator = torch.Generator(device)

    def start(self, seed: int) -> None:
        """Begins the draws of one conditioner."""
        self._generator.manual_seed(seed)

    def drop(self, h: Tensor) -> None:
        """Sets some units to zero and scales the others up to keep the mean."""
        n = h.numel()
        self._words[: (n + 7) // 8].random_(-(2**63), None, generator=self._generator)
        dropped = torch.lt(self._bytes[:n], self._left_out, out=self._dropped[:n])
        h.mul_(self.scale).masked_fill_(dropped.view(h.shape), 0.0)


def evaluate(
    shape: NetworkShape,
    views: Views,
    kept: Tensor,
    context: Tensor,
    found: Activations,
    draws: Draws | None,
) -> None:
    """Writes into `found` what a conditioner makes of kept (inputs, columns) and a context.

    Args:
        shape: Of the conditioner.
        views: Its weights.
        kept: What it reads, (inputs, columns).
        context: What it reads beside it, (context, columns), in the type of the products.
        found: Takes the answer, and all that leads to it.
        draws: Which hidden units are left out; None for none.
    """
    h = kept if kept.dtype == context.dtype else found.narrow_kept.copy_(kept)
    for layer, active in enumerate(found.active):
        torch.addmm(views.biases[layer], views.weights[layer], h, out=active)
        if not layer and len(context):
            active.addmm_(views.context_weight, context)
        active.relu_()
        if draws is not None:
            draws.drop(active)
        read = found.read[layer]
        if read is not active:
            torch.add(h if layer else torch.cat((h, context)), active, out=read)
        h = read
    torch.addmm(views.biases[-1], views.weights[-1], h, out=found.narrow_answer)
    if not found.active and len(context):
        found.narrow_answer.addmm_(views.context_weight, context)
    if found.narrow_answer is not found.answer:
        found.answer.copy_(found.narrow_answer)


class Pull:
    """The way back through conditioners of one shape, with its buffers."""

    def __init__(self, shape: NetworkShape, columns: int, like: Tensor, kind: torch.dtype) -> None:
        self.shape, self.wide = shape, like.dtype == kind
        rows = 0 if self.wide else sum(shape.outputs)
        self.narrow = like.new_empty(rows, columns, dtype=kind)
        self.ones = like.new_ones(columns)

    def __call__(
        self,
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
        shape = self.shape
        if not self.wide:
            narrow = Slopes(shape, self.narrow)
            narrow.answer.copy_(slopes.answer)
            slopes, kept = narrow, found.narrow_kept
        slope, carried = slopes.answer, None
        for layer in range(len(found.active), 0, -1):
            _add_product(gradients.weights[layer], slope, found.read[layer - 1].T, beta)
            back = torch.mm(transposes.weights[layer], slope, out=slopes.hidden[layer - 1])
            if carried is not None:
                back.add_(carried)
            carried = back.clone() if shape.adds(layer - 1) else None
            slope = _relu_backward(back, found.active[layer - 1], 0, grad_input=back)
            if scale != 1.0:
                slope.mul_(scale)
        _add_product(gradients.weights[0], slope, kept.T, beta)
        _add_product(kept_gradient, transposes.weights[0], slope, 1)
        if len(context):
            _add_product(gradients.context_weight, slope, context.T, beta)
            _add_product(context_gradient, transposes.context_weight, slope, 1)
        if carried is not None:
            kept_gradient.add_(carried[: len(kept)])
            context_gradient.add_(carried[len(kept) :])
        everything = slopes.everything.to(self.ones.dtype)  # sums over columns are never narrow
        gradients.biases[0].addmv_(everything, self.ones, beta=beta)


def _add_product(target: Tensor, a: Tensor, b: Tensor, beta: int) -> None:
    """Adds a @ b to beta times the target, in the type of the target."""
    if a.dtype == target.dtype:
        target.addmm_(a, b, beta=beta)
    elif beta:
        target.add_(a @ b)
    else:
        target.copy_(a @ b)
