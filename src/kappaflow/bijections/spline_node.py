"""The derivative of splines by their points and by their numbers, written by hand.

The definition is `splined`; `SplineNode` is the same as one autograd node. It keeps what is
changed and the answer of the network, and its backward pass computes the rest again.
"""

from typing import Any

import torch
from torch import Tensor

from kappaflow.autograd.trace import gradients
from kappaflow.bijections.scaled import bounded_slope
from kappaflow.bijections.spline import Pieces, SplineShape, splined
from kappaflow.bijections.traced import CouplingTrace
from kappaflow.partition import AnyPartition


def pulled_back(
    pieces: Pieces, cotangent: Tensor, log_slope_cotangent: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Returns the cotangents of x and of raw, from those of y and of the log-slopes.

    Args:
        pieces: At x.
        cotangent: Of y, shaped as x.
        log_slope_cotangent: In a shape that broadcasts with x; None for zero.
    """
    p, inside = pieces, pieces.inside
    by_y = torch.where(inside, cotangent, 0)
    u, v, uv, s, d0, d1 = p.u, p.v, p.uv, p.s, p.d0, p.d1
    inverse = 1 / p.sum
    by_eta = by_y * p.height * inverse.square()  # of eta = n / sum, but for that square
    by_u = by_eta * s * p.q
    by_s = by_eta * uv * (d1 * u.square() - d0 * v.square())
    by_d0, by_d1 = by_eta * uv * p.m, -by_eta * uv * p.n
    if log_slope_cotangent is not None:  # of 2 log s + log q - 2 log sum
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
    """Returns the cotangents (B, 2 K, C, ...) of what a softmax makes widths and heights of.

    Args:
        pieces: Where the points lie.
        before: Cotangents of where the bins begin, (B, 2, C, ...): of all widths before them.
        own: Cotangents of their own width and height.
    """
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
    """Returns the cotangents (B, K - 1, C, ...) of the raw slopes, from those at both ends."""
    by_ends = by_ends * pieces.d * bounded_slope(pieces.raw_ends, pieces.shape.slope_bound)
    knots = by_ends.new_zeros(len(by_ends), pieces.shape.bins + 1, *by_ends.shape[2:])
    return knots.scatter(1, pieces.ends, by_ends)[:, 1:-1]


def summed(log_slope: Tensor) -> Tensor:
    """Returns the log_det (B,) of log-slopes (B, C, ...)."""
    return log_slope.flatten(1).sum(1)


def for_all(rows: Tensor, like: Tensor) -> Tensor:
    """Returns numbers (B,) in a shape that broadcasts with (B, C, ...)."""
    return rows.view(-1, *(1,) * (like.dim() - 1))


class SplineNode(torch.autograd.Function):
    """`splined` as one node, its log-slopes added up to a log_det."""

    @staticmethod
    def forward(  # noqa: D102
        ctx: Any,  # noqa: ANN401
        x: Tensor,
        raw: Tensor,
        shape: SplineShape,
    ) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(x, raw)
        ctx.shape = shape
        pieces = Pieces(x, raw, shape)
        return pieces.y, summed(pieces.log_slope)

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401, D102
        x, raw = ctx.saved_tensors
        if torch.is_grad_enabled():
            inputs = x.view_as(x), raw.view_as(raw)
            y, log_slope = splined(*inputs, ctx.shape)
            outputs = y, summed(log_slope)
            return *gradients(outputs, inputs, cotangents, differentiable=True), None
        pieces = Pieces(x, raw, ctx.shape)
        return *pulled_back(pieces, cotangents[0], for_all(cotangents[1], x)), None


class SplineTrace(CouplingTrace):
    """Of a coupling by splines: autograd sees the conditioner alone.

    Args:
        partition: What is kept and changed.
        kept: The kept features, a leaf.
        changed: The others, before the change or after it.
        answer: Of the conditioner, with its graph from `kept`.
        is_output: Whether they are after it.
        shape: Of the splines.
    """

    def __init__(
        self,
        partition: AnyPartition,
        kept: Tensor,
        changed: Tensor,
        answer: Tensor,
        *,
        is_output: bool,
        shape: SplineShape,
    ) -> None:
        raw = numbers(answer.detach(), changed, shape)
        self._pieces = Pieces(changed, raw, shape, is_output=is_output)
        super().__init__(partition, kept, answer, self._pieces.x)

    def answer(self) -> tuple[Tensor, Tensor]:
        value = self._partition.merge(self.leaf.detach(), self._pieces.y)
        return value, summed(self._pieces.log_slope)

    def seeds(self, cotangent: Tensor, log_det_cotangent: Tensor) -> tuple[Tensor]:
        kept, changed = self._partition.split(cotangent)
        rows = for_all(log_det_cotangent, changed)
        changed, seed = pulled_back(self._pieces, changed, rows)
        self._cotangents = (kept, changed)
        return (seed.flatten(1, 2),)


def numbers(answer: Tensor, changed: Tensor, shape: SplineShape) -> Tensor:
    """Returns an answer (B, (3 K - 1) C, ...) as the numbers of each entry."""
    return answer.unflatten(1, (shape.parameters, changed.shape[1]))
