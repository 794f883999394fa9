"""Flows of nflows for `wrap` and `convert`. Forward goes from data to latent, as here."""

import math
from typing import Any

import torch
from torch import Tensor, nn

from kappaflow.bijections import ActNorm, Standardize
from kappaflow.errors import ArgumentError
from kappaflow.foreign.layers import (
    ContextReader,
    ForeignBase,
    ForeignLayer,
    Parts,
    default_dtype_of,
    event_shape_of,
    is_overridden,
    unchanged_context,
)
from kappaflow.interop.blueprint import (
    Blueprint,
    CouplingPart,
    FlowPart,
    NetworkWeights,
    OtherPart,
    ReorderingPart,
    ScalingPart,
    Unsupported,
)
from kappaflow.interop.layers import Converters, Layers, dense, flattened, full_names, is_exactly
from kappaflow.interop.networks import check_outputs, read_network
from kappaflow.partition import Partition

HOME = "nflows.transforms"
POINTWISE = f"{HOME}.standard.PointwiseAffineTransform"
INVERSE = f"{HOME}.base.InverseTransform"
FLOOR = 1e-3  # smallest scale of an affine coupling


def parts_of(
    flow: Any,
    x: Tensor | None,
    context: Tensor | None,
    read_context: ContextReader = unchanged_context,
) -> Parts:
    """Returns the transforms of a flow of nflows; each of them embeds the context."""
    base = flow._distribution
    shape = getattr(base, "_shape", None)
    shape = event_shape_of(x, type(flow).__name__) if shape is None else tuple(shape)
    outer = shape if x is None else tuple(x.shape[1:])

    def embedded(context: Tensor | None) -> Tensor | None:
        return None if context is None else flow._embedding_net(read_context(context))

    def layer(transform: Any, shapes: tuple[tuple[int, ...], ...]) -> ForeignLayer:
        return ForeignLayer(
            type(transform).__name__,
            lambda value, context: transform(value, context=embedded(context)),
            lambda value, context: transform.inverse(value, context=embedded(context)),
            (shapes[0], shapes[1]),
            0 if context is None else context.shape[1],
        )

    def draw(call: Any, n: int, context: Tensor | None) -> Any:
        with default_dtype_of(flow):  # its standard normal samples in torch's default dtype
            return call(*_rows(n, context))

    def sample(*arguments: Any) -> tuple[Tensor, Tensor | None]:
        overridden = any(is_overridden(name, flow, ["nflows"]) for name in ("sample", "_sample"))
        if overridden:
            return flow.sample(*arguments), None
        return flow.sample_and_log_prob(*arguments)

    transforms = _transforms_of(flow._transform) if outer == shape else [flow._transform]
    return Parts(
        "nflows",
        [layer(transform, (outer, shape)) for transform in transforms],
        ForeignBase(
            shape,
            lambda z, context: base.log_prob(z, context=embedded(context)),
            lambda n, context: draw(base.sample, n, embedded(context)),
        ),
        flow,
        log_prob=lambda value, context: flow.log_prob(value, context=read_context(context)),
        sample=lambda n, context: draw(sample, n, read_context(context)),
    )


def _transforms_of(transform: Any) -> list[Any]:
    def inner(part: Any) -> Any:
        return part._transforms if type(part).__name__ == "CompositeTransform" else None

    return flattened(transform, inner)


def _rows(n: int, context: Tensor | None) -> tuple[int, Tensor | None]:
    """Returns the number of samples per context, and the contexts: one sample per row."""
    return (n, None) if context is None else (1, context)


def blueprint_of(flow: Any, converters: Converters) -> Blueprint:
    """Returns the blueprint of a flow of nflows."""
    if "nflows.flows.base.Flow" not in full_names(flow):
        raise ArgumentError(
            f"'flow' should be a Flow of nflows, with its base, got {type(flow).__name__}."
        )
    latent = tuple(getattr(flow._distribution, "_shape", ()))
    transforms = _layers_of(flow._transform)
    width = latent[0] if len(latent) == 1 else None
    known = {
        **KNOWN,
        POINTWISE: lambda layer: _pointwise(layer, width),
        INVERSE: lambda layer: layers.inverse_parts(_layers_of(layer._transform)),
    }
    layers = Layers(known, converters)
    parts = [part for layer in transforms for part in layers.convert(layer)]
    embedding: list[NetworkWeights] = []
    layers.attempt("embedding of the context", lambda: embedding.extend(_embedding(flow)) or [])
    parts += layers.attempt(
        f"base {type(flow._distribution).__name__}", lambda: _base(flow._distribution)
    )
    layers.raise_if_unsupported("nflows")
    like = next((p for p in flow.parameters()), torch.zeros(()))
    return Blueprint(parts, latent, like, next(iter(embedding), None))


def _layers_of(transform: Any) -> list[Any]:
    name = f"{HOME}.base.CompositeTransform"
    return flattened(transform, lambda part: part._transforms if is_exactly(part, name) else None)


def _embedding(flow: Any) -> list[NetworkWeights]:
    net = flow._embedding_net
    if type(net) is nn.Identity:
        return []
    first = next((part for part in net.modules() if isinstance(part, nn.Linear)), None)
    if first is None:
        raise Unsupported("it has no linear layer")
    return [read_network(net, first.in_features)]


def _base(base: Any) -> list[FlowPart]:
    name = full_names(base)[0].removeprefix("nflows.distributions.normal.")
    if name == "StandardNormal":
        return []
    if name == "DiagonalNormal" and len(base._shape) == 1:
        mean, log_scale = base.mean_.detach().flatten(), base.log_std_.detach().flatten()
        return [ScalingPart(log_scale, mean).inverse()]
    raise Unsupported("it is not a normal distribution of features, each with a fixed mean")


def _partition(layer: Any) -> Partition:
    if layer.unconditional_transform is not None:
        raise Unsupported("it also transforms the features that its network reads")
    return Partition(layer.features, tuple(layer.identity_features.tolist()))


def _network(layer: Any, partition: Partition, outputs: int) -> NetworkWeights:
    net, kept = layer.transform_net, len(partition.kept)
    context = getattr(net, "context_features", None) or 0
    return check_outputs(read_network(net, kept, context=context, separate_context=True), outputs)


def _affine(layer: Any) -> list[FlowPart]:
    partition = _partition(layer)
    changed = len(partition.changed)
    network = _network(layer, partition, 2 * changed)
    network = network.select_outputs([*range(changed, 2 * changed), *range(changed)])
    raw = torch.linspace(-6, 6, 25, dtype=torch.float64)[None].expand(changed, -1).T
    scale, _ = layer._scale_and_shift(torch.cat((torch.zeros_like(raw), raw), 1))
    if not torch.allclose(scale, torch.sigmoid(raw + 2) + FLOOR, rtol=1e-14, atol=0):
        raise Unsupported("its scales are not sigmoids of its network's outputs")
    bias = network.biases[-1].clone()
    bias[:changed] += 2
    network = network.replace_last(network.weights[-1], bias)
    return [CouplingPart(partition, network, "sigmoid", -math.log(FLOOR))]


def _additive(layer: Any) -> list[FlowPart]:
    partition = _partition(layer)
    network = _network(layer, partition, len(partition.changed))
    return [CouplingPart(partition, network, None)]


def _permutation(layer: Any) -> list[FlowPart]:
    if layer._dim != 1:
        raise Unsupported("it permutes another dimension than the features")
    return [ReorderingPart(tuple(layer._permutation.tolist()))]


def _linear(layer: Any) -> list[FlowPart]:
    return [dense(layer.weight(), layer.bias)]


def _reflections(layer: Any) -> list[FlowPart]:
    unit = torch.eye(layer.features).to(layer.q_vectors)
    return [dense(layer(unit)[0].mT)]


def _batch_norm(layer: Any) -> list[FlowPart]:
    deviation = (layer.running_var + layer.eps).sqrt()
    scale = (layer.weight / deviation).detach()
    shift = layer.bias.detach() - layer.running_mean * scale
    return [ScalingPart(scale.log(), shift)]


def _act_norm(layer: Any) -> list[FlowPart]:
    log_scale, shift = layer.log_scale.detach().clone(), layer.shift.detach().clone()
    if not layer.initialized:
        return [OtherPart(lambda: ActNorm(len(log_scale)).to(log_scale))]
    return [ScalingPart(log_scale, shift)]


def _pointwise(layer: Any, width: int | None) -> list[FlowPart]:
    """Returns a transform by fixed numbers as a standardization."""
    if width is None or max(layer._scale.dim(), layer._shift.dim()) > 1:
        raise Unsupported("it has a value for each pixel instead of each feature")
    scale, shift = (torch.broadcast_to(t, (width,)).clone() for t in (layer._scale, layer._shift))
    if not scale.is_floating_point() or not shift.is_floating_point():
        raise Unsupported("its shift and scale are integers")

    def make() -> Standardize:
        standardize = Standardize(width).to(scale)
        standardize.load_state_dict({
            "mean": -shift / scale,
            "deviation": 1 / scale,
            "fitted": torch.tensor(True),
        })
        return standardize

    return [OtherPart(make)]


KNOWN = {
    f"{HOME}.coupling.AffineCouplingTransform": _affine,
    f"{HOME}.coupling.AdditiveCouplingTransform": _additive,
    f"{HOME}.permutations.Permutation": _permutation,
    f"{HOME}.lu.LULinear": _linear,
    f"{HOME}.qr.QRLinear": _linear,
    f"{HOME}.svd.SVDLinear": _linear,
    f"{HOME}.linear.NaiveLinear": _linear,
    f"{HOME}.orthogonal.HouseholderSequence": _reflections,
    f"{HOME}.normalization.BatchNorm": _batch_norm,
    f"{HOME}.normalization.ActNorm": _act_norm,
    f"{HOME}.standard.IdentityTransform": lambda _: [],
}
