"""Autoregressive splines: each feature is mapped by what the features before it determine."""

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from kappaflow._checks import batch, natural_int, positive_float
from kappaflow.autograd.replay import has_autocast, without_autocast
from kappaflow.bijection import Bijection, log_det_dtype
from kappaflow.bijections.coupling import checked_context
from kappaflow.bijections.log_scales import bounded, bounded_slope
from kappaflow.bijections.spline import Pieces, pulled_back, spline_values
from kappaflow.bijections.spline_shape import SplineShape
from kappaflow.linearization import Linearization, dense
from kappaflow.nets.linearized import LinearizedMLP, RecordedNetwork, is_plain
from kappaflow.nets.masked import MaskedMLP
from kappaflow.registry import register


@register("AutoregressiveSpline")
class AutoregressiveSpline(Bijection):
    r"""Maps feature i by a shift, a scale and a spline computed from the features before i.

    .. math:: z_i = f\big(e^{s_i} (x_i - t_i); r_i\big), \quad
        (s_i, t_i, r_i) = g_i(x_1, \dots, x_{i - 1}, \text{context}),

    with a masked network g and a rational-quadratic spline f, which is the identity outside
    [-B, B]. A new layer is the identity up to rounding. The Jacobian is lower triangular. The
    inverse finds one feature after another, and computes each unit of the network once.

    Args:
        features: Number D of features. With one, only a context is read.
        hidden: Widths of the hidden layers of the network.
        bins: Number of bins of each spline.
        bound: The bound B of the splines.
        min_bin: Smallest width and height of a bin, as in `SplineCoupling`.
        min_slope: Smallest slope of a spline at a knot, as in `SplineCoupling`.
        scale_bound: Bound on the log-scales :math:`|s_i|`.
        context_features: Width of the context; 0 for none.
        **network: `dropout`, `activation` and other options of `MaskedMLP`.

    Source:
        Papamakarios, Pavlakou, Murray 2017, Masked autoregressive flow for density estimation, for
        shifts and scales; Durkan, Bekasov, Murray, Papamakarios 2019, Neural spline flows, for
        splines. Both in one layer are ours.

    Example:
        >>> layer = AutoregressiveSpline(3, (16,), context_features=2)
        >>> z, log_det = layer(torch.ones(4, 3), torch.ones(4, 2))
        >>> z.shape, log_det.shape
        (torch.Size([4, 3]), torch.Size([4]))
    """

    def __init__(
        self,
        features: int,
        hidden: Sequence[int] = (128, 128),
        *,
        bins: int = 8,
        bound: float = 5.0,
        min_bin: float = 0.1,
        min_slope: float = 0.02,
        scale_bound: float = 4.0,
        context_features: int = 0,
        **network: Any,
    ) -> None:
        super().__init__()
        self.shape = SplineShape(bins, bound, min_bin, min_slope)
        self.scale_bound = positive_float("scale_bound", scale_bound)
        self.context_features = natural_int("context_features", context_features)
        widths = hidden if context_features or features != 1 else ()
        count = 2 + self.shape.parameters
        network["context_features"] = context_features
        self.network = MaskedMLP(features, count, widths, **network)

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        numbers = self.numbers(x, self._context("x", x, context))
        raw_scale, shift, raw = self.split(numbers)
        log_scale = bounded(raw_scale, self.scale_bound)
        z, log_det = spline_values((x - shift) * log_scale.exp(), raw, self.shape)
        return z.to(x.dtype), log_det + log_scale.sum(1)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        context = self._context("z", z, context)
        log_dets: list[Tensor] = []

        def solve(feature: int, numbers: Tensor) -> Tensor:
            raw_scale, shift, raw = self.split(numbers)
            log_scale = bounded(raw_scale, self.scale_bound)
            column = z[:, feature, None].to(raw.dtype)
            scaled, log_det = spline_values(column, raw, self.shape, is_output=True)
            log_dets.append(log_det - log_scale.sum(1))
            return (scaled * (-log_scale).exp() + shift).to(z.dtype)

        with without_autocast(z.device.type):
            x = self.network.in_turn(z, context, solve)
        return x, torch.stack(log_dets).sum(0)

    def linearize(self, x: Tensor, context: Tensor | None = None) -> Linearization:
        return AutoregressiveLinearization(self, x, self._context("x", x, context))

    def numbers(self, x: Tensor, context: Tensor | None) -> Tensor:
        """Returns the output of the network, with autocast only in training steps."""
        if self.training and torch.is_grad_enabled():
            return self.network(x, context)
        with without_autocast(x.device.type):
            return self.network(x, context)

    def split(self, numbers: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Returns log-scales before their bound, shifts, and the parameters of the splines."""
        counts = (1, 1, self.shape.parameters)
        each = numbers.to(log_det_dtype(numbers.dtype)).unflatten(1, (sum(counts), -1))
        raw_scale, shift, raw = each.split(counts, 1)
        return raw_scale.squeeze(1), shift.squeeze(1), raw

    def _context(self, name: str, points: Tensor, context: Tensor | None) -> Tensor | None:
        """Returns the checked context, after checking the points."""
        batch(name, points, (self.network.features,))
        return checked_context(context, self.context_features)

    def extra_repr(self) -> str:
        return f"{self.shape.text}, scale_bound={self.scale_bound:g}"


class AutoregressiveLinearization(Linearization):
    """Linearization with the lower triangular Jacobian J = D + G C, formed only for J^-1.

    D are the slopes of the features, C is the derivative of the network, and G are the derivatives
    of z by its output, (B, numbers, D).
    """

    def __init__(self, layer: AutoregressiveSpline, x: Tensor, context: Tensor | None) -> None:
        if is_plain(layer.network, MaskedMLP) and not has_autocast(x.device.type):
            self._network = LinearizedMLP(layer.network, x, context)
        else:
            self._network = RecordedNetwork(layer.numbers, x, context)
        raw_scale, shift, raw = layer.split(self._network.value)
        log_scale = bounded(raw_scale, layer.scale_bound)
        scaled = (x - shift) * log_scale.exp()
        value, log_det = spline_values(scaled, raw, layer.shape)
        self.value, self.log_det = value.to(x.dtype), log_det + log_scale.sum(1)
        pieces = Pieces(scaled, raw, layer.shape)
        self._slope = pieces.slope * log_scale.exp()
        by_scale = pieces.slope * scaled * bounded_slope(raw_scale, layer.scale_bound)
        by_raw = pulled_back(pieces, torch.ones_like(scaled))[1]
        self._by_numbers = torch.cat((torch.stack((by_scale, -self._slope), 1), by_raw), 1)

    def jv(self, v: Tensor) -> Tensor:
        each = self._network.jv(v).unflatten(-1, self._by_numbers.shape[1:])
        return (v * self._slope + (each * self._by_numbers).sum(-2)).to(v.dtype)

    def vjp(self, u: Tensor) -> Tensor:
        seed = (u.unsqueeze(-2) * self._by_numbers).flatten(-2).to(self._network.value.dtype)
        return (u * self._slope + self._network.vjp(seed)).to(u.dtype)

    def inverse_jv(self, w: Tensor) -> Tensor:
        return _solved(self._jacobian, w, upper=False)

    def inverse_vjp(self, y: Tensor) -> Tensor:
        return _solved(self._jacobian.mT, y, upper=True)

    def matrix(self, x: Tensor) -> Tensor:
        return self._jacobian.detach().double()

    @cached_property
    def _jacobian(self) -> Tensor:
        """J, (B, D, D), with its derivatives where gradients are enabled."""
        if not torch.is_grad_enabled():
            return dense(self.jv, self.value)
        basis = (
            torch.eye(self.value.shape[1]).to(self.value)[:, None].expand(-1, *self.value.shape)
        )
        return self.jv(basis).permute(1, 2, 0).to(self._slope.dtype)


def _solved(matrix: Tensor, vectors: Tensor, *, upper: bool) -> Tensor:
    """Returns the solutions of triangular systems for vectors (B, D) or (K, B, D)."""
    right = vectors.to(matrix.dtype).unsqueeze(-1)
    return torch.linalg.solve_triangular(matrix, right, upper=upper).squeeze(-1).to(vectors.dtype)
