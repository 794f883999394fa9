"""A linear map of the channels and the affine coupling behind it, as one autograd node.

What the node keeps is its input, the answer of the network and the hidden layers, or not: what is
elementwise, or a product of small matrices, is computed again in a backward pass written by hand.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from kappaflow.autograd.trace import gradients
from kappaflow.bijections.linear import mixed
from kappaflow.bijections.scaled import Scales, bounded, scaled
from kappaflow.nets.conv_node import (
    Weights,
    hidden_layers,
    last_convolution,
    pulled_back,
    three_convolutions,
)
from kappaflow.nets.layers import fast_layout


def step(
    x: Tensor,
    linear: tuple[Tensor, Tensor, Tensor],
    by_context: Tensor | None,
    bound: float,
    weights: Weights,
) -> tuple[Tensor, Tensor]:
    """Returns what the node computes: M r + shift at each place, then the affine coupling.

    Args:
        x: (B, n, H, W).
        linear: M (n, n), the shift (n,), and log|det M|.
        by_context: (B, hidden) or None, for the network.
        bound: On the log-scales.
        weights: Of the network, see `three_convolutions`.

    Returns:
        z, and the log_det (B,).
    """
    matrix, shift, log_det_of_linear = linear
    kept, changed = _parts(mixed(matrix, shift, x), weights)
    answer = three_convolutions(fast_layout(kept), by_context, weights).contiguous()
    raw, by = answer.chunk(2, dim=1)
    value, log_det = scaled(changed, bounded(raw, bound), by)
    return torch.cat((kept, value), 1), log_det + log_det_of_linear * _places(x)


class StepNode(torch.autograd.Function):
    """`step`, keeping the hidden layers or running them again."""

    @staticmethod
    def forward(  # noqa: D102, PLR0913, PLR0917
        ctx: Any,  # noqa: ANN401
        again: bool,
        bound: float,
        x: Tensor,
        matrix: Tensor,
        shift: Tensor,
        log_det: Tensor,
        by_context: Tensor | None,
        *weights: Tensor,
    ) -> tuple[Tensor, Tensor]:
        # A view, as `mixed` answers, is one that no caller could change in place.
        z = torch.empty(x.shape, dtype=x.dtype, device=x.device)
        torch.baddbmm(
            shift[:, None], matrix.expand(len(x), -1, -1), x.flatten(2), out=z.flatten(2)
        )
        kept, changed = _parts(z, weights)
        hidden = hidden_layers(fast_layout(kept), by_context, weights)
        answer = last_convolution(hidden, weights).contiguous()
        scales = Scales(answer, bound)
        changed.mul_(scales.factor).add_(scales.shift)
        ctx.bound = bound
        tensors = (x, matrix, shift, log_det, by_context, answer, *weights)
        ctx.save_for_backward(*tensors, *(() if again else hidden))
        return z, scales.log_scale.flatten(1).sum(1).add_(log_det * _places(x))

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401, D102
        x, matrix, shift, log_det, by_context, answer, *rest = ctx.saved_tensors
        weights, hidden = tuple(rest[:6]), rest[6:]
        if torch.is_grad_enabled():
            inputs = (x, matrix, shift, log_det, by_context, *weights)
            return None, None, *_differentiable(ctx.bound, inputs, cotangents)
        kept, changed = _parts(mixed(matrix, shift, x), weights)
        kept = fast_layout(kept)
        by = torch.empty_like(x)
        by_kept, by_changed = _parts(by, weights)
        z_kept, z_changed = _parts(cotangents[0], weights)
        scales = Scales(answer, ctx.bound)
        found, seed = scales.pulled_back(changed, z_changed, cotangents[1])
        hidden = hidden or hidden_layers(kept, by_context, weights)
        read, by_by_context, *by_weights = pulled_back(seed, kept, by_context, weights, hidden)
        by_kept.copy_(z_kept).add_(read)
        by_changed.copy_(found)
        flat = by.flatten(2)
        by_x = torch.matmul(matrix.mT, flat).view_as(x) if ctx.needs_input_grad[2] else None
        by_matrix, by_shift = torch.bmm(flat, x.flatten(2).mT).sum(0), by.sum((0, 2, 3))
        by_log_det = cotangents[1].sum() * _places(x)
        return None, None, by_x, by_matrix, by_shift, by_log_det, by_by_context, *by_weights


def _places(x: Tensor) -> int:
    return x.shape[2:].numel()


def _parts(x: Tensor, weights: Weights) -> Sequence[Tensor]:
    """Returns views of the channels that the network reads, and of those that are changed."""
    kept = weights[0].shape[1]
    return x.split_with_sizes((kept, x.shape[1] - kept), 1)


def _differentiable(
    bound: float, inputs: tuple[Tensor | None, ...], cotangents: tuple[Tensor, ...]
) -> list[Tensor | None]:
    """Returns gradients that can be differentiated again, by plain autograd."""
    views = [None if tensor is None else tensor.view_as(tensor) for tensor in inputs]
    there = [view for view in views if view is not None]
    x, *linear, by_context = views[:5]
    outputs = step(x, linear, by_context, bound, views[5:])  # pyright: ignore[reportArgumentType]
    found = iter(gradients(outputs, there, cotangents, differentiable=True))
    return [None if view is None else next(found) for view in views]
