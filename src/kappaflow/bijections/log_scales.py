r"""What an affine coupling does to the changed features, and its derivative, entry by entry.

The definition is `scaled`; `ScaledNode` is the same as one autograd node. It keeps what is changed
and the answer of the network, and its backward pass, written by hand, computes the rest again.
Value and gradients are the same bits.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from kappaflow.autograd.trace import gradients


def bounded(raw: Tensor, bound: float) -> Tensor:
    """Returns bound * tanh(raw / bound) by the sigmoid, which takes a quarter of the time.

    Equal up to an absolute rounding error of about eps * bound, where tanh has a relative one:
    much smaller answers are lost. Both directions and log_det use the same numbers, so that the
    coupling remains the inverse of its inverse.
    """
    return 2 * bound * torch.sigmoid(raw * (2 / bound)) - bound


def bounded_slope(raw: Tensor, bound: float) -> Tensor:
    """Returns the derivative of `bounded` by raw, from 0 to 1; not 1 - tanh^2, which cancels."""
    return 4 * torch.sigmoid(raw * (2 / bound)) * torch.sigmoid(raw * (-2 / bound))


def scaled(changed: Tensor, log_scale: Tensor, shift: Tensor) -> tuple[Tensor, Tensor]:
    """Returns what is changed after it, and the log_det (B,)."""
    return (changed * log_scale.exp() + shift).to(changed.dtype), log_scale.flatten(1).sum(1)


def unscaled(changed: Tensor, log_scale: Tensor, shift: Tensor) -> tuple[Tensor, Tensor]:
    """Returns what is changed before it, and the log_det (B,) of that way."""
    value = ((changed - shift) * (-log_scale).exp()).to(changed.dtype)
    return value, -log_scale.flatten(1).sum(1)


class Scales:
    """The log-scales of an answer (r, t): s = 2 c sigmoid(2 r / c) - c, and what derivatives need.

    Args:
        answer: (B, 2 n, ...), without a graph.
        bound: Bound on the absolute value, c.
    """

    def __init__(self, answer: Tensor, bound: float) -> None:
        raw, self.shift = answer.chunk(2, dim=1)
        self.bound, self.gate = bound, (raw * (2 / bound)).sigmoid_()
        self.log_scale = (2 * bound * self.gate).sub_(bound)
        self.factor = self.log_scale.exp()

    def value(self, changed: Tensor) -> Tensor:
        """Returns the changed features after the change."""
        return (changed * self.factor).add_(self.shift)

    def pulled_back(
        self, changed: Tensor, cotangent: Tensor, log_det_cotangent: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Returns the cotangents of the changed features and of the answer."""
        slope, rows = (cotangent * changed).mul_(self.factor), log_det_cotangent
        slope.add_(rows.view(-1, *(1,) * (slope.dim() - 1))).mul_(2 * self.bound)
        slope = torch.ops.aten.sigmoid_backward.default(slope, self.gate).mul_(2 / self.bound)
        return cotangent * self.factor, torch.cat((slope, cotangent), dim=1)


class ScaledNode(torch.autograd.Function):
    """`scaled` of an answer whose log-scales are `bounded`, as one node."""

    @staticmethod
    def forward(  # noqa: D102
        ctx: Any,  # noqa: ANN401
        changed: Tensor,
        answer: Tensor,
        bound: float,
    ) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(changed, answer)
        ctx.bound = bound
        scales = Scales(answer, bound)
        return scales.value(changed), scales.log_scale.flatten(1).sum(1)

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401, D102
        changed, answer = ctx.saved_tensors
        if torch.is_grad_enabled():
            inputs = changed.view_as(changed), answer.view_as(answer)
            raw, shift = inputs[1].chunk(2, dim=1)
            outputs = scaled(inputs[0], bounded(raw, ctx.bound), shift)
            return *gradients(outputs, inputs, cotangents, differentiable=True), None
        return *Scales(answer, ctx.bound).pulled_back(changed, *cotangents), None


Curve = Callable[[Tensor, float], Tensor]


def log_scale_of(scale: str, raw: Tensor, bound: float) -> Tensor:
    """Returns the log-scales of raw numbers.

    Example:
        >>> log_scale_of("softsign", torch.tensor([-4.0, 0.0, 4.0]), 4.0)
        tensor([-2.,  0.,  2.])
    """
    return _CURVES[scale][0](raw, bound)


def slope_of(scale: str, raw: Tensor, bound: float) -> Tensor:
    """Returns the derivatives of the log-scales by the raw numbers."""
    return _CURVES[scale][1](raw, bound)


def _atan(raw: Tensor, bound: float) -> Tensor:
    steepness = math.pi / (2 * bound)
    return torch.atan(raw * steepness) / steepness


def _sigmoid_slope(raw: Tensor, bound: float) -> Tensor:
    sigmoid = torch.sigmoid(raw)
    return sigmoid * torch.sigmoid(-raw) / (sigmoid + math.exp(-bound))


_CURVES: dict[str, tuple[Curve, Curve]] = {
    "tanh": (bounded, bounded_slope),
    "softsign": (
        lambda raw, bound: raw / (1 + raw.abs() / bound),
        lambda raw, bound: (1 + raw.abs() / bound).square().reciprocal(),
    ),
    "atan": (
        _atan,
        lambda raw, bound: 1 / (1 + (raw * (math.pi / (2 * bound))).square()),
    ),
    "exp": (lambda raw, bound: raw, lambda raw, bound: torch.ones_like(raw)),
    "sigmoid": (
        lambda raw, bound: torch.log(torch.sigmoid(raw) + math.exp(-bound)),
        _sigmoid_slope,
    ),
    "logsigmoid": (lambda raw, bound: logsigmoid(raw), lambda raw, bound: torch.sigmoid(-raw)),
    "softplus": (lambda raw, bound: -logsigmoid(-raw), lambda raw, bound: torch.sigmoid(raw)),
}
SCALES = tuple(_CURVES)
