"""Flows of zuko: lazy ones, whose direction is that of ours."""

import functools
import math
from typing import Any

import torch
from torch import Tensor

from kappaflow.converting.layers import Layers, Own, is_a
from kappaflow.converting.matrices import dense, of_triangles, rotation
from kappaflow.converting.networks import constant, outputs_of, read
from kappaflow.converting.plan import (
    Coupling,
    Network,
    Part,
    Plan,
    Refused,
    Reordering,
    Scaling,
    inverse_of,
)
from kappaflow.converting.steps import full_names
from kappaflow.errors import ArgumentError
from kappaflow.partition import Partition

AFFINE = "zuko.transforms.MonotonicAffineTransform"
ADDITIVE = "zuko.transforms.AdditiveTransform"
SLOPE = 1e-3  # the least slope of a monotonic affine transform, unless another is given


def plan_of(flow: Any, own: Own) -> Plan:  # noqa: ANN401
    """Returns what a flow of zuko is made of."""
    if "zuko.lazy.Flow" not in full_names(flow):
        raise ArgumentError(
            "'flow' should be the lazy flow of zuko, which makes distributions, got "
            f"{type(flow).__name__}."
        )
    layers = Layers({**KNOWN, "zuko.lazy.LazyInverse": lambda one: _inverse(one, layers)}, own)
    parts: list[Part] = []
    for layer in _opened(flow.transform):
        parts += layers.take(layer)
    lazy: Any = flow.base
    known = full_names(lazy)[0] == "zuko.lazy.UnconditionalDistribution"
    base = lazy(None) if known else lazy
    parts += layers.part("base", lambda: _base(base))
    layers.check("zuko")
    return Plan(parts, tuple(base.event_shape), base.base_dist.loc)


def _opened(transform: Any) -> list[Any]:  # noqa: ANN401
    if not is_a(transform, "zuko.lazy.LazyComposedTransform"):
        return [transform]
    return [one for part in transform.transforms for one in _opened(part)]


def _base(base: Any) -> list[Part]:  # noqa: ANN401
    normal = full_names(base)[0] == "zuko.distributions.DiagNormal"
    if not normal or len(base.event_shape) != 1:
        raise Refused("it is no normal distribution of independent features")
    loc, scale = base.base_dist.loc.detach(), base.base_dist.scale.detach()
    if not loc.any() and (scale == 1).all():
        return []
    return [Scaling(scale.log(), loc.clone()).inverse()]


def _coupling(layer: Any) -> list[Part]:  # noqa: ANN401
    mask = layer.mask.cpu()
    partition = Partition(len(mask), tuple(mask.nonzero()[:, 0].tolist()))
    kept, changed = len(partition.kept), len(partition.changed)
    scale, bound = _univariate(layer.univariate, layer.shapes)
    context = layer.hyper.in_features - kept
    network = outputs_of(read(layer.hyper, kept, context=context), changed * layer.total)
    return [Coupling(partition, _in_order(network, scale, changed), scale, bound)]


def _univariate(function: Any, shapes: Any) -> tuple[str | None, float]:  # noqa: ANN401
    """Returns the curve and the bound of an elementwise map: softsign, none if it only shifts."""
    kind, settings = function, {}
    if isinstance(function, functools.partial) and not function.args:
        kind, settings = function.func, function.keywords
    if isinstance(kind, torch.nn.Module):
        raise Refused(f"it changes features by a {type(kind).__name__}, no affine map")
    name = f"{kind.__module__}.{kind.__qualname__}"
    if name == AFFINE and set(settings) <= {"slope"} and _counts(shapes) == [1, 1]:
        slope = float(settings.get("slope", SLOPE))
        return "softsign", abs(math.log(slope))
    if name == ADDITIVE and not settings and _counts(shapes) == [1]:
        return None, 1.0
    raise Refused(f"it changes features by {kind.__name__}, no affine map")


def _counts(shapes: Any) -> list[int]:  # noqa: ANN401
    return [math.prod(shape) for shape in shapes]


def _in_order(network: Network, scale: str | None, changed: int) -> Network:
    """Returns the network with all log-scales in front of all shifts: zuko goes by feature."""
    if scale is None:
        return network
    return network.with_answers([*range(1, 2 * changed, 2), *range(0, 2 * changed, 2)])


def _autoregressive(layer: Any) -> list[Part]:  # noqa: ANN401
    """Returns a transform of two passes as a coupling, and what it does to the first features."""
    scale, bound = _univariate(layer.univariate, layer.shapes)
    if layer.order is None or layer.passes != 2:
        passes = "more than two" if layer.passes > 2 else "not two"
        raise Refused(f"it is autoregressive in {passes} passes, and a coupling takes two")
    order = layer.order.cpu()
    features = len(order)
    kept = (order == 0).nonzero()[:, 0].tolist()
    if layer.hyper.in_features > features:
        raise Refused("it is autoregressive and reads a context")
    partition = Partition(features, tuple(kept))
    network = outputs_of(read(layer.hyper, features), features * layer.total)
    answer = network.answer(network.weights[0].new_zeros(1, features))[0]
    weight = network.weights[0][:, torch.as_tensor(partition.kept)]
    inner = network.with_first(weight, network.biases[0], len(partition.kept))
    coupling = _in_order(
        inner.with_answers(_rows(partition.changed, layer.total)), scale, len(partition.changed)
    )
    first = answer[torch.as_tensor(_rows(partition.kept, layer.total))]
    alone = _in_order(constant(first, 0), scale, len(kept)).biases[-1]
    return [
        Coupling(partition, coupling, scale, bound),
        _scaling_of(alone, partition.kept, features, bound if scale else None),
    ]


def _rows(features: tuple[int, ...], total: int) -> list[int]:
    return [feature * total + i for feature in features for i in range(total)]


def _scaling_of(
    answer: Tensor, features: tuple[int, ...], width: int, bound: float | None
) -> Scaling:
    """Returns what a constant answer does to some features."""
    index = torch.as_tensor(features)
    log_scale, shift = answer.new_zeros(width), answer.new_zeros(width)
    if bound is None:
        shift[index] = answer
    else:
        raw, shift[index] = answer.chunk(2)
        log_scale[index] = raw / (1 + raw.abs() / bound)
    return Scaling(log_scale, shift)


def _unconditional(layer: Any) -> list[Part]:  # noqa: ANN401
    made = layer(None)
    name = full_names(made)[0]
    if name == "zuko.transforms.PermutationTransform":
        return [Reordering(tuple(made.order.tolist()))]
    if name == "zuko.transforms.RotationTransform":
        return [rotation(made.R)]
    if name == "zuko.transforms.LULinearTransform":
        return [_triangles(made)]
    raise Refused(f"kappaflow has no layer that is equal to {type(made).__name__}")


def _triangles(made: Any) -> Part:  # noqa: ANN401
    """Returns L U with the numbers of the diagonal of L moved to that of U."""
    lower, upper = made.L.detach(), made.U.detach()
    diagonal = lower.diagonal()
    if not (diagonal > 0).all():
        return dense(lower @ upper)
    order = torch.arange(len(lower), device=lower.device)
    return of_triangles(lower / diagonal, diagonal[:, None] * upper, order, None)


def _elementwise(layer: Any) -> list[Part]:  # noqa: ANN401
    scale, bound = _univariate(layer.univariate, layer.shapes)
    if hasattr(layer, "hyper"):
        features = layer.hyper.out_features // layer.total
        network = read(layer.hyper, 0, context=layer.hyper.in_features)
        network = _in_order(outputs_of(network, features * layer.total), scale, features)
        return [Coupling(Partition(features, ()), network, scale, bound)]
    raw = [one.detach().flatten() for one in layer.phi]
    answer = torch.cat([raw[1], raw[0]]) if scale else raw[0]
    features = len(raw[0])
    bound_of = bound if scale else None
    return [_scaling_of(answer, tuple(range(features)), features, bound_of)]


def _inverse(layer: Any, layers: Layers) -> list[Part]:  # noqa: ANN401
    return inverse_of([part for one in _opened(layer.transform) for part in layers.parts(one)])


KNOWN = {
    "zuko.flows.coupling.GeneralCouplingTransform": _coupling,
    "zuko.flows.autoregressive.MaskedAutoregressiveTransform": _autoregressive,
    "zuko.flows.gaussianization.ElementWiseTransform": _elementwise,
    "zuko.lazy.UnconditionalTransform": _unconditional,
}
