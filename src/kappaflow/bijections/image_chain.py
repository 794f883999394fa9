"""Chains of images, whose steps run as one autograd node each."""

from collections.abc import Iterator, Sequence
from typing import Any, TypeGuard, TypeVar

import torch
from torch import Tensor, nn

from kappaflow._checks import feature_batch
from kappaflow.bijection import Bijection, Chain, log_det_dtype, zero_log_det
from kappaflow.bijections.actnorm import ActNorm
from kappaflow.bijections.conv1x1 import InvertibleConv1x1
from kappaflow.bijections.coupling import AffineCoupling
from kappaflow.bijections.factored import LULinear, dense_together
from kappaflow.bijections.linear import LinearMap
from kappaflow.bijections.step_node import StepNode
from kappaflow.nets import ConvNet
from kappaflow.nets.linearized import has_hooks, is_exactly
from kappaflow.partition import Partition
from kappaflow.registry import register

M = TypeVar("M", bound=nn.Module)
LinearParts = tuple[Tensor, Tensor, Tensor]  # matrix, shift, log|det|
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
        if self._waits():
            with torch.no_grad():
                super().forward(x, context)
        context, log_det = self.embed(context), zero_log_det(x)
        steps = list(self._together(x))
        maps = _linear_maps(steps, x.dtype)
        for i, parts in enumerate(steps):
            if len(parts) == 1:
                x, part = parts[0](x, context)
            else:
                x, part = _step(parts, maps[i], x, context)
            log_det = log_det + part
        return x, log_det

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


def _layer(mixing: Bijection) -> Any:  # noqa: ANN401
    return mixing.linear if isinstance(mixing, InvertibleConv1x1) else mixing


def _linear_map(norms: Sequence[Any], layer: Any, dtype: torch.dtype) -> LinearParts:  # noqa: ANN401
    """Returns matrix, shift and log|det| of a mixing behind an `ActNorm`, or behind none."""
    matrix, shift, log_det = layer.dense(dtype)
    for norm in norms:
        shift = shift + matrix @ norm.shift
        matrix, log_det = matrix * norm.log_scale.exp(), log_det + norm.log_scale.sum()
    return matrix, shift, log_det


def _linear_maps(steps: Sequence[Parts], dtype: torch.dtype) -> dict[int, LinearParts]:
    """Returns `_linear_map` of the steps among the layers, by place.

    Triangular ones of one size that an `ActNorm` goes before are computed as stacks.
    """
    found: dict[int, LinearParts] = {}
    sizes: dict[int, list[int]] = {}
    for i, parts in enumerate(steps):
        if len(parts) == 3 and type(_layer(parts[1])) is LULinear:
            sizes.setdefault(parts[0].features, []).append(i)
        elif len(parts) > 1:
            found[i] = _linear_map(parts[:-2], _layer(parts[-2]), dtype)
    for places in sizes.values():
        norms, layers = zip(*((steps[i][0], _layer(steps[i][1])) for i in places), strict=True)
        matrix, log_det = dense_together(layers, dtype)
        log_scale = torch.stack([norm.log_scale for norm in norms])
        shift = torch.stack([layer.shift for layer in layers]).to(dtype)
        shift = torch.baddbmm(
            shift[:, :, None], matrix, torch.stack([norm.shift for norm in norms])[:, :, None]
        )
        matrix, log_det = matrix * log_scale.exp()[:, None], log_det + log_scale.sum(1)
        maps = zip(matrix.unbind(), shift.squeeze(2).unbind(), log_det.unbind(), strict=True)
        found |= dict(zip(places, maps, strict=True))
    return found


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
