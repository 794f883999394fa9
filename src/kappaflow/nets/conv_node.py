"""The three convolutions of a `ConvNet` as one autograd node, which may run hidden layers again.

What the node keeps is its input, and the hidden layers or not: they are by far the largest tensors
of a flow of images. The answer is never computed again. Masks of the ReLUs are applied in place.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import conv2d

from kappaflow.autograd.trace import gradients

Weights = Sequence[Tensor]  # weight and bias of each convolution
Hidden = Sequence[Tensor]  # both layers


def three_convolutions(x: Tensor, shift: Tensor | None, weights: Weights) -> Tensor:
    """Returns convolutions 3x3, 1x1, 3x3 with ReLU between them: what the node computes.

    Args:
        x: (B, inputs, H, W).
        shift: (B, hidden), added to the first hidden layer at all places; or None.
        weights: Weight and bias of each convolution.

    Returns:
        (B, outputs, H, W).
    """
    return last_convolution(hidden_layers(x, shift, weights), weights)


def hidden_layers(x: Tensor, shift: Tensor | None, weights: Weights) -> Hidden:
    """Returns both hidden layers of `three_convolutions`."""
    first = conv2d(x, weights[0], weights[1], padding=1)
    # In place, since a convolution's derivatives do not ask for its answer.
    first = torch.relu_(first if shift is None else first + shift[:, :, None, None])
    return first, torch.relu_(conv2d(first, weights[2], weights[3]))


def last_convolution(hidden: Hidden, weights: Weights) -> Tensor:
    """Returns the answer of `three_convolutions` from its hidden layers."""
    return conv2d(hidden[1], weights[4], weights[5], padding=1)


def pulled_back(
    cotangent: Tensor,
    x: Tensor,
    shift: Tensor | None,
    weights: Weights,
    hidden: Hidden,
    *,
    leading: bool = True,
) -> tuple[Tensor, Tensor | None, *tuple[Tensor, ...]]:
    """Returns the cotangents of x (if `leading`), of the shift and of the weights.

    Args:
        cotangent: That of the answer, (B, outputs, H, W).
        x: As for `three_convolutions`; so are shift and weights.
        shift: (B, hidden) or None.
        weights: Weight and bias of each convolution.
        hidden: The hidden layers at x.
        leading: Whether that of x is wanted; it is None otherwise.
    """
    first, second = hidden
    cotangent = cotangent.contiguous(memory_format=torch.channels_last)
    by, *last = _convolution_backward(cotangent, second, weights[4], 1)
    by, *middle = _convolution_backward(_masked(by, second), first, weights[2], 0)
    by = _masked(by, first)
    by_shift = None if shift is None else by.sum((2, 3))
    by, *begin = _convolution_backward(by, x, weights[0], 1, leading=leading)
    return by, by_shift, *begin, *middle, *last


class ThreeConvolutions(torch.autograd.Function):
    """`three_convolutions`, keeping the hidden layers or running them again."""

    @staticmethod
    def forward(  # noqa: D102
        ctx: Any,  # noqa: ANN401
        again: bool,
        x: Tensor,
        shift: Tensor | None,
        *weights: Tensor,
    ) -> Tensor:
        hidden = hidden_layers(x, shift, weights)
        ctx.save_for_backward(x, shift, *weights, *(() if again else hidden))
        return last_convolution(hidden, weights)

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401, D102
        x, shift, *rest = ctx.saved_tensors
        weights, hidden = tuple(rest[:6]), rest[6:]
        if torch.is_grad_enabled():
            return None, *_differentiable(x, shift, weights, cotangents[0])
        hidden = hidden or hidden_layers(x, shift, weights)
        leading = ctx.needs_input_grad[1]
        return None, *pulled_back(cotangents[0], x, shift, weights, hidden, leading=leading)


def _differentiable(
    x: Tensor, shift: Tensor | None, weights: Weights, cotangent: Tensor
) -> list[Tensor | None]:
    """Returns gradients that can be differentiated again, by plain autograd."""
    inputs = [x.view_as(x), None if shift is None else shift.view_as(shift)]
    inputs += [weight.view_as(weight) for weight in weights]
    there = [tensor for tensor in inputs if tensor is not None]
    answer = three_convolutions(inputs[0], inputs[1], tuple(there[-6:]))  # pyright: ignore[reportArgumentType]
    found = iter(gradients([answer], there, [cotangent], differentiable=True))
    return [None if tensor is None else next(found) for tensor in inputs]


def _convolution_backward(
    cotangent: Tensor, x: Tensor, weight: Tensor, padding: int, *, leading: bool = True
) -> tuple[Tensor, Tensor, Tensor]:
    """Returns the cotangents of input (if `leading`), weight and bias of a convolution."""
    return torch.ops.aten.convolution_backward.default(
        cotangent,
        x,
        weight,
        [len(weight)],
        [1, 1],
        [padding, padding],
        [1, 1],
        False,
        [0, 0],
        1,
        [leading, True, True],
    )


def _masked(cotangent: Tensor, activated: Tensor) -> Tensor:
    """Returns the cotangent of what a ReLU took, in the place of that of its answer."""
    backward = torch.ops.aten.threshold_backward.grad_input
    return backward(cotangent, activated, 0, grad_input=cotangent)
