r"""Elementwise monotone rational-quadratic splines: both directions and their derivatives.

Between two knots :math:`(x_0, y_0)` and :math:`(x_1, y_1)` the curve is a quotient of quadratics
with given slopes :math:`d_0, d_1` at its ends. With :math:`u = (x - x_0) / (x_1 - x_0)`, v = 1 - u
and the mean slope :math:`s = (y_1 - y_0) / (x_1 - x_0)`,

.. math::
    y = y_0 + (y_1 - y_0) \frac{N}{N + M}, \quad N = u (s u + d_0 v), \; M = v (s v + d_1 u), \quad
    \frac{dy}{dx} = s^2 \, \frac{d_1 u^2 + 2 s u v + d_0 v^2}{(N + M)^2}.

Both directions use only sums, products and quotients of positive numbers. Outside the bound the
curve is the identity, which it joins with slope 1.

Source:
    Gregory, Delbourgo 1982; as layers of flows Durkan, Bekasov, Murray, Papamakarios 2019, Neural
    spline flows. The discriminant as a sum of squares, the mirrored root and the bounds on slopes
    are ours.
"""

from functools import partial
from typing import Any

import torch
from torch import Tensor

from kappaflow.autograd.checkpoint import is_transformed
from kappaflow.autograd.trace import differentiable_gradients
from kappaflow.bijections.coupling_derivatives import CouplingTrace
from kappaflow.bijections.log_scales import bounded, bounded_slope
from kappaflow.bijections.native_splines import NativePieces, library_for
from kappaflow.bijections.spline_shape import SplineShape
from kappaflow.partition import AnyPartition


def splined(x: Tensor, raw: Tensor, shape: SplineShape) -> tuple[Tensor, Tensor]:
    """Returns the splines y at x, and the logarithms of the slopes at x, in its shape."""
    # `raw`, (B, K + K + K - 1, C, ...), are widths, heights, and slopes at the inner knots, any
    # finite numbers. Zeros give the identity up to rounding.
    pieces = Pieces(x, raw, shape)
    return pieces.y, pieces.log_slope


def unsplined(y: Tensor, raw: Tensor, shape: SplineShape) -> tuple[Tensor, Tensor]:
    """Returns x for y, and the logarithms of the slopes dx/dy; see `splined` for the arguments."""
    pieces = Pieces(y, raw, shape, is_output=True)
    return pieces.x, -pieces.log_slope


class Pieces:
    """The piece of a spline that each point is on, and its position on the piece.

    `u`, from 0 to 1, is the position on the piece, and `v` is 1 - u without its rounding error.
    `inside` tells whether a point is within the bound; for a point outside, all but `x` is
    computed at 0. `index`, (B, 1, C, ...), is the bin. With `is_output` the points are outputs y.
    """

    def __init__(
        self, points: Tensor, raw: Tensor, shape: SplineShape, *, is_output: bool = False
    ) -> None:
        self.shape, self._points = shape, points
        self.inside = points.abs() < shape.bound
        self.safe = torch.where(self.inside, points, 0)  # gradients of others stay finite
        self.exponentials, self.totals, knots = spline_knots(raw, shape)
        along = knots[:, int(is_output), 1:-1]
        self.index = (self.safe.unsqueeze(1) >= along).sum(1, keepdim=True)
        ends = torch.cat((self.index, self.index + 1), 1)
        positions = ends.unsqueeze(1).expand(-1, 2, *ends.shape[1:])
        (x0, x1), (self.y0, y1) = (axis.unbind(1) for axis in knots.gather(2, positions).unbind(1))
        self.width, self.height = x1 - x0, y1 - self.y0
        self.s = self.height / self.width
        level = torch.zeros_like(raw[:, :1])  # slope 1 at both ends
        slopes = torch.cat((level, raw[:, 2 * shape.bins :], level), 1)
        self.ends, self.raw_ends = ends, slopes.gather(1, ends)
        self.d = bounded(self.raw_ends, shape.slope_bound).exp()
        self.d0, self.d1 = self.d.unbind(1)
        if is_output:
            self.x = torch.where(self.inside, self._solved(x0, x1, y1), points)
        else:
            self.x = points
            self.u, self.v = (self.safe - x0) / self.width, (x1 - self.safe) / self.width
        self.uv = self.u * self.v
        self.n = self.s * self.u.square() + self.d0 * self.uv
        self.m = self.s * self.v.square() + self.d1 * self.uv
        self.sum = self.n + self.m
        self.q = self.d1 * self.u.square() + 2 * self.s * self.uv + self.d0 * self.v.square()

    @property
    def y(self) -> Tensor:
        return torch.where(self.inside, self.y0 + self.height * (self.n / self.sum), self._points)

    @property
    def slope(self) -> Tensor:
        return torch.where(self.inside, self.q * (self.s / self.sum).square(), 1)

    @property
    def log_slope(self) -> Tensor:
        return self.slope.log()

    @property
    def log_det(self) -> Tensor:
        """The log_det of the splines, (B,)."""
        return summed(self.log_slope)

    def pulled_back(self, cotangent: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the cotangents of x and raw, given those of y and of the log_det, (B,)."""
        return pulled_back(self, cotangent, for_all(rows, self._points))

    def _solved(self, x0: Tensor, x1: Tensor, y1: Tensor) -> Tensor:
        r"""Returns x for y, and sets u and v.

        With :math:`\eta = (y - y_0) / (y_1 - y_0)`, :math:`\zeta = 1 - \eta` and
        :math:`p = d_0 \zeta - d_1 \eta`, the position u solves :math:`a u^2 + b u + c = 0`, where
        :math:`c = -s \eta`, :math:`b = p + 2 s \eta` and a = s - b. Both terms of the discriminant
        :math:`b^2 - 4 a c = p^2 + 4 s^2 \eta \zeta` are nonnegative. If p is positive, all terms
        of the root :math:`2 c / (-b - \sqrt{b^2 - 4 a c})` have one sign. If p is negative, this
        holds for the mirrored piece with the root v.
        """
        eta, zeta = (self.safe - self.y0) / self.height, (y1 - self.safe) / self.height
        p = self.d0 * zeta - self.d1 * eta
        mirrored = p < 0
        root = (p.square() + 4 * self.s.square() * eta * zeta).sqrt()
        c = 2 * self.s * torch.where(mirrored, zeta, eta)
        rest = torch.where(mirrored, -p, p) + root
        near, far = c / (c + rest), rest / (c + rest)
        self.u, self.v = torch.where(mirrored, far, near), torch.where(mirrored, near, far)
        return torch.where(mirrored, x1 - self.width * near, x0 + self.width * near)


def pieces_of(
    points: Tensor, raw: Tensor, shape: SplineShape, *, is_output: bool = False
) -> "Pieces | NativePieces":
    """Returns the pieces of splines without a graph, by the native backend where it runs."""
    library = library_for(points, raw, shape)
    if library is None:
        return Pieces(points, raw, shape, is_output=is_output)
    return NativePieces(library, points, raw, shape, is_output=is_output)


def spline_knots(raw: Tensor, shape: SplineShape) -> tuple[Tensor, Tensor, Tensor]:
    """Returns the exponentials of a softmax, their sums, and the knots, (B, 2, K + 1, C, ...)."""
    bins = shape.bins
    shares = raw[:, : 2 * bins].unflatten(1, (2, bins))
    exponentials = (shares - shares.detach().amax(2, keepdim=True)).exp()
    sums = exponentials.cumsum(2)
    totals = sums[:, :, -1:]
    counted = torch.arange(1, bins, dtype=raw.dtype, device=raw.device)
    least = counted * (2 * shape.bound * shape.min_bin / bins) - shape.bound
    least = least.view(-1, *(1,) * (raw.dim() - 2))
    inner = sums[:, :, :-1] * (2 * shape.bound * (1 - shape.min_bin) / totals) + least
    end = torch.full_like(totals, shape.bound)
    return exponentials, totals, torch.cat((-end, inner, end), 2)


def pulled_back(
    pieces: Pieces, cotangent: Tensor, log_slope_cotangent: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Returns the cotangents of x and raw, given the cotangents of y and the log-slopes."""
    p, inside = pieces, pieces.inside
    by_y = torch.where(inside, cotangent, 0)
    u, v, uv, s, d0, d1 = p.u, p.v, p.uv, p.s, p.d0, p.d1
    inverse = 1 / p.sum
    by_eta = by_y * p.height * inverse.square()  # derivative by eta = n / sum, over sum^2
    by_u = by_eta * s * p.q
    by_s = by_eta * uv * (d1 * u.square() - d0 * v.square())
    by_d0, by_d1 = by_eta * uv * p.m, -by_eta * uv * p.n
    if log_slope_cotangent is not None:  # log_slope = 2 log s + log q - 2 log sum
        by_log = torch.where(inside, log_slope_cotangent, 0)
        by_q, by_sum = by_log / p.q, by_log * (-2 * inverse)
        middle, turn = 2 * uv, v - u
        by_u = by_u + 2 * by_q * (d1 * u - d0 * v + s * turn) + by_sum * turn * (d0 + d1 - 2 * s)
        by_s = by_s + 2 * by_log / s + by_q * middle + by_sum * (1 - middle)
        by_d0 = by_d0 + by_q * v.square() + by_sum * uv
        by_d1 = by_d1 + by_q * u.square() + by_sum * uv
    by_x = by_u / p.width
    by_height = by_y * (p.n * inverse) + by_s / p.width
    by_width = -(by_u * u + by_s * s) / p.width
    before, own = torch.stack((-by_x, by_y), 1), torch.stack((by_width, by_height), 1)
    by_ends = torch.stack((by_d0, by_d1), 1)
    by_raw = torch.cat((_by_shares(p, before, own), _by_slopes(p, by_ends)), 1)
    return torch.where(inside, by_x, cotangent), by_raw


def _by_shares(pieces: Pieces, before: Tensor, own: Tensor) -> Tensor:
    """Returns the cotangents of the raw widths and heights, (B, 2 K, C, ...)."""
    # `before`, (B, 2, C, ...), are the cotangents of the starts of the bins, which are also those
    # of all widths and heights before them. `own` are those of the width and height of each bin.
    shape = pieces.shape
    bins = torch.arange(shape.bins, device=before.device).view(-1, *(1,) * (before.dim() - 2))
    index = pieces.index.unsqueeze(1)
    by_size = before.unsqueeze(2) * (bins < index)
    by_size = by_size.scatter(2, index.expand(-1, 2, *index.shape[2:]), own.unsqueeze(2))
    free = 2 * shape.bound * (1 - shape.min_bin)
    weights = pieces.exponentials * (free / pieces.totals)
    weighted = by_size * weights
    mean = weighted.sum(2, keepdim=True) / free
    return (weighted - weights * mean).flatten(1, 2)


def _by_slopes(pieces: Pieces, by_ends: Tensor) -> Tensor:
    """Returns the cotangents of the raw slopes, (B, K - 1, C, ...), given those at both ends."""
    by_ends = by_ends * pieces.d * bounded_slope(pieces.raw_ends, pieces.shape.slope_bound)
    knots = by_ends.new_zeros(len(by_ends), pieces.shape.bins + 1, *by_ends.shape[2:])
    return knots.scatter(1, pieces.ends, by_ends)[:, 1:-1]


def summed(log_slope: Tensor) -> Tensor:
    """Returns the log_det, (B,), of log-slopes, (B, C, ...)."""
    return log_slope.flatten(1).sum(1)


def for_all(rows: Tensor, like: Tensor) -> Tensor:
    """Returns rows, (B,), in a shape that broadcasts with `like`, (B, C, ...)."""
    return rows.view(-1, *(1,) * (like.dim() - 1))


class SplineNode(torch.autograd.Function):
    """`splined` or `unsplined` as one autograd node that returns the value and the log_det."""

    @staticmethod
    def forward(
        ctx: Any, points: Tensor, raw: Tensor, shape: SplineShape, is_output: bool = False
    ) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(points, raw)
        ctx.shape, ctx.is_output = shape, is_output
        pieces = pieces_of(points, raw, shape, is_output=is_output)
        return (pieces.x, -pieces.log_det) if is_output else (pieces.y, pieces.log_det)

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[Tensor | None, ...]:
        points, raw = ctx.saved_tensors
        if torch.is_grad_enabled():
            function = partial(plain_values, shape=ctx.shape, is_output=ctx.is_output)
            return *differentiable_gradients(function, (points, raw), cotangents), None, None
        pieces = pieces_of(points, raw, ctx.shape, is_output=ctx.is_output)
        if ctx.is_output:
            return *_pulled_back_inverse(pieces, *cotangents), None, None
        return *pieces.pulled_back(*cotangents), None, None


def spline_values(
    points: Tensor, raw: Tensor, shape: SplineShape, *, is_output: bool = False
) -> tuple[Tensor, Tensor]:
    """Returns y at x, or x at y, and the log_det, (B,), with their derivatives."""
    if not is_transformed():
        return SplineNode.apply(points, raw, shape, is_output)  # pyright: ignore
    return plain_values(points, raw, shape, is_output=is_output)


def plain_values(
    points: Tensor, raw: Tensor, shape: SplineShape, *, is_output: bool
) -> tuple[Tensor, Tensor]:
    """Returns the same by plain autograd, which has all derivatives."""
    value, log_slope = (unsplined if is_output else splined)(points, raw, shape)
    return value, summed(log_slope)


def _pulled_back_inverse(
    pieces: "Pieces | NativePieces", cotangent: Tensor, rows: Tensor
) -> tuple[Tensor, Tensor]:
    """Returns the cotangents of y and raw, given those of x and of the log_det of the inverse."""
    # With the log-slope L of y = F(x), the log_det is -L, and dx = (dy - dF / draw draw) / F'.
    slope = pieces.pulled_back(torch.ones_like(cotangent), torch.zeros_like(rows))[0]
    by_log_det = pieces.pulled_back(torch.zeros_like(cotangent), -rows)[0]
    by_y = (cotangent + by_log_det) / slope
    return by_y, pieces.pulled_back(-by_y, -rows)[1]


class SplineTrace(CouplingTrace):
    """Trace of a spline coupling, in which only the conditioner has a graph."""

    def __init__(
        self,
        partition: AnyPartition,
        kept: Tensor,
        changed: Tensor,
        answer: Tensor,
        *,
        shape: SplineShape,
    ) -> None:
        raw = numbers(answer.detach(), changed, shape)
        self._pieces = pieces_of(changed, raw, shape, is_output=True)
        super().__init__(partition, kept, answer, self._pieces.x)

    def seeds(self, cotangent: Tensor, log_det_cotangent: Tensor) -> tuple[Tensor]:
        kept, changed = self._partition.split(cotangent)
        changed, seed = self._pieces.pulled_back(changed, log_det_cotangent)
        self._cotangents = (kept, changed)
        return (seed.flatten(1, 2),)


def numbers(answer: Tensor, changed: Tensor, shape: SplineShape) -> Tensor:
    """Returns a conditioner's output, (B, (3 K - 1) C, ...), as (B, 3 K - 1, C, ...)."""
    return answer.unflatten(1, (shape.parameters, changed.shape[1]))
