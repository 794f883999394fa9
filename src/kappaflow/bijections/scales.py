r"""How a coupling makes a log-scale s of a raw number r: a choice of curves, and their slopes.

With c the bound of the coupling:

=============  =======================================  =========================================
name           s                                        where it is from
=============  =======================================  =========================================
"tanh"         :math:`c \tanh(r / c)`                   RealNVP; what couplings have of their own
"softsign"     :math:`r / (1 + |r| / c)`                zuko
"atan"         :math:`2c/\pi\,\arctan(\pi r / (2c))`    FrEIA
"exp"          :math:`r`, no bound                      normflows
"sigmoid"      :math:`\log(\sigma(r) + e^{-c})`         nflows: from about -c to 0
"logsigmoid"   :math:`\log \sigma(r)`, no bound below   normflows
"softplus"     :math:`-\log \sigma(-r)`, no bound above  normflows
=============  =======================================  =========================================
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from kappaflow.bijections.scaled import bounded, bounded_slope

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
