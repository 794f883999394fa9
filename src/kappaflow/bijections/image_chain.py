"""Chains of images, whose steps run as one autograd node each."""

from collections.abc import Iterator

import torch
from torch import Tensor

from kappaflow._checks import feature_batch
from kappaflow.bijection import Bijection, Chain, log_det_dtype, zero_log_det
from kappaflow.bijections.actnorm import ActNorm
from kappaflow.bijections.conv1x1 import InvertibleConv1x1
from kappaflow.bijections.coupling import AffineCoupling
from kappaflow.bijections.linear import LinearMap
from kappaflow.bijections.multiplied_out import LinearParts, Parts, linear_maps, triangles_of
from kappaflow.bijections.step_node import StepNode
from kappaflow.nets import ConvNet
from kappaflow.nets.as_made import has_hooks, is_as_made
from kappaflow.partition import Partition
from kappaflow.registry import register


@register("ImageChain")
class ImageChain(Chain):
    """A `Chain` that runs a mixing of the channels and the coupling behind it as one.

    The same function up to rounding, forward in one autograd node a step: an `InvertibleConv1x1`
    or another learned linear layer, multiplied with an `ActNorm` in front of it if there is one,
    and an `AffineCoupling` that changes the second half of the channels by a `ConvNet`. All else
    runs layer by layer: other layers, those with a hook, a chain with a memory mode, and whatever
    is under autocast or in a transform of `torch.func`. On the way back, without gradients, a
    step solves with the triangles of form "lu", the scale in front included.

    Example:
        >>> import torch, kappaflow as kf
        >>> coupling = AffineCoupling(kf.Partition.half(4), ConvNet(2, 4, 8), memory="store")
        >>> chain = ImageChain([ActNorm(4), InvertibleConv1x1(4), coupling])
        >>> chain(torch.ones(2, 4, 8, 8))[0].shape
        torch.Size([2, 4, 8, 8])
    """

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        if self.memory is not None:
            return super().forward(x, context)
        if self._waits():
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

    def _waits(self) -> bool:
        """Returns whether an `ActNorm` is to be started from what reaches it."""
        return self.training and not all(p.initialized for p in self if isinstance(p, ActNorm))

    def _together(self, x: Tensor) -> Iterator[Parts]:
        """Yields the layers, those of a step together."""
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
    """Returns value and log_det of a step whose linear layers are multiplied out."""
    coupling = parts[-1]
    feature_batch("x", x, coupling.partition.features)
    net = coupling.conditioner
    by_context = net.first.shift(x[:, : net.inputs], coupling.own_context(context))
    again, bound = net.memory == "recompute", coupling.scale_bound
    return StepNode.apply(again, bound, x, *linear, by_context, *net.weights())


def _is_norm(part: Bijection, x: Tensor) -> bool:
    return is_as_made(part, ActNorm) and part.shift.dtype == x.dtype


def _is_mixing(part: Bijection, x: Tensor) -> bool:
    own = type(part).forward in (InvertibleConv1x1.forward, LinearMap.forward)
    linear = part.linear if isinstance(part, InvertibleConv1x1) else part
    own = own and type(linear).forward is LinearMap.forward and linear.shift.dtype == x.dtype
    return own and not any(map(has_hooks, part.modules()))


def _is_coupling(part: Bijection, x: Tensor) -> bool:
    """Returns whether a layer is a coupling that `StepNode` knows, for points like x."""
    return (
        is_as_made(part, AffineCoupling)
        and part.scale == "tanh"
        and part.memory == "store"
        and x.dim() == 4
        and x.dtype == log_det_dtype(x.dtype)
        and isinstance(part.partition, Partition)
        and part.partition.keeps_first
        and is_as_made(part.conditioner, ConvNet)
        and part.conditioner.outputs == 2 * len(part.partition.changed)
        and part.conditioner.is_plain(x)
        and part.conditioner.middle.weight.dtype == x.dtype
    )
