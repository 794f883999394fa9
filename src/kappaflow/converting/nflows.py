"""Flows of nflows, whose direction is that of ours."""

import math
from typing import Any

import torch
from torch import Tensor, nn

from kappaflow.bijections import ActNorm, Standardize
from kappaflow.bijections import Squeeze as OwnSqueeze
from kappaflow.converting.layers import Layers, Own, is_a
from kappaflow.converting.levels import levels_of
from kappaflow.converting.matrices import (
    dense,
    of_reflections,
    of_reflections_and_triangle,
    of_singular_values,
    of_triangles,
)
from kappaflow.converting.networks import identity, outputs_of, read
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

HOME = "nflows.transforms"
LEVELS = f"{HOME}.base.MultiscaleCompositeTransform"
POINTWISE = f"{HOME}.standard.PointwiseAffineTransform"
INVERSE = f"{HOME}.base.InverseTransform"
FLOOR = 1e-3  # the least scale of an affine coupling


def plan_of(flow: Any, own: Own) -> Plan:  # noqa: ANN401
    """Returns what a flow of nflows is made of."""
    if "nflows.flows.base.Flow" not in full_names(flow):
        raise ArgumentError(
            f"'flow' should be a flow with its base, {type(flow).__name__} of nflows is none."
        )
    latent = tuple(getattr(flow._distribution, "_shape", ()))
    opened = _opened(flow._transform)
    many = any(is_a(one, LEVELS) for one in opened)
    width = None if many or len(latent) != 1 else latent[0]
    known = {
        **KNOWN,
        POINTWISE: lambda layer: _pointwise(layer, width),
        INVERSE: lambda layer: _inverse(layer, layers),
    }
    layers = Layers(known, own)
    parts: list[Part] = []
    for layer in opened:
        if is_a(layer, LEVELS):
            parts += _levels(layer, layers, math.prod(latent))
        else:
            parts += layers.take(layer)
    embedding: list[Network] = []
    layers.part("embedding of the context", lambda: embedding.extend(_embedding(flow)) or [])
    parts += layers.part(
        f"base {type(flow._distribution).__name__}", lambda: _base(flow._distribution)
    )
    layers.check("nflows")
    like = next((p for p in flow.parameters()), torch.zeros(()))
    return Plan(parts, latent, like, next(iter(embedding), None))


def _opened(transform: Any) -> list[Any]:  # noqa: ANN401
    if not is_a(transform, f"{HOME}.base.CompositeTransform"):
        return [transform]
    return [one for part in transform._transforms for one in _opened(part)]


def _embedding(flow: Any) -> list[Network]:  # noqa: ANN401
    net = flow._embedding_net
    if type(net) is nn.Identity:
        return []
    first = next((one for one in net.modules() if isinstance(one, nn.Linear)), None)
    if first is None:
        raise Refused("it has no linear layer")
    return [read(net, first.in_features)]


def _base(base: Any) -> list[Part]:  # noqa: ANN401
    name = full_names(base)[0].removeprefix("nflows.distributions.normal.")
    if name == "StandardNormal":
        return []
    if name in {"DiagonalNormal", "ConditionalDiagonalNormal"} and len(base._shape) != 1:
        raise Refused("it has a mean and a deviation for each place of an image")
    if name == "DiagonalNormal":
        mean, log_scale = base.mean_.detach().flatten(), base.log_std_.detach().flatten()
        return [Scaling(log_scale, mean).inverse()]
    if name == "ConditionalDiagonalNormal":
        width = math.prod(base._shape)
        encoder = base._context_encoder
        if isinstance(encoder, nn.Module):
            first = next((one for one in encoder.modules() if isinstance(one, nn.Linear)), None)
            if first is None:
                raise Refused("its encoder of the context has no linear layer")
            network = read(encoder, 0, context=first.in_features)
        elif encoder.__module__ != base.__module__:  # nflows' own returns what it is given
            raise Refused("its encoder of the context is no module that could be read")
        else:
            network = identity(base._log_z, 2 * width)
            network = network.with_first(network.weights[0], network.biases[0], inputs=0)
        network = outputs_of(network, 2 * width)
        network = network.with_answers([*range(width, 2 * width), *range(width)])
        return inverse_of([Coupling(Partition(width, ()), network, "exp")])
    raise Refused("it is no normal distribution of independent features")


def _partition(layer: Any) -> Partition:  # noqa: ANN401
    if layer.unconditional_transform is not None:
        raise Refused("it changes the features that its network reads, too")
    return Partition(layer.features, tuple(layer.identity_features.tolist()))


def _network(layer: Any, partition: Partition, answers: int) -> Network:  # noqa: ANN401
    net, kept = layer.transform_net, len(partition.kept)
    context = getattr(net, "context_features", None) or 0
    return outputs_of(read(net, kept, context=context, apart=True), answers)


def _affine(layer: Any) -> list[Part]:  # noqa: ANN401
    partition = _partition(layer)
    changed = len(partition.changed)
    network = _network(layer, partition, 2 * changed)
    network = network.with_answers([*range(changed, 2 * changed), *range(changed)])
    raw = torch.linspace(-6, 6, 25, dtype=torch.float64)[None].expand(changed, -1).T
    scale, _ = layer._scale_and_shift(torch.cat((torch.zeros_like(raw), raw), 1))
    if not torch.allclose(scale, torch.sigmoid(raw + 2) + FLOOR, rtol=1e-14, atol=0):
        raise Refused("its scales are not sigmoids of its network's answers")
    bias = network.biases[-1].clone()
    bias[:changed] += 2
    network = network.with_last(network.weights[-1], bias)
    return [Coupling(partition, network, "sigmoid", -math.log(FLOOR))]


def _additive(layer: Any) -> list[Part]:  # noqa: ANN401
    partition = _partition(layer)
    network = _network(layer, partition, len(partition.changed))
    return [Coupling(partition, network, None)]


def _permutation(layer: Any) -> list[Part]:  # noqa: ANN401
    if layer._dim != 1:
        raise Refused("it permutes another dimension than that of the features")
    return [Reordering(tuple(layer._permutation.tolist()))]


def _triangles(layer: Any) -> tuple[Tensor, Tensor]:  # noqa: ANN401
    lower, upper = layer._create_lower_upper()
    return lower.detach(), upper.detach()


def _lu(layer: Any) -> list[Part]:  # noqa: ANN401
    lower, upper = _triangles(layer)
    order = torch.arange(len(lower), device=lower.device)
    return [of_triangles(lower, upper, order, layer.bias.detach().clone())]


def _convolution(layer: Any) -> list[Part]:  # noqa: ANN401
    return [*_permutation(layer.permutation), *_lu(layer)]


def _qr(layer: Any) -> list[Part]:  # noqa: ANN401
    vectors = layer.orthogonal.q_vectors.detach().flip(0)
    upper = layer._create_upper().detach()
    return [of_reflections_and_triangle(vectors, upper, layer.bias.detach().clone())]


def _svd(layer: Any) -> list[Part]:  # noqa: ANN401
    left, right = (
        side.q_vectors.detach().flip(0) for side in (layer.orthogonal_1, layer.orthogonal_2)
    )
    log_scale = layer.log_diagonal.detach()
    return [of_singular_values(left, log_scale, right, layer.bias.detach().clone())]


def _reflections(layer: Any) -> list[Part]:  # noqa: ANN401
    return [of_reflections(layer.q_vectors.detach().flip(0))]


def _naive(layer: Any) -> list[Part]:  # noqa: ANN401
    return [dense(layer._weight, layer.bias)]


def _batch_norm(layer: Any) -> list[Part]:  # noqa: ANN401
    deviation = (layer.running_var + layer.eps).sqrt()
    scale = (layer.weight / deviation).detach()
    shift = layer.bias.detach() - layer.running_mean * scale
    return [Scaling(scale.log(), shift)]


def _act_norm(layer: Any) -> list[Part]:  # noqa: ANN401
    log_scale, shift = layer.log_scale.detach().clone(), layer.shift.detach().clone()
    if not layer.initialized:
        return [Other(lambda: ActNorm(len(log_scale)).to(log_scale))]
    return [Scaling(log_scale, shift)]


def _pointwise(layer: Any, width: int | None) -> list[Part]:  # noqa: ANN401
    """Returns a transform by fixed numbers, which is how the units of data are taken out."""
    if width is None or max(layer._scale.dim(), layer._shift.dim()) > 1:
        raise Refused("it has numbers for each place, where ours has one for each feature")
    scale, shift = (torch.broadcast_to(t, (width,)).clone() for t in (layer._scale, layer._shift))
    if not scale.is_floating_point() or not shift.is_floating_point():
        raise Refused("its numbers are whole ones, which have no type to compute in")

    def make() -> Standardize:
        made = Standardize(width).to(scale)
        made.load_state_dict({
            "mean": -shift / scale,
            "deviation": 1 / scale,
            "fitted": torch.tensor(True),
        })
        return made

    return [Other(make)]


def _inverse(layer: Any, layers: Layers) -> list[Part]:  # noqa: ANN401
    return inverse_of([part for one in _opened(layer._transform) for part in layers.parts(one)])


def _squeeze(layer: Any) -> list[Part]:  # noqa: ANN401
    return [Other(lambda: OwnSqueeze(layer.factor))]


def _levels(layer: Any, layers: Layers, size: int) -> list[Part]:  # noqa: ANN401
    """Returns a multi-scale transform, whose scales factor out the first half of the channels."""
    shapes = [tuple(int(n) for n in shape) for shape in layer._output_shapes]
    levels = [
        [part for one in _opened(transform) for part in layers.take(one)]
        for transform in layer._transforms
    ]
    if not shapes or layer._split_dim != 1 or any(len(shape) != 3 for shape in shapes):
        layers.refused.append((type(layer).__name__, "it splits no channels of images"))
        return []
    leaving = (size // math.prod(shapes[0][1:]), *shapes[0][1:])
    for parts, shape in zip(levels[:-1], shapes[:-1], strict=True):
        channels = size // math.prod(shape[1:])
        out = (channels + 1) // 2
        parts.append(Reordering((*range(out, channels), *range(out))))
        size -= math.prod(shape)
    return levels_of(levels, leaving)


KNOWN = {
    f"{HOME}.coupling.AffineCouplingTransform": _affine,
    f"{HOME}.coupling.AdditiveCouplingTransform": _additive,
    f"{HOME}.permutations.Permutation": _permutation,
    f"{HOME}.lu.LULinear": _lu,
    f"{HOME}.conv.OneByOneConvolution": _convolution,
    f"{HOME}.qr.QRLinear": _qr,
    f"{HOME}.svd.SVDLinear": _svd,
    f"{HOME}.orthogonal.HouseholderSequence": _reflections,
    f"{HOME}.linear.NaiveLinear": _naive,
    f"{HOME}.normalization.BatchNorm": _batch_norm,
    f"{HOME}.normalization.ActNorm": _act_norm,
    f"{HOME}.standard.IdentityTransform": lambda _: [],
    f"{HOME}.reshape.SqueezeTransform": _squeeze,
}
