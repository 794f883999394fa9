"""Chains of images, whose steps run as one autograd node each."""

from collections.abc import Iterator
from typing import Any, TypeGuard, TypeVar

from torch import Tensor, nn

from kappaflow._checks import feature_batch
from kappaflow.bijection import Bijection, Chain, at_each_place, log_det_dtype, zero_log_det
from kappaflow.bijections.actnorm import ActNorm
from kappaflow.bijections.conv1x1 import InvertibleConv1x1
from kappaflow.bijections.coupling import AffineCoupling
from kappaflow.bijections.linear import LinearMap
from kappaflow.bijections.step_node import StepNode
from kappaflow.nets import ConvNet
from kappaflow.nets.linearized import has_hooks, is_exactly
from kappaflow.partition import Partition
from kappaflow.registry import register

M = TypeVar("M", bound=nn.Module)
Parts = tuple[Any, ...]  # one layer; or an ActNorm or none, a mixing of channels, a coupling


@register("ImageChain")
class ImageChain(Chain):
    """A `Chain` that runs a mixing of the channels and the coupling behind it as one.

    The same function up to rounding, in one autograd node a step: an `InvertibleConv1x1` or
    another learned linear layer, multiplied with an `ActNorm` in front of it if there is one, and
    an `AffineCoupling` that changes the second half of the channels by a `ConvNet`. All else runs
    layer by layer: other layers, those with a hook, a chain with a memory mode, and whatever is
    under autocast or in a transform of `torch.func`.

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
        context, log_det = self.embed(context), zero_log_det(x)
        for parts in self._together(x):
            x, part = parts[0](x, context) if len(parts) == 1 else _step(parts, x, context)
            log_det = log_det + part
        return x, log_det

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


def _step(parts: Parts, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
    """Returns value and log_det of a step."""
    *norms, mixing, coupling = parts
    feature_batch("x", x, coupling.partition.features)
    linear = mixing.linear if isinstance(mixing, InvertibleConv1x1) else mixing
    matrix, shift, log_det = linear.dense(x.dtype)
    for norm in norms:
        norm.start(x)
        shift = shift + matrix @ norm.shift
        matrix, log_det = matrix * norm.log_scale.exp(), log_det + norm.log_scale.sum()
    net = coupling.conditioner
    by_context = net.first.shift(x[:, : net.inputs], coupling.own_context(context))
    again, bound = net.memory == "recompute", coupling.scale_bound
    z, part = StepNode.apply(again, bound, x, matrix, shift, by_context, *net.weights())
    return z, part + at_each_place(log_det, x)


def _is_norm(part: Bijection, x: Tensor) -> bool:
    return _is_as_made(part, ActNorm) and part.shift.dtype == x.dtype


def _is_mixing(part: Bijection, x: Tensor) -> bool:
    own = type(part).forward in (InvertibleConv1x1.forward, LinearMap.forward)
    linear = part.linear if isinstance(part, InvertibleConv1x1) else part
    own = own and type(linear).forward is LinearMap.forward and linear.shift.dtype == x.dtype
    return own and not any(map(has_hooks, part.modules()))


def _is_coupling(part: Bijection, x: Tensor) -> bool:
    """Returns whether a layer is a coupling that `StepNode` knows, for points like x."""
    return (
        _is_as_made(part, AffineCoupling)
        and part.memory == "store"
        and x.dim() == 4
        and x.dtype == log_det_dtype(x.dtype)
        and isinstance(part.partition, Partition)
        and part.partition.keeps_first
        and _is_as_made(part.conditioner, ConvNet)
        and part.conditioner.is_plain(x)
        and part.conditioner.middle.weight.dtype == x.dtype
    )


def _is_as_made(part: nn.Module, kind: type[M]) -> TypeGuard[M]:
    return is_exactly(part, kind) and not has_hooks(part)
