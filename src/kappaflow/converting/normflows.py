"""Flows of normflows, whose forward goes from latent to data."""

import math
from typing import Any

import torch
from torch import Tensor

from kappaflow.bijections import Squeeze
from kappaflow.converting.layers import Layers, Own, is_a
from kappaflow.converting.levels import levels_of
from kappaflow.converting.matrices import convolution, dense, of_triangles
from kappaflow.converting.networks import beside, outputs_of, read
from kappaflow.converting.plan import (
    Coupling,
    Network,
    Other,
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

HOME = "normflows.flows"
BASES = "normflows.distributions.base."
SIGMOID_SHIFT = 2.0


def plan_of(flow: Any, own: Own) -> Plan:  # noqa: ANN401
    """Returns what a flow of normflows is made of."""
    known = {**KNOWN, f"{HOME}.base.Reverse": lambda layer: _reverse(layer, layers)}
    layers = Layers(known, own, backwards=True)
    if hasattr(flow, "merges"):
        parts = _multiscale(flow, layers)
    elif hasattr(flow, "flows") and type(flow).__name__ != "NormalizingFlowVAE":
        parts = [part for layer in _opened(reversed(flow.flows)) for part in layers.take(layer)]
        parts += layers.part(f"base {type(flow.q0).__name__}", lambda: _base(flow.q0))
    else:
        raise ArgumentError(
            f"'flow' should be a flow on data, {type(flow).__name__} of normflows is none."
        )
    layers.check("normflows")
    like = next(iter([*flow.parameters(), *flow.buffers()]))
    if hasattr(flow, "merges"):
        shape = (sum(math.prod(base.shape) for base in flow.q0),)
    else:
        shape = tuple(flow.q0.shape)
    return Plan(parts, shape, like)


def _opened(flows: Any) -> list[Any]:  # noqa: ANN401
    """Returns layers from data to latent, compositions opened."""
    found: list[Any] = []
    for layer in flows:
        inner = layer._flows if is_a(layer, f"{HOME}.base.Composite") else None
        if is_a(layer, f"{HOME}.affine.glow.GlowBlock"):
            inner = layer.flows
        found += [layer] if inner is None else _opened(reversed(inner))
    return found


def _base(base: Any) -> list[Part]:  # noqa: ANN401
    kind = full_names(base)[0].removeprefix(BASES)
    if kind == "DiagGaussian" and len(base.shape) == 1:
        return _normal(*_moments(base, base.loc, base.log_scale))
    if kind == "ConditionalDiagGaussian" and len(base.shape) == 1:
        width, encoder = base.shape[0], base.context_encoder
        network = read(encoder, 0, context=_inputs(encoder))
        network = outputs_of(network, 2 * width)
        network = network.with_answers([*range(width, 2 * width), *range(width)])
        return inverse_of([Coupling(Partition(width, ()), network, "exp")])
    raise Refused("it is no normal distribution of independent features")


def _moments(base: Any, loc: Tensor, log_scale: Tensor) -> tuple[Tensor, Tensor]:  # noqa: ANN401
    """Returns mean and log-deviation, one number for each of the latent, (D,)."""
    if base.temperature is not None:
        raise Refused("it has a temperature")
    shape = (1, *base.shape)
    flat = [torch.broadcast_to(t.detach(), shape).reshape(-1) for t in (loc, log_scale)]
    return flat[0].clone(), flat[1].clone()


def _normal(mean: Tensor, log_deviation: Tensor) -> list[Part]:
    if not mean.any() and not log_deviation.any():
        return []
    return [Scaling(log_deviation, mean).inverse()]


def _base_of_images(base: Any) -> tuple[Tensor, Tensor]:  # noqa: ANN401
    kind = full_names(base)[0].removeprefix(BASES)
    if len(getattr(base, "shape", ())) != 3:
        raise Refused("it is no distribution of images")
    if kind == "DiagGaussian":
        return _moments(base, base.loc, base.log_scale)
    if kind == "GlowBase" and not base.class_cond:
        factor = base.logscale_factor
        loc = base.loc * (base.loc_logs * factor).exp()
        return _moments(base, loc, base.log_scale * (base.log_scale_logs * factor).exp())
    if kind in {"GlowBase", "ClassCondDiagGaussian"}:
        raise Refused("it has a distribution for each class, where ours has one")
    raise Refused("it is no normal distribution of independent numbers")


def _multiscale(flow: Any, layers: Layers) -> list[Part]:  # noqa: ANN401
    """Returns a multi-scale flow: the scales from the finest on, and its bases on flat latents."""
    if flow.transform is not None:
        layers.refused.append((
            f"transform {type(flow.transform).__name__}",
            "kappaflow has no layer that is equal to it",
        ))
    levels = [
        [part for layer in _opened(reversed(level)) for part in layers.take(layer)]
        for level in reversed(flow.flows)
    ]
    for merge in flow.merges:
        layers.part("Merge", lambda merge=merge: _check_merge(merge))
    moments: list[tuple[Tensor, Tensor]] = []
    for base in reversed(flow.q0):
        name = f"base {type(base).__name__}"
        layers.part(name, lambda base=base: moments.append(_base_of_images(base)) or [])
    if layers.refused:
        return []
    channels, height, width = flow.q0[-1].shape
    channels *= 2 if len(flow.q0) > 1 else 1
    means, deviations = zip(*moments, strict=True)
    return [
        *levels_of(levels, (channels, height, width)),
        *_normal(torch.cat(means), torch.cat(deviations)),
    ]


def _check_merge(merge: Any) -> list[Part]:  # noqa: ANN401
    if full_names(merge)[0] != f"{HOME}.reshape.Merge" or merge.mode != "channel":
        raise Refused("it splits otherwise than by channels, the first half of which goes on")
    return []


def _block(layer: Any) -> list[Part]:  # noqa: ANN401
    mode, coupling = layer.flows[0].mode, layer.flows[1]
    network = read(coupling.param_map, _inputs(coupling.param_map))
    inputs, answers = network.inputs, network.outputs
    changed = answers // 2 if coupling.scale else answers
    features = inputs + changed
    if mode == "channel":
        kept = range((features + 1) // 2)
    elif mode == "channel_inv":
        kept = range((features + 1) // 2, features)
    elif not network.convolves and mode == "checkerboard":
        kept = range(1, features, 2)
    elif not network.convolves and mode == "checkerboard_inv":
        kept = range(0, features, 2)
    else:
        raise Refused("it packs the places of a checkerboard, which partitions of ours do not")
    partition = Partition(features, tuple(kept))
    if len(partition.kept) != inputs:
        raise Refused("its network does not read half of the features")
    outputs_of(network, changed * (2 if coupling.scale else 1))
    if not coupling.scale:
        return [Coupling(partition, network, None)]
    network = network.with_answers([*range(1, 2 * changed, 2), *range(0, 2 * changed, 2)])
    return [Coupling(partition, *_curve(network, changed, coupling.scale_map))]


def _curve(network: Network, changed: int, kind: str) -> tuple[Network, str]:
    """Returns the network of raw log-scales, and their curve, of a map from latent to data."""
    if kind == "exp":
        return network, "exp"
    if kind not in {"sigmoid", "sigmoid_inv"}:
        raise Refused(f"it has the scale map {kind!r}, which couplings of ours have not")
    sign = torch.ones(2 * changed)
    if kind == "sigmoid":
        sign[:changed] = -1  # divided by the sigmoid of r + 2: the softplus of -(r + 2)
    network = network.with_answers(range(2 * changed), sign)
    bias = network.biases[-1].clone()
    bias[:changed] += SIGMOID_SHIFT * sign[:changed].to(bias)
    curve = "softplus" if kind == "sigmoid" else "logsigmoid"
    return network.with_last(network.weights[-1], bias), curve


def _inputs(net: Any) -> int:  # noqa: ANN401
    first = next((m for m in net.modules() if hasattr(m, "in_features")), None)
    if first is not None:
        return first.in_features
    first = next((m for m in net.modules() if hasattr(m, "in_channels")), None)
    if first is None:
        raise Refused("its network has no linear layer")
    return first.in_channels


def _masked(layer: Any) -> list[Part]:  # noqa: ANN401
    mask = layer.b[0].detach().cpu()
    if mask.dim() != 1 or not ((mask == 0) | (mask == 1)).all():
        raise Refused("its mask is no row of zeros and ones")
    features = len(mask)
    partition = Partition(features, tuple(mask.nonzero()[:, 0].tolist()))
    given = [getattr(layer, name) for name in ("s", "t")]
    nets = [None if net is torch.zeros_like else _pruned(net, partition) for net in given]
    scales, shifts = nets
    if scales is None:
        if shifts is None:
            return []
        return [Coupling(partition, shifts, None)]
    if shifts is None:
        weight, bias = scales.weights[-1], scales.biases[-1]
        zeros = torch.zeros_like(weight), torch.zeros_like(bias)
        network = scales.with_last(torch.cat((weight, zeros[0])), torch.cat((bias, zeros[1])))
    else:
        network = beside(scales, shifts)
    return [Coupling(partition, network, "exp")]


def _pruned(net: Any, partition: Partition) -> Network:  # noqa: ANN401
    """Returns a network of all features without what it reads as zeros, and what is not used."""
    found = outputs_of(read(net, partition.features), partition.features)
    if found.convolves:
        raise Refused("it masks images")
    found = found.with_answers(partition.changed)
    weight = found.weights[0][:, torch.as_tensor(partition.kept)]
    return found.with_first(weight, found.biases[0], len(partition.kept))


def _permute(layer: Any) -> list[Part]:  # noqa: ANN401
    if layer.mode == "shuffle":
        return [Reordering(tuple(layer.perm.tolist()))]
    half = layer.num_channels // 2
    return [Reordering((*range(half, layer.num_channels), *range(half)))]


def _lu_permute(layer: Any) -> list[Part]:  # noqa: ANN401
    lower, upper = (t.detach() for t in layer.linear._create_lower_upper())
    order = torch.arange(len(lower), device=lower.device)
    parts: list[Part] = [
        Reordering(tuple(layer.permutation._permutation.tolist())),
        of_triangles(lower, upper, order, layer.linear.bias.detach().clone()),
    ]
    return inverse_of(parts)


def _convolution(layer: Any) -> list[Part]:  # noqa: ANN401
    if layer.use_lu:
        lower, upper = _lu(layer)
        part = of_triangles(lower, upper, layer.P.argmax(1), None)
    else:
        part = dense(layer.W)
    return inverse_of([convolution(part)])


def _lu(layer: Any) -> tuple[Tensor, Tensor]:  # noqa: ANN401
    lower = layer.L.detach().tril(-1) + layer.eye
    diagonal = layer.sign_S * layer.log_S.detach().exp()
    return lower, layer.U.detach().triu(1) + diagonal.diag()


def _affine_map(layer: Any) -> list[Part]:  # noqa: ANN401
    """Returns z W, a row times a matrix."""
    if layer.use_lu:
        lower, upper = _lu(layer)
        matrix = layer.P @ lower @ upper
    else:
        matrix = layer.W.detach()
    return inverse_of([dense(matrix.mT)])


def _constant(layer: Any) -> list[Part]:  # noqa: ANN401
    log_scale, shift = layer.s.detach(), layer.t.detach()
    if max(log_scale[0].numel(), shift[0].numel()) != log_scale.shape[1]:
        raise Refused("it has numbers for each place, where ours has one for each channel")
    return [Scaling(log_scale.flatten().clone(), shift.flatten().clone())]


def _act_norm(layer: Any) -> list[Part]:  # noqa: ANN401
    if not layer.data_dep_init_done > 0:
        raise Refused("it has not seen its first batch, so that it is no function yet")
    return _constant(layer)


def _batch_norm(layer: Any) -> list[Part]:  # noqa: ANN401
    raise Refused(f"{type(layer).__name__} of normflows takes its numbers from each batch anew")


def _reverse(layer: Any, layers: Layers) -> list[Part]:  # noqa: ANN401
    return [part for one in _opened([layer.flow]) for part in inverse_of(layers.parts(one))]


KNOWN = {
    f"{HOME}.affine.coupling.AffineCouplingBlock": _block,
    f"{HOME}.affine.coupling.MaskedAffineFlow": _masked,
    f"{HOME}.affine.coupling.AffineConstFlow": _constant,
    f"{HOME}.mixing.Permute": _permute,
    f"{HOME}.mixing.LULinearPermute": _lu_permute,
    f"{HOME}.mixing.Invertible1x1Conv": _convolution,
    f"{HOME}.mixing.InvertibleAffine": _affine_map,
    f"{HOME}.normalization.ActNorm": _act_norm,
    f"{HOME}.normalization.BatchNorm": _batch_norm,
    f"{HOME}.reshape.Squeeze": lambda _: inverse_of([Other(Squeeze)]),
}
