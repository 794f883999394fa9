"""Chains of images, in which a linear map of the channels and a coupling run as one node."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from kappaflow._checks import feature_batch
from kappaflow.autograd.trace import differentiable_gradients
from kappaflow.bijection import Bijection, Chain, at_each_place, log_det_dtype, zero_log_det
from kappaflow.bijections.actnorm import ActNorm
from kappaflow.bijections.affine import AffineCoupling
from kappaflow.bijections.conv1x1 import InvertibleConv1x1
from kappaflow.bijections.factored import LULinear, dense_together, triangles_together
from kappaflow.bijections.linear import LinearMap, mixed
from kappaflow.bijections.log_scales import LogScales, bounded, scaled
from kappaflow.nets import ConvNet
from kappaflow.nets.conv import (
    Weights,
    hidden_layers,
    last_convolution,
    pulled_back,
    three_convolutions,
)
from kappaflow.nets.exact_type import has_hooks, is_exact
from kappaflow.nets.layers import fast_layout
from kappaflow.partition import Partition
from kappaflow.registry import register

LinearParts = tuple[Tensor, Tensor, Tensor]  # matrix, shift, log|det|
Parts = tuple[Any, ...]  # a single layer, or (optional ActNorm, linear map, coupling)


@dataclass(frozen=True)
class Triangles:
    """The map z = P L U x + b at each pixel, where U includes the scale of an `ActNorm`.

    z[i] is (L U x + ...)[order[i]]; L has ones on its diagonal; `offset` is U^-1 L^-1 P^T b, (n,).
    """

    order: Tensor
    lower: Tensor
    upper: Tensor
    offset: Tensor
    log_det: Tensor

    def solve(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Returns x, (B, n, *places), and the log_det of the inverse, (B,)."""
        vectors = z.movedim(1, -1)
        rows = vectors.reshape(-1, z.shape[1]).index_select(1, self.order.argsort())
        for triangle, upper in ((self.lower, False), (self.upper, True)):
            rows = torch.linalg.solve_triangular(triangle.mT, rows, upper=not upper, left=False)
        rows -= self.offset
        x = rows.reshape(vectors.shape).movedim(-1, 1)
        return x, at_each_place(-self.log_det, z)


def _layer(mixing: object) -> Any:
    return mixing.linear if isinstance(mixing, InvertibleConv1x1) else mixing


def _linear_map(norms: Sequence[Any], layer: Any, dtype: torch.dtype) -> LinearParts:
    """Returns matrix, shift and log|det| of an optional `ActNorm` followed by a linear map."""
    matrix, shift, log_det = layer.dense(dtype)
    for norm in norms:
        shift = shift + matrix @ norm.shift
        matrix, log_det = matrix * norm.log_scale.exp(), log_det + norm.log_scale.sum()
    return matrix, shift, log_det


def linear_maps(steps: Sequence[Parts], dtype: torch.dtype) -> dict[int, LinearParts]:
    """Returns the matrix, shift and log|det| of each linear step, by its index in `steps`."""
    # Triangular maps of one size after an `ActNorm` are computed together.
    maps_by_step: dict[int, LinearParts] = {}
    stacks = _stacks(steps)
    stacked = {i for indices in stacks for i in indices}
    for i, parts in enumerate(steps):
        if len(parts) > 1 and i not in stacked:
            maps_by_step[i] = _linear_map(parts[:-2], _layer(parts[-2]), dtype)
    for indices in stacks:
        norms, layers = _layers_at(steps, indices)
        matrix, log_det = dense_together(layers, dtype)
        log_scale = torch.stack([norm.log_scale for norm in norms])
        shift = matrix @ torch.stack([norm.shift for norm in norms])[:, :, None]
        matrix, log_det = matrix * log_scale.exp()[:, None], log_det + log_scale.sum(1)
        maps = zip(matrix.unbind(), shift.squeeze(2).unbind(), log_det.unbind(), strict=True)
        maps_by_step |= dict(zip(indices, maps, strict=True))
    return maps_by_step


def triangles_of(steps: Sequence[Parts], dtype: torch.dtype) -> dict[int, Triangles]:
    """Returns the triangles of each step with an `ActNorm` and a triangular map, by its index."""
    triangles: dict[int, Triangles] = {}
    for indices in _stacks(steps):
        norms, layers = _layers_at(steps, indices)
        order, lower, upper, log_det = triangles_together(layers, dtype)
        log_scale = torch.stack([norm.log_scale for norm in norms])
        offset = torch.stack([norm.shift for norm in norms]) * (-log_scale).exp()
        upper, log_det = upper * log_scale.exp()[:, None], log_det + log_scale.sum(1)
        each = zip(order, lower, upper, offset, log_det, strict=True)
        triangles |= {i: Triangles(*parts) for i, parts in zip(indices, each, strict=True)}
    return triangles


def _stacks(steps: Sequence[Parts]) -> list[list[int]]:
    """Returns the indices of steps with an `ActNorm` and a triangular map, a list per size."""
    sizes: dict[int, list[int]] = {}
    for i, parts in enumerate(steps):
        convolution = len(parts) == 3 and isinstance(parts[1], InvertibleConv1x1)
        if convolution and type(parts[1].linear) is LULinear:
            sizes.setdefault(parts[0].features, []).append(i)
    return list(sizes.values())


def _layers_at(steps: Sequence[Parts], indices: Sequence[int]) -> tuple[list[Any], list[Any]]:
    return [steps[i][0] for i in indices], [steps[i][1].linear for i in indices]


def step(
    x: Tensor,
    linear: tuple[Tensor, Tensor, Tensor],
    by_context: Tensor | None,
    bound: float,
    weights: Weights,
) -> tuple[Tensor, Tensor]:
    """Returns images and the log_det, (B,): M r + shift at each pixel, then a coupling."""
    # `by_context`, (B, hidden), shifts the network's first layer; `bound` bounds the log-scales.
    matrix, shift, log_det_of_linear = linear
    kept, changed = _parts(mixed(matrix, shift, x), weights)
    answer = three_convolutions(fast_layout(kept), by_context, weights).contiguous()
    raw, by = answer.chunk(2, dim=1)
    value, log_det = scaled(changed, bounded(raw, bound), by)
    return torch.cat((kept, value), 1), log_det + log_det_of_linear * _places(x)


class StepNode(torch.autograd.Function):
    """`step` as one autograd node, which stores the hidden layers or recomputes them."""

    @staticmethod
    def forward(
        ctx: Any,
        again: bool,
        bound: float,
        x: Tensor,
        matrix: Tensor,
        shift: Tensor,
        log_det: Tensor,
        by_context: Tensor | None,
        *weights: Tensor,
    ) -> tuple[Tensor, Tensor]:
        # Not `mixed`, which returns a view that callers could not change in place.
        z = torch.empty(x.shape, dtype=x.dtype, device=x.device)
        torch.baddbmm(
            shift[:, None], matrix.expand(x.shape[0], -1, -1), x.flatten(2), out=z.flatten(2)
        )
        kept, changed = _parts(z, weights)
        hidden = hidden_layers(fast_layout(kept), by_context, weights)
        answer = last_convolution(hidden, weights).contiguous()
        scales = LogScales(answer, bound)
        changed.mul_(scales.factor).add_(scales.shift)
        ctx.bound = bound
        tensors = (x, matrix, shift, log_det, by_context, answer, *weights)
        ctx.save_for_backward(*tensors, *(() if again else hidden))
        return z, scales.log_scale.flatten(1).sum(1).add_(log_det * _places(x))

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[Tensor | None, ...]:
        x, matrix, shift, log_det, by_context, answer, *rest = ctx.saved_tensors
        weights, hidden = tuple(rest[:6]), rest[6:]
        if torch.is_grad_enabled():

            def function(x: Tensor, *tensors: Any) -> Sequence[Tensor]:
                return step(x, tensors[:3], tensors[3], ctx.bound, tensors[4:])

            inputs = (x, matrix, shift, log_det, by_context, *weights)
            return None, None, *differentiable_gradients(function, inputs, cotangents)
        kept, changed = _parts(mixed(matrix, shift, x), weights)
        kept = fast_layout(kept)
        by = torch.empty_like(x)
        by_kept, by_changed = _parts(by, weights)
        z_kept, z_changed = _parts(cotangents[0], weights)
        scales = LogScales(answer, ctx.bound)
        x_gradient, seed = scales.pulled_back(changed, z_changed, cotangents[1])
        hidden = hidden or hidden_layers(kept, by_context, weights)
        read, by_by_context, *by_weights = pulled_back(seed, kept, by_context, weights, hidden)
        by_kept.copy_(z_kept).add_(read)
        by_changed.copy_(x_gradient)
        flat = by.flatten(2)
        by_x = torch.matmul(matrix.mT, flat).view_as(x) if ctx.needs_input_grad[2] else None
        by_matrix, by_shift = torch.bmm(flat, x.flatten(2).mT).sum(0), by.sum((0, 2, 3))
        by_log_det = cotangents[1].sum() * _places(x)
        return None, None, by_x, by_matrix, by_shift, by_log_det, by_by_context, *by_weights


def _places(x: Tensor) -> int:
    return x.shape[2:].numel()


def _parts(x: Tensor, weights: Weights) -> Sequence[Tensor]:
    """Returns views of the channels that the network reads and of the changed channels."""
    kept = weights[0].shape[1]
    return x.split_with_sizes((kept, x.shape[1] - kept), 1)


@register("ImageChain")
class ImageChain(Chain):
    """A `Chain` that runs a linear map of the channels and the next coupling as one node.

    The function is the same up to rounding. Each step runs forward as one autograd node. A step is
    an `InvertibleConv1x1` or another learned linear layer, merged with the `ActNorm` before it if
    there is one, and an `AffineCoupling` that changes the second half of the channels with a
    `ConvNet`. Everything else runs layer by layer: other layers, layers with hooks, a chain with a
    memory mode, and calls under autocast or in a transform of `torch.func`. Without gradients, the
    inverse of a step of form "lu" solves with its triangles, which include the `ActNorm`.

    Example:
        >>> import torch, kappaflow as kf
        >>> coupling = AffineCoupling(kf.Partition.half(4), ConvNet(2, 4, 8))
        >>> chain = ImageChain([ActNorm(4), InvertibleConv1x1(4), coupling])
        >>> chain(torch.ones(2, 4, 8, 8))[0].shape
        torch.Size([2, 4, 8, 8])
    """

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        if self.memory is not None:
            return super().forward(x, context)
        norms = [part for part in self if isinstance(part, ActNorm)] if self.training else []
        if not all(norm.is_initialized() for norm in norms):  # one is set from its first batch
            with torch.no_grad():
                super().forward(x, context)
        context, log_det = self.embed(context), zero_log_det(x)
        steps = list(self._together(x))
        maps = linear_maps(steps, x.dtype)
        for i, parts in enumerate(steps):
            if len(parts) == 1:
                x, part = parts[0](x, context)
            else:
                x, part = _step(parts, maps[i], x, context)
            log_det = log_det + part
        return x, log_det

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        if self.memory is not None or torch.is_grad_enabled():
            return super().inverse(z, context)
        context, log_det = self.embed(context), zero_log_det(z)
        steps = list(self._together(z))
        known = triangles_of(steps, z.dtype)
        for i, parts in reversed(list(enumerate(steps))):
            z, part = parts[-1].inverse(z, context)
            log_det = log_det + part
            if i in known:
                z, part = known[i].solve(z)
                log_det = log_det + part
                continue
            for each in reversed(parts[:-1]):
                z, part = each.inverse(z, context)
                log_det = log_det + part
        return z, log_det

    def _together(self, x: Tensor) -> Iterator[Parts]:
        """Yields single layers and the groups of layers that form a step."""
        waiting: list[Bijection] = []
        for part in self:
            if waiting and _is_mixing(waiting[-1], x) and _is_coupling(part, x):
                first = 2 if len(waiting) > 1 and _is_norm(waiting[-2], x) else 1
                yield from ((each,) for each in waiting[:-first])
                yield (*waiting[-first:], part)
                waiting = []
            else:
                waiting.append(part)
        yield from ((each,) for each in waiting)


def _step(
    parts: Parts, linear: LinearParts, x: Tensor, context: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Returns value and log_det of a step, given its merged linear map."""
    coupling = parts[-1]
    feature_batch("x", x, coupling.partition.features)
    net = coupling.conditioner
    by_context = net.first.shift(x[:, : net.inputs], coupling.own_context(context))
    again, bound = net.memory == "recompute", coupling.scale_bound
    return StepNode.apply(again, bound, x, *linear, by_context, *net.weights())


def _is_norm(part: Bijection, x: Tensor) -> bool:
    return is_exact(part, ActNorm) and part.shift.dtype == x.dtype


def _is_mixing(part: Bijection, x: Tensor) -> bool:
    own = type(part).forward in (InvertibleConv1x1.forward, LinearMap.forward)
    linear = part.linear if isinstance(part, InvertibleConv1x1) else part
    own = own and type(linear).forward is LinearMap.forward and linear.shift.dtype == x.dtype
    return own and not any(map(has_hooks, part.modules()))


def _is_coupling(part: Bijection, x: Tensor) -> bool:
    """Returns whether a layer is a coupling that `StepNode` supports, for points like x."""
    return (
        is_exact(part, AffineCoupling)
        and part.scale == "tanh"
        and x.dim() == 4
        and x.dtype == log_det_dtype(x.dtype)
        and isinstance(part.partition, Partition)
        and part.partition.keeps_first
        and is_exact(part.conditioner, ConvNet)
        and part.conditioner.outputs == 2 * len(part.partition.changed)
        and part.conditioner.is_plain(x)
        and part.conditioner.middle.weight.dtype == x.dtype
    )
