"""Networks of FrEIA, which go from data to latent, and have no base: it is a standard normal."""

from collections.abc import Callable, Collection
from typing import Any

import torch
from torch import Tensor

from kappaflow.converting.layers import Layers, Own
from kappaflow.converting.matrices import convolution, dense, of_reflections, rotation
from kappaflow.converting.networks import beside, outputs_of, read
from kappaflow.converting.plan import (
    Coupling,
    Network,
    Part,
    Plan,
    Refused,
    Reordering,
    Scaling,
)
from kappaflow.converting.steps import full_names
from kappaflow.errors import ArgumentError
from kappaflow.partition import Partition

HOME = "FrEIA.modules"
SEQUENCE = "FrEIA.framework.sequence_inn.SequenceINN"
GRAPH = "FrEIA.framework.graph_inn.GraphINN"
MANY_CONDITIONS = "it reads more than one condition, where there is one context"
CURVES: dict[str, tuple[Callable[[Tensor], Tensor], str, float]] = {
    # Of what a network answers: the clamp's function, the curve of ours, what it makes of 1.
    "ATAN": (lambda u: 0.636 * torch.atan(u), "atan", 0.636 * torch.pi / 2),
    "TANH": (torch.tanh, "tanh", 1.0),
    "SIGMOID": (lambda u: 2 * (torch.sigmoid(u) - 0.5), "tanh", 1.0),
}
STEEPNESS = {"ATAN": 0.636, "TANH": 1.0, "SIGMOID": 0.5}


def plan_of(flow: Any, own: Own) -> Plan:  # noqa: ANN401
    """Returns what a network of FrEIA is made of."""
    names = full_names(flow)
    if SEQUENCE not in names and GRAPH not in names:
        raise ArgumentError(
            f"'flow' should be a SequenceINN or GraphINN, {type(flow).__name__} of FrEIA is none."
        )
    layers = Layers(KNOWN, own)
    modules, latent = (_sequence if SEQUENCE in names else _graph)(flow, layers)
    parts = [part for module in modules for part in layers.take(module)]
    layers.check("FrEIA")
    like = next((p for p in flow.parameters() if p.is_floating_point()), torch.zeros(()))
    return Plan(parts, latent, like)


def _sequence(flow: Any, layers: Layers) -> tuple[list[Any], tuple[int, ...]]:  # noqa: ANN401
    _check_conditions(flow, set(flow.conditions) - {None}, layers)
    return list(flow.module_list), tuple(flow.shapes[-1])


def _graph(flow: Any, layers: Layers) -> tuple[list[Any], tuple[int, ...]]:  # noqa: ANN401
    """Returns the modules of a graph that is a sequence."""
    _check_conditions(flow, flow.condition_nodes, layers)
    latent = tuple(tuple(shape) for shape in flow.global_out_shapes)
    special = [*flow.in_nodes, *flow.out_nodes, *flow.condition_nodes]
    nodes = [node for node in flow.node_list if node not in special]
    in_a_row = all(len(node.inputs) == len(node.outputs) == 1 for node in nodes)
    if not in_a_row or len(flow.in_nodes) != 1 or len(latent) != 1:
        layers.refused.append((
            type(flow).__name__,
            "it is a graph with branches, where flows of ours are sequences",
        ))
        return [], ()
    return [node.module for node in nodes], latent[0]


def _check_conditions(flow: Any, conditions: Collection[object], layers: Layers) -> None:  # noqa: ANN401
    if len(conditions) > 1:
        layers.refused.append((type(flow).__name__, MANY_CONDITIONS))


def _condition(module: Any) -> int:  # noqa: ANN401
    """Returns the width of the only condition, which is a row of numbers, of a module."""
    width = sum(shape[0] for shape in module.dims_c)
    if len(module.dims_c) > 1:
        raise Refused(MANY_CONDITIONS)
    if width and len(module.dims_c[0]) != 1:
        raise Refused("it reads a condition that is an image")
    return width


def _all_in_one(module: Any) -> list[Part]:  # noqa: ANN401
    if module.GIN:
        raise Refused("it subtracts from the log-scales their mean (GIN)")
    kept, changed = module.splits
    features = kept + changed
    network = read(module.subnet, kept, context=_condition(module))
    factors = torch.full((2 * changed,), 0.1, dtype=torch.float64)
    factors[:changed] *= float(module.clamp)
    network = outputs_of(network, 2 * changed).with_answers(range(2 * changed), factors)
    coupling = Coupling(Partition(features, tuple(range(kept))), network, "tanh", module.clamp)
    scale = module.global_scale_activation(module.global_scale).detach().flatten()
    affine = Scaling(scale.log(), module.global_offset.detach().flatten().clone())
    before = _turns(module, back=True) if module.reverse_pre_permute else []
    return [*before, coupling, affine, *_turns(module)]


def _turns(module: Any, *, back: bool = False) -> list[Part]:  # noqa: ANN401
    """Returns what a block does to its channels at its end, or its transpose."""
    if not module.householder:
        matrix = module.w_perm.detach().reshape(module.in_channels, -1)
        return [_fixed(matrix.mT if back else matrix)]
    matrix, vectors = module.w_0.detach(), module.vk_householder.detach().clone()
    if back:
        return [_fixed(matrix.mT), of_reflections(vectors.flip(0))]
    return [of_reflections(vectors), _fixed(matrix)]


def _fixed(matrix: Tensor) -> Part:
    """Returns a matrix that is not trained: a reordering if it is one."""
    if ((matrix == 0) | (matrix == 1)).all():
        return Reordering(tuple(matrix.argmax(1).tolist()))
    return dense(matrix, trained=False)


def _clamp(module: Any) -> str:  # noqa: ANN401
    raw = torch.linspace(-8, 8, 65, dtype=torch.float64)
    for name, (function, _, _) in CURVES.items():
        if torch.allclose(module.f_clamp(raw), function(raw), rtol=1e-14, atol=1e-15):
            return name
    raise Refused("it bounds its log-scales by a function of its own")


def _scaling(
    module: Any,  # noqa: ANN401
    network: Network,
    partition: Partition,
) -> Coupling:
    """Returns a coupling whose network answers raw log-scales and shifts."""
    changed, name = len(partition.changed), _clamp(module)
    _, curve, height = CURVES[name]
    factors = torch.ones(2 * changed, dtype=torch.float64)
    factors[:changed] = float(module.clamp) * STEEPNESS[name]
    network = outputs_of(network, 2 * changed).with_answers(range(2 * changed), factors)
    return Coupling(partition, network, curve, float(module.clamp) * height)


def _halves(module: Any) -> tuple[Partition, Partition]:  # noqa: ANN401
    """Returns what the two couplings of a block keep and change: first the second half is kept."""
    first, features = module.split_len1, module.channels
    if not 0 < first < features:
        raise Refused("it leaves a coupling nothing to read")
    keeps_first = Partition(features, tuple(range(first)))
    return keeps_first.swapped(), keeps_first


def _glow(module: Any) -> list[Part]:  # noqa: ANN401
    one, two = _halves(module)
    width = _condition(module)
    return [
        _scaling(module, read(net, len(partition.kept), context=width), partition)
        for net, partition in ((module.subnet2, one), (module.subnet1, two))
    ]


def _real_nvp(module: Any) -> list[Part]:  # noqa: ANN401
    one, two = _halves(module)
    width, found = _condition(module), []
    for scales, shifts, partition in (
        (module.subnet_s2, module.subnet_t2, one),
        (module.subnet_s1, module.subnet_t1, two),
    ):
        kept = len(partition.kept)
        network = beside(read(scales, kept, context=width), read(shifts, kept, context=width))
        found.append(_scaling(module, network, partition))
    return found


def _nice(module: Any) -> list[Part]:  # noqa: ANN401
    one, two = _halves(module)
    width = _condition(module)
    return [
        Coupling(
            partition,
            outputs_of(read(net, len(partition.kept), context=width), len(partition.changed)),
            None,
        )
        for net, partition in ((module.F, one), (module.G, two))
    ]


def _one_sided(module: Any) -> list[Part]:  # noqa: ANN401
    partition = _halves(module)[1]
    network = read(module.subnet, len(partition.kept), context=_condition(module))
    return [_scaling(module, network, partition)]


def _conditional(module: Any) -> list[Part]:  # noqa: ANN401
    network = read(module.subnet, 0, context=_condition(module))
    return [_scaling(module, network, Partition(module.channels, ()))]


def _gin(module: Any) -> list[Part]:  # noqa: ANN401, ARG001
    raise Refused("it subtracts from the log-scales their mean (GIN)")


def _permutation(module: Any) -> list[Part]:  # noqa: ANN401
    return [Reordering(tuple(module.perm.tolist()))]


def _linear(module: Any) -> list[Part]:  # noqa: ANN401
    shift = module.b.detach().flatten() if isinstance(module.b, Tensor) else None
    return [dense(module.M.detach().mT, shift, trained=False)]


def _convolution(module: Any) -> list[Part]:  # noqa: ANN401
    matrix = module.M.detach().flatten(1)
    part = convolution(dense(matrix))
    return [type(part)(lambda: part.make().requires_grad_(False))]


def _act_norm(module: Any) -> list[Part]:  # noqa: ANN401
    if module.init_on_next_batch:
        raise Refused("it has not seen its first batch, so that it is no function yet")
    return [Scaling(module.scale.detach().flatten().clone(), module.bias.detach().flatten())]


def _orthogonal(module: Any) -> list[Part]:  # noqa: ANN401
    log_scale = module._log_e(module.scaling).detach().flatten()
    shift = module.bias.detach().flatten() * log_scale.exp()
    return [rotation(module.weights.detach().mT), Scaling(log_scale, shift)]


def _householder(module: Any) -> list[Part]:  # noqa: ANN401
    if module.conditional:
        raise Refused("its reflections are read from a condition")
    if module.fixed:
        return [dense(module.W.detach().mT, trained=False)]
    return [of_reflections(module.Vs.detach().flip(0))]


KNOWN = {
    f"{HOME}.all_in_one_block.AllInOneBlock": _all_in_one,
    f"{HOME}.coupling_layers.GLOWCouplingBlock": _glow,
    f"{HOME}.coupling_layers.RNVPCouplingBlock": _real_nvp,
    f"{HOME}.coupling_layers.NICECouplingBlock": _nice,
    f"{HOME}.coupling_layers.AffineCouplingOneSided": _one_sided,
    f"{HOME}.coupling_layers.ConditionalAffineTransform": _conditional,
    f"{HOME}.coupling_layers.GINCouplingBlock": _gin,
    f"{HOME}.fixed_transforms.PermuteRandom": _permutation,
    f"{HOME}.fixed_transforms.FixedLinearTransform": _linear,
    f"{HOME}.fixed_transforms.Fixed1x1Conv": _convolution,
    f"{HOME}.invertible_resnet.ActNorm": _act_norm,
    f"{HOME}.orthogonal.OrthogonalTransform": _orthogonal,
    f"{HOME}.orthogonal.HouseholderPerm": _householder,
}
