"""Reads flows of normflows for `wrap` and `convert`. Their forward goes from latent to data."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from kappaflow.errors import ArgumentError, ConversionError
from kappaflow.foreign.layers import ForeignBase, ForeignLayer, Parts, event_shape_of
from kappaflow.interop.blueprint import (
    Blueprint,
    CouplingPart,
    FlowPart,
    NetworkWeights,
    ReorderingPart,
    ScalingPart,
    Unsupported,
    inverse_of,
)
from kappaflow.interop.layers import Converters, Layers, dense, full_names, is_exactly
from kappaflow.interop.networks import check_outputs, concatenated, read_network
from kappaflow.partition import Partition

HOME = "normflows.flows"
BASES = "normflows.distributions.base."
SIGMOID_SHIFT = 2.0


def parts_of(flow: Any, x: Tensor | None, context: Tensor | None) -> Parts:
    """Returns the layers, from data to latent, and the base of a normflows flow."""
    if hasattr(flow, "merges"):
        return _multiscale_parts(flow, x, context)
    if not hasattr(flow, "flows") or type(flow).__name__ == "NormalizingFlowVAE":
        raise ArgumentError(
            f"'flow' should be a NormalizingFlow or MultiscaleFlow of normflows, got "
            f"{type(flow).__name__}."
        )
    shape = _shape(flow.q0, x, type(flow).__name__)
    width = 0 if context is None else context.shape[1]

    def with_context(function: Callable[..., Any]) -> Callable[[Any, Tensor | None], Any]:
        return lambda value, context: (
            function(value) if context is None else function(value, context=context)
        )

    layers = [
        ForeignLayer(
            type(layer).__name__,
            with_context(layer.inverse),
            with_context(layer.forward),
            (shape, shape),
            width,
        )
        for layer in reversed(flow.flows)
    ]
    sample = with_context(flow.q0.forward)
    base = ForeignBase(
        shape, with_context(flow.q0.log_prob), lambda n, context: sample(n, context)[0]
    )
    return Parts(
        "normflows",
        layers,
        base,
        flow,
        log_prob=with_context(flow.log_prob),
        sample=with_context(flow.sample),
    )


def _multiscale_parts(flow: Any, x: Tensor | None, context: Tensor | None) -> Parts:
    """Returns a multi-scale flow as one layer with a flat latent."""
    shape = event_shape_of(x, type(flow).__name__)
    shapes = [_shape(base, None, type(flow).__name__) for base in flow.q0]
    sizes = [math.prod(shape) for shape in shapes]

    def split(z: Tensor) -> list[Tensor]:
        parts = z.split(sizes, 1)
        return [part.reshape(-1, *shape) for part, shape in zip(parts, shapes, strict=True)]

    def classes(context: Tensor | None) -> tuple[Tensor, ...]:
        if not flow.class_cond:
            return ()
        if context is None:
            raise ArgumentError(
                "'context' should be given, one column with the class of each row: this "
                "MultiscaleFlow is conditional."
            )
        return (context[:, 0].long(),)

    def encode(value: Tensor, context: Tensor | None) -> tuple[Tensor, Any]:
        z, log_det = flow.inverse_and_log_det(value)
        return torch.cat([part.flatten(1) for part in z], 1), log_det

    def decode(value: Tensor, context: Tensor | None) -> tuple[Tensor, Any]:
        return flow.forward_and_log_det(split(value))

    def base_log_prob(z: Tensor, context: Tensor | None) -> Tensor:
        values = [
            base.log_prob(part, *classes(context))
            for base, part in zip(flow.q0, split(z), strict=True)
        ]
        return torch.stack(values).sum(0)

    def base_sample(n: int, context: Tensor | None) -> Tensor:
        return torch.cat([base(n, *classes(context))[0].flatten(1) for base in flow.q0], 1)

    latent = (sum(sizes),)
    width = 0 if context is None else context.shape[1]
    return Parts(
        "normflows",
        [ForeignLayer(type(flow).__name__, encode, decode, (shape, latent), width)],
        ForeignBase(latent, base_log_prob, base_sample),
        flow,
        log_prob=lambda value, context: flow.log_prob(value, *(classes(context) or (None,))),
        sample=lambda n, context: flow.sample(n, *classes(context)),
    )


def _shape(base: Any, x: Tensor | None, name: str) -> tuple[int, ...]:
    """Returns the shape of a latent, from the base if it has one, else from the rows."""
    shape = getattr(base, "shape", None)
    if shape is None:
        return event_shape_of(x, name)
    return tuple(shape) if isinstance(shape, tuple | list | torch.Size) else (int(shape),)


def blueprint_of(flow: Any, converters: Converters) -> Blueprint:
    """Returns the blueprint of a flow of normflows."""
    known = {**KNOWN, f"{HOME}.base.Reverse": lambda layer: _reverse(layer, layers)}
    layers = Layers(known, converters, inverted=True)
    if not hasattr(flow, "flows") or type(flow).__name__ == "NormalizingFlowVAE":
        raise ArgumentError(
            f"'flow' should be a NormalizingFlow of normflows, got {type(flow).__name__}."
        )
    if hasattr(flow, "merges"):
        raise ConversionError("normflows", [(type(flow).__name__, "it has several scales")])
    parts = [part for layer in _layers_of(flow.flows) for part in layers.convert(layer)]
    parts += layers.attempt(f"base {type(flow.q0).__name__}", lambda: _base(flow.q0))
    layers.raise_if_unsupported("normflows")
    like = next(iter([*flow.parameters(), *flow.buffers()]))
    return Blueprint(parts, tuple(flow.q0.shape), like)


def _layers_of(flows: Any) -> list[Any]:
    """Returns flows with compositions expanded to their layers, from data to latent."""
    composite = f"{HOME}.base.Composite"
    return [
        part
        for layer in reversed(flows)
        for part in (_layers_of(layer._flows) if is_exactly(layer, composite) else [layer])
    ]


def _base(base: Any) -> list[FlowPart]:
    kind = full_names(base)[0].removeprefix(BASES)
    if kind != "DiagGaussian" or len(base.shape) != 1:
        raise Unsupported("it is not a normal distribution of features, each with a fixed mean")
    if base.temperature is not None:
        raise Unsupported("it has a temperature")
    mean, log_scale = base.loc.detach().flatten(), base.log_scale.detach().flatten()
    if not mean.any() and not log_scale.any():
        return []
    return [ScalingPart(log_scale.clone(), mean.clone()).inverse()]


def _block(layer: Any) -> list[FlowPart]:
    mode, coupling = layer.flows[0].mode, layer.flows[1]
    network = read_network(coupling.param_map, _inputs(coupling.param_map))
    inputs, outputs = network.inputs, network.outputs
    changed = outputs // 2 if coupling.scale else outputs
    features = inputs + changed
    if mode == "channel":
        kept = range((features + 1) // 2)
    elif mode == "channel_inv":
        kept = range((features + 1) // 2, features)
    elif mode == "checkerboard":
        kept = range(1, features, 2)
    else:
        kept = range(0, features, 2)
    partition = Partition(features, tuple(kept))
    if len(partition.kept) != inputs:
        raise Unsupported("its network does not read half of the features")
    check_outputs(network, changed * (2 if coupling.scale else 1))
    if not coupling.scale:
        return [CouplingPart(partition, network, None)]
    network = network.select_outputs([*range(1, 2 * changed, 2), *range(0, 2 * changed, 2)])
    return [CouplingPart(partition, *_curve(network, changed, coupling.scale_map))]


def _curve(network: NetworkWeights, changed: int, kind: str) -> tuple[NetworkWeights, str]:
    """Returns the network adapted to a scale map, and the curve for its raw log-scales."""
    if kind == "exp":
        return network, "exp"
    if kind not in {"sigmoid", "sigmoid_inv"}:
        raise Unsupported(f"kappaflow's couplings do not have its scale map {kind!r}")
    sign = torch.ones(2 * changed)
    if kind == "sigmoid":
        sign[:changed] = -1  # 1 / sigmoid(r + 2) is exp(softplus(-(r + 2)))
    network = network.select_outputs(range(2 * changed), sign)
    bias = network.biases[-1].clone()
    bias[:changed] += SIGMOID_SHIFT * sign[:changed].to(bias)
    curve = "softplus" if kind == "sigmoid" else "logsigmoid"
    return network.replace_last(network.weights[-1], bias), curve


def _inputs(net: Any) -> int:
    first = next((part for part in net.modules() if hasattr(part, "in_features")), None)
    if first is None:
        raise Unsupported("its network has no linear layer")
    return first.in_features


def _masked(layer: Any) -> list[FlowPart]:
    mask = layer.b[0].detach().cpu()
    if mask.dim() != 1 or not ((mask == 0) | (mask == 1)).all():
        raise Unsupported("its mask is not a row of zeros and ones")
    features = len(mask)
    partition = Partition(features, tuple(mask.nonzero()[:, 0].tolist()))
    scales, shifts = (
        None if net is torch.zeros_like else _pruned(net, partition) for net in (layer.s, layer.t)
    )
    if scales is None:
        if shifts is None:
            return []
        return [CouplingPart(partition, shifts, None)]
    if shifts is None:
        weight, bias = scales.weights[-1], scales.biases[-1]
        zeros = torch.zeros_like(weight), torch.zeros_like(bias)
        network = scales.replace_last(torch.cat((weight, zeros[0])), torch.cat((bias, zeros[1])))
    else:
        network = concatenated(scales, shifts)
    return [CouplingPart(partition, network, "exp")]


def _pruned(net: Any, partition: Partition) -> NetworkWeights:
    """Returns the network of a masked coupling without masked inputs and unused outputs."""
    network = check_outputs(read_network(net, partition.features), partition.features)
    network = network.select_outputs(partition.changed)
    weight = network.weights[0][:, torch.as_tensor(partition.kept)]
    return network.replace_first(weight, network.biases[0], len(partition.kept))


def _permute(layer: Any) -> list[FlowPart]:
    if layer.mode == "shuffle":
        return [ReorderingPart(tuple(layer.perm.tolist()))]
    half = layer.num_channels // 2
    return [ReorderingPart((*range(half, layer.num_channels), *range(half)))]


def _lu_permute(layer: Any) -> list[FlowPart]:
    parts: list[FlowPart] = [
        ReorderingPart(tuple(layer.permutation._permutation.tolist())),
        dense(layer.linear.weight(), layer.linear.bias),
    ]
    return inverse_of(parts)


def _affine_map(layer: Any) -> list[FlowPart]:
    """Returns the linear layer for the map z W."""
    matrix = layer._assemble_W() if layer.use_lu else layer.W
    return inverse_of([dense(matrix.mT)])


def _constant(layer: Any) -> list[FlowPart]:
    log_scale, shift = layer.s.detach(), layer.t.detach()
    if max(log_scale[0].numel(), shift[0].numel()) != log_scale.shape[1]:
        raise Unsupported("it has a value for each pixel instead of each channel")
    return [ScalingPart(log_scale.flatten().clone(), shift.flatten().clone())]


def _act_norm(layer: Any) -> list[FlowPart]:
    if not layer.data_dep_init_done > 0:
        raise Unsupported("it is not initialized: it waits for its first batch")
    return _constant(layer)


def _reverse(layer: Any, layers: Layers) -> list[FlowPart]:
    return layers.inverse_parts(_layers_of([layer.flow])[::-1])


KNOWN = {
    f"{HOME}.affine.coupling.AffineCouplingBlock": _block,
    f"{HOME}.affine.coupling.MaskedAffineFlow": _masked,
    f"{HOME}.affine.coupling.AffineConstFlow": _constant,
    f"{HOME}.mixing.Permute": _permute,
    f"{HOME}.mixing.LULinearPermute": _lu_permute,
    f"{HOME}.mixing.InvertibleAffine": _affine_map,
    f"{HOME}.normalization.ActNorm": _act_norm,
}
