"""Flows of zuko for `wrap` and `convert`. Forward goes from data to latent, as here."""

import functools
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from kappaflow.errors import ArgumentError
from kappaflow.foreign.layers import (
    ContextReader,
    ForeignBase,
    ForeignLayer,
    Parts,
    is_overridden,
    unchanged_context,
)
from kappaflow.interop.blueprint import (
    Blueprint,
    CouplingPart,
    FlowPart,
    NetworkWeights,
    ReorderingPart,
    ScalingPart,
    Unsupported,
)
from kappaflow.interop.distributions import log_prob_in_support
from kappaflow.interop.layers import Converters, Layers, dense, flattened, full_names, is_exactly
from kappaflow.interop.networks import check_outputs, read_network
from kappaflow.partition import Partition

Make = Callable[[Tensor | None], Any]
AFFINE = "zuko.transforms.MonotonicAffineTransform"
ADDITIVE = "zuko.transforms.AdditiveTransform"
LIBRARIES = ("zuko", "torch")  # whose distributions sample as they score
SLOPE = 1e-3  # default of the smallest slope of a monotonic affine transform


def parts_of(
    flow: Any,
    x: Tensor | None,
    context: Tensor | None,
    read_context: ContextReader = unchanged_context,
) -> Parts:
    """Returns the transforms of a flow of zuko: a lazy one, or a distribution made by one."""
    lazy = isinstance(flow, nn.Module)

    def maker(part: Any) -> Make:
        return (lambda context: part(read_context(context))) if lazy else (lambda context: part)

    base, distribution = maker(flow.base), maker(flow)
    shape = tuple(base(context).event_shape)
    width = 0 if context is None else context.shape[1]
    transforms = flattened(flow.transform, lambda part: getattr(part, "transforms", None))
    layers = [_layer(transform, maker(transform), shape, width) for transform in transforms]
    return Parts(
        "zuko",
        layers,
        ForeignBase(
            shape,
            lambda z, context: log_prob_in_support(base(context), z),
            lambda n, context: _sample(base(context), n)[0],
        ),
        flow if lazy else None,
        log_prob=lambda value, context: distribution(context).log_prob(value),
        sample=lambda n, context: _sample(distribution(context), n),
    )


def _layer(transform: Any, make: Make, shape: tuple[int, ...], width: int) -> ForeignLayer:
    return ForeignLayer(
        type(transform).__name__,
        lambda x, context: make(context).call_and_ladj(x),
        lambda z, context: make(context).inv.call_and_ladj(z),
        (shape, shape),
        width,
    )


def _sample(distribution: Any, n: int) -> tuple[Tensor, Tensor | None]:
    """Returns n samples, or one per row if the distribution has a batch of contexts."""
    shape = () if distribution.batch_shape else (n,)
    overridden = any(
        is_overridden(name, distribution, LIBRARIES) for name in ("sample", "rsample")
    )
    if hasattr(distribution, "rsample_and_log_prob") and not overridden:
        return distribution.rsample_and_log_prob(shape)
    return distribution.sample(shape), None


def blueprint_of(flow: Any, converters: Converters) -> Blueprint:
    """Returns the blueprint of a flow of zuko."""
    if "zuko.lazy.Flow" not in full_names(flow):
        raise ArgumentError(
            "'flow' should be the lazy flow of zuko, which makes distributions, got "
            f"{type(flow).__name__}."
        )
    layers = Layers(
        {
            **KNOWN,
            "zuko.lazy.LazyInverse": lambda part: layers.inverse_parts(_layers_of(part.transform)),
        },
        converters,
    )
    parts: list[FlowPart] = []
    for layer in _layers_of(flow.transform):
        parts += layers.convert(layer)
    lazy: Any = flow.base
    is_lazy = full_names(lazy)[0] == "zuko.lazy.UnconditionalDistribution"
    base = lazy(None) if is_lazy else lazy
    parts += layers.attempt("base", lambda: _base(base))
    layers.raise_if_unsupported("zuko")
    return Blueprint(parts, tuple(base.event_shape), base.base_dist.loc)


def _layers_of(transform: Any) -> list[Any]:
    name = "zuko.lazy.LazyComposedTransform"
    return flattened(transform, lambda part: part.transforms if is_exactly(part, name) else None)


def _base(base: Any) -> list[FlowPart]:
    normal = full_names(base)[0] == "zuko.distributions.DiagNormal"
    if not normal or len(base.event_shape) != 1:
        raise Unsupported("it is not a normal distribution of features, each with a fixed mean")
    loc, scale = base.base_dist.loc.detach(), base.base_dist.scale.detach()
    if not loc.any() and (scale == 1).all():
        return []
    return [ScalingPart(scale.log(), loc.clone()).inverse()]


def _coupling(layer: Any) -> list[FlowPart]:
    mask = layer.mask.cpu()
    partition = Partition(len(mask), tuple(mask.nonzero()[:, 0].tolist()))
    kept, changed = len(partition.kept), len(partition.changed)
    scale, bound = _univariate(layer.univariate, layer.shapes)
    context = layer.hyper.in_features - kept
    network = read_network(layer.hyper, kept, context=context)
    network = check_outputs(network, changed * layer.total)
    return [CouplingPart(partition, _in_order(network, scale, changed), scale, bound)]


def _univariate(function: Any, shapes: Any) -> tuple[str | None, float]:
    """Returns the scale curve (softsign, or None for a shift) and bound of an elementwise map."""
    kind, settings = function, {}
    if isinstance(function, functools.partial) and not function.args:
        kind, settings = function.func, function.keywords
    if isinstance(kind, torch.nn.Module):
        raise Unsupported(
            f"it transforms features by a {type(kind).__name__}, which is not affine"
        )
    name = f"{kind.__module__}.{kind.__qualname__}"
    if name == AFFINE and set(settings) <= {"slope"} and _counts(shapes) == [1, 1]:
        slope = float(settings.get("slope", SLOPE))
        return "softsign", abs(math.log(slope))
    if name == ADDITIVE and not settings and _counts(shapes) == [1]:
        return None, 1.0
    raise Unsupported(f"it transforms features by {kind.__name__}, which is not affine")


def _counts(shapes: Any) -> list[int]:
    return [math.prod(shape) for shape in shapes]


def _in_order(network: NetworkWeights, scale: str | None, changed: int) -> NetworkWeights:
    """Returns the network with all log-scales before all shifts: zuko orders them by feature."""
    if scale is None:
        return network
    return network.select_outputs([*range(1, 2 * changed, 2), *range(0, 2 * changed, 2)])


def _unconditional(layer: Any) -> list[FlowPart]:
    transform = layer(None)
    name = full_names(transform)[0]
    if name == "zuko.transforms.PermutationTransform":
        return [ReorderingPart(tuple(transform.order.tolist()))]
    if name == "zuko.transforms.RotationTransform":
        return [dense(transform.R)]
    if name == "zuko.transforms.LULinearTransform":
        return [dense(transform.L @ transform.U)]
    raise Unsupported(f"kappaflow has no equivalent of {type(transform).__name__}")


def _elementwise(layer: Any) -> list[FlowPart]:
    scale, bound = _univariate(layer.univariate, layer.shapes)
    if hasattr(layer, "hyper"):
        features = layer.hyper.out_features // layer.total
        network = read_network(layer.hyper, 0, context=layer.hyper.in_features)
        network = _in_order(check_outputs(network, features * layer.total), scale, features)
        return [CouplingPart(Partition(features, ()), network, scale, bound)]
    shift, *raw = (parameter.detach().flatten().clone() for parameter in layer.phi)
    log_scale = raw[0] / (1 + raw[0].abs() / bound) if scale else torch.zeros_like(shift)
    return [ScalingPart(log_scale, shift)]


KNOWN = {
    "zuko.flows.coupling.GeneralCouplingTransform": _coupling,
    "zuko.flows.gaussianization.ElementWiseTransform": _elementwise,
    "zuko.lazy.UnconditionalTransform": _unconditional,
}
