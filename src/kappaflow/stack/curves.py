"""Log-scales of raw numbers and their slopes, written into buffers; see `bijections.scales`.

A curve is known by its number, since a recorded operation has numbers and tensors alone.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

BITS = 1 / math.log(2)


def write_curve(
    number: int, raw: Tensor, bound: float, direction: int, slope: Tensor, bits: Tensor
) -> None:
    """Writes d s / d r, and the log-scale in bits times the direction.

    Args:
        number: Of the curve, its place in `CURVES`.
        raw: r, (changed, columns).
        bound: c.
        direction: 1 from data to latent, -1 back.
        slope: Takes d s / d r.
        bits: Takes s.
    """
    _WRITERS[number](raw, bound, direction * BITS, slope, bits)


def _softsign(raw: Tensor, bound: float, unit: float, slope: Tensor, bits: Tensor) -> None:
    torch.abs(raw, out=slope).mul_(1 / bound).add_(1).reciprocal_()
    torch.mul(raw, slope, out=bits).mul_(unit)
    slope.square_()


def _atan(raw: Tensor, bound: float, unit: float, slope: Tensor, bits: Tensor) -> None:
    steepness = math.pi / (2 * bound)
    torch.mul(raw, steepness, out=slope)
    torch.atan(slope, out=bits).mul_(unit / steepness)
    slope.square_().add_(1).reciprocal_()


def _exp(raw: Tensor, bound: float, unit: float, slope: Tensor, bits: Tensor) -> None:  # noqa: ARG001
    torch.mul(raw, unit, out=bits)
    slope.fill_(1)


def _sigmoid(raw: Tensor, bound: float, unit: float, slope: Tensor, bits: Tensor) -> None:
    torch.sigmoid(raw, out=slope)
    torch.add(slope, math.exp(-bound), out=bits)
    torch.addcmul(slope, slope, slope, value=-1, out=slope).div_(bits)
    bits.log_().mul_(unit)


def _logsigmoid(raw: Tensor, bound: float, unit: float, slope: Tensor, bits: Tensor) -> None:
    torch.neg(raw, out=slope)
    _softplus(slope, bound, -unit, slope, bits)


def _softplus(raw: Tensor, bound: float, unit: float, slope: Tensor, bits: Tensor) -> None:  # noqa: ARG001
    torch.logaddexp(raw, raw.new_zeros(()), out=bits).mul_(unit)
    torch.sigmoid(raw, out=slope)


_WRITERS: list[Callable[[Tensor, float, float, Tensor, Tensor], None]] = [
    _softsign,
    _atan,
    _exp,
    _sigmoid,
    _logsigmoid,
    _softplus,
]
CURVES = ("softsign", "atan", "exp", "sigmoid", "logsigmoid", "softplus")
