"""The elementwise scale and shift of affine couplings, and its derivative."""

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid


def bounded(raw: Tensor, bound: float) -> Tensor:
    """Returns bound * tanh(raw / bound), computed by a sigmoid in a quarter of the time."""
    # The absolute rounding error is about eps * bound, whereas the error of tanh is relative. Both
    # directions and log_det use the same numbers, so the inverse of the coupling stays exact.
    return 2 * bound * torch.sigmoid(raw * (2 / bound)) - bound


def bounded_slope(raw: Tensor, bound: float) -> Tensor:
    """Returns the derivative of `bounded`, from 0 to 1, without the cancellation of 1 - tanh^2."""
    return 4 * torch.sigmoid(raw * (2 / bound)) * torch.sigmoid(raw * (-2 / bound))


def scaled(changed: Tensor, log_scale: Tensor, shift: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the changed features after the coupling and the log_det, (B,)."""
    return (changed * log_scale.exp() + shift).to(changed.dtype), log_scale.flatten(1).sum(1)


def unscaled(changed: Tensor, log_scale: Tensor, shift: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the changed features before the coupling and the log_det of the inverse, (B,)."""
    value = ((changed - shift) * (-log_scale).exp()).to(changed.dtype)
    return value, -log_scale.flatten(1).sum(1)


class LogScales:
    """The log-scales s = 2 c sigmoid(2 r / c) - c of an output (r, t), and their derivatives."""

    def __init__(self, answer: Tensor, bound: float) -> None:
        raw, self.shift = answer.chunk(2, dim=1)
        self.bound, self.gate = bound, (raw * (2 / bound)).sigmoid_()
        self.log_scale = (2 * bound * self.gate).sub_(bound)
        self.factor = self.log_scale.exp()

    def pulled_back(
        self, changed: Tensor, cotangent: Tensor, log_det_cotangent: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Returns the cotangents of the changed features and of the conditioner's output."""
        slope, rows = (cotangent * changed).mul_(self.factor), log_det_cotangent
        slope.add_(rows.view(-1, *(1,) * (slope.dim() - 1))).mul_(2 * self.bound)
        slope = torch.ops.aten.sigmoid_backward.default(slope, self.gate).mul_(2 / self.bound)
        return cotangent * self.factor, torch.cat((slope, cotangent), dim=1)


Curve = Callable[[Tensor, float], Tensor]


def log_scale_of(scale: str, raw: Tensor, bound: float) -> Tensor:
    """Returns the log-scales of raw numbers."""
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
