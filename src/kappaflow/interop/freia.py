"""Networks of FrEIA for `wrap` and `convert`, from data to latent, with a standard normal base."""

import math
from collections.abc import Callable, Collection, Sequence
from typing import Any

import torch
from torch import Tensor

from kappaflow.errors import ArgumentError
from kappaflow.flows import StandardNormal
from kappaflow.foreign.layers import ForeignLayer, Parts
from kappaflow.interop.blueprint import (
    Blueprint,
    CouplingPart,
    FlowPart,
    NetworkWeights,
    ReorderingPart,
    ScalingPart,
    Unsupported,
)
from kappaflow.interop.layers import Converters, Layers, dense, full_names
from kappaflow.interop.networks import check_outputs, concatenated, read_network
from kappaflow.partition import Partition

Shapes = Sequence[Sequence[int]]
HOME = "FrEIA.modules"
SEQUENCE = "FrEIA.framework.sequence_inn.SequenceINN"
GRAPH = "FrEIA.framework.graph_inn.GraphINN"
MANY_CONDITIONS = "it reads more than one condition"
CURVES: dict[str, tuple[Callable[[Tensor], Tensor], str, float]] = {
    # FrEIA's clamp function, kappaflow's curve, and the bound of the curve for a clamp of 1.
    "ATAN": (lambda u: 0.636 * torch.atan(u), "atan", 0.636 * torch.pi / 2),
    "TANH": (torch.tanh, "tanh", 1.0),
    "SIGMOID": (lambda u: 2 * (torch.sigmoid(u) - 0.5), "tanh", 1.0),
}
STEEPNESS = {"ATAN": 0.636, "TANH": 1.0, "SIGMOID": 0.5}


def parts_of(flow: Any, x: Tensor | None, context: Tensor | None) -> Parts:
    """Returns the modules of a SequenceINN, or a GraphINN as one layer."""
    width = 0 if context is None else context.shape[1]
    if hasattr(flow, "conditions") and hasattr(flow, "shapes"):
        layers = [
            _layer(module, flow.shapes[i : i + 2], flow.conditions[i] is not None, width)
            for i, module in enumerate(flow.module_list)
        ]
        latent = tuple(flow.shapes[-1])
    else:
        layers = [_graph_layer(flow, width)]
        latent = layers[0].latent_event_shape
    return Parts("FrEIA", layers, StandardNormal(latent), flow)


def _layer(module: Any, shapes: Shapes, conditional: bool, width: int) -> ForeignLayer:
    def call(value: Tensor, context: Tensor | None, rev: bool) -> tuple[Tensor, Any]:
        condition = {"c": [context]} if conditional else {}
        output, log_det = module((value,), rev=rev, jac=True, **condition)
        return output[0], log_det

    return ForeignLayer(
        type(module).__name__,
        lambda value, context: call(value, context, False),
        lambda value, context: call(value, context, True),
        (shapes[0], shapes[1]),
        width if conditional else 0,
    )


def _graph_layer(flow: Any, width: int) -> ForeignLayer:
    """Returns a graph as one layer; several inputs or outputs are joined into one row."""
    both = flow.dims_in, flow.global_out_shapes
    sides = [[tuple(shape) for shape in shapes] for shapes in both]
    shapes = [side[0] if len(side) == 1 else (sum(map(math.prod, side)),) for side in sides]

    def call(value: Tensor, context: Tensor | None, rev: bool) -> tuple[Tensor, Any]:
        condition = None if context is None else [context]
        output, log_det = flow(_split(value, sides[rev]), c=condition, rev=rev, jac=True)
        return _joined(output), log_det

    return ForeignLayer(
        type(flow).__name__,
        lambda value, context: call(value, context, False),
        lambda value, context: call(value, context, True),
        (shapes[0], shapes[1]),
        width,
    )


def _split(value: Tensor, shapes: list[tuple[int, ...]]) -> tuple[Tensor, ...]:
    if len(shapes) == 1:
        return (value,)
    parts = value.split([math.prod(shape) for shape in shapes], 1)
    return tuple(part.reshape(-1, *shape) for part, shape in zip(parts, shapes, strict=True))


def _joined(outputs: Any) -> Tensor:
    if isinstance(outputs, Tensor):
        return outputs
    if len(outputs) == 1:
        return outputs[0]
    return torch.cat([output.flatten(1) for output in outputs], 1)


def blueprint_of(flow: Any, converters: Converters) -> Blueprint:
    """Returns the blueprint of a network of FrEIA."""
    names = full_names(flow)
    if SEQUENCE not in names and GRAPH not in names:
        raise ArgumentError(
            f"'flow' should be a SequenceINN or GraphINN of FrEIA, got {type(flow).__name__}."
        )
    layers = Layers(KNOWN, converters)
    modules, latent = (_sequence_modules if SEQUENCE in names else _graph_modules)(flow, layers)
    parts = [part for module in modules for part in layers.convert(module)]
    layers.raise_if_unsupported("FrEIA")
    like = next((p for p in flow.parameters() if p.is_floating_point()), torch.zeros(()))
    return Blueprint(parts, latent, like)


def _sequence_modules(flow: Any, layers: Layers) -> tuple[list[Any], tuple[int, ...]]:
    _check_conditions(flow, set(flow.conditions) - {None}, layers)
    return list(flow.module_list), tuple(flow.shapes[-1])


def _graph_modules(flow: Any, layers: Layers) -> tuple[list[Any], tuple[int, ...]]:
    """Returns the modules of a graph without branches."""
    _check_conditions(flow, flow.condition_nodes, layers)
    latent = tuple(tuple(shape) for shape in flow.global_out_shapes)
    special = [*flow.in_nodes, *flow.out_nodes, *flow.condition_nodes]
    nodes = [node for node in flow.node_list if node not in special]
    is_sequence = all(len(node.inputs) == len(node.outputs) == 1 for node in nodes)
    if not is_sequence or len(flow.in_nodes) != 1 or len(latent) != 1:
        layers.unsupported.append((type(flow).__name__, "it is a graph with branches"))
        return [], ()
    return [node.module for node in nodes], latent[0]


def _check_conditions(flow: Any, conditions: Collection[object], layers: Layers) -> None:
    if len(conditions) > 1:
        layers.unsupported.append((type(flow).__name__, MANY_CONDITIONS))


def _condition(module: Any) -> int:
    """Returns the width of a module's condition, which must be a vector; 0 for none."""
    width = sum(shape[0] for shape in module.dims_c)
    if len(module.dims_c) > 1:
        raise Unsupported(MANY_CONDITIONS)
    if width and len(module.dims_c[0]) != 1:
        raise Unsupported("it reads a condition that is an image")
    return width


def _all_in_one(module: Any) -> list[FlowPart]:
    if module.GIN:
        raise Unsupported("it subtracts the mean from its log-scales (GIN)")
    kept, changed = module.splits
    features = kept + changed
    network = read_network(module.subnet, kept, context=_condition(module))
    factors = torch.full((2 * changed,), 0.1, dtype=torch.float64)
    factors[:changed] *= float(module.clamp)
    network = check_outputs(network, 2 * changed).select_outputs(range(2 * changed), factors)
    coupling = CouplingPart(Partition(features, tuple(range(kept))), network, "tanh", module.clamp)
    scale = module.global_scale_activation(module.global_scale).detach().flatten()
    affine = ScalingPart(scale.log(), module.global_offset.detach().flatten().clone())
    rotation = module._construct_householder_permutation() if module.householder else module.w_perm
    matrix = rotation.detach().reshape(features, -1)
    before = [_rotation(module, matrix.mT)] if module.reverse_pre_permute else []
    return [*before, coupling, affine, _rotation(module, matrix)]


def _rotation(module: Any, matrix: Tensor) -> FlowPart:
    """Returns the matrix at an end of a block, as a reordering if it is a permutation."""
    if ((matrix == 0) | (matrix == 1)).all():
        return ReorderingPart(tuple(matrix.argmax(1).tolist()))
    return dense(matrix, trained=bool(module.householder))


def _clamp(module: Any) -> str:
    raw = torch.linspace(-8, 8, 65, dtype=torch.float64)
    for name, (function, _, _) in CURVES.items():
        if torch.allclose(module.f_clamp(raw), function(raw), rtol=1e-14, atol=1e-15):
            return name
    raise Unsupported("it bounds its log-scales by a custom function")


def _scaling(module: Any, network: NetworkWeights, partition: Partition) -> CouplingPart:
    """Returns a coupling whose network outputs raw log-scales and shifts."""
    changed, name = len(partition.changed), _clamp(module)
    _, curve, height = CURVES[name]
    factors = torch.ones(2 * changed, dtype=torch.float64)
    factors[:changed] = float(module.clamp) * STEEPNESS[name]
    network = check_outputs(network, 2 * changed).select_outputs(range(2 * changed), factors)
    return CouplingPart(partition, network, curve, float(module.clamp) * height)


def _halves(module: Any) -> tuple[Partition, Partition]:
    """Returns the partitions of the two couplings of a block: the first keeps the second half."""
    first, features = module.split_len1, module.channels
    if not 0 < first < features:
        raise Unsupported("one of its couplings has no features to read")
    keeps_first = Partition(features, tuple(range(first)))
    return keeps_first.swapped(), keeps_first


def _two_sided(module: Any, networks: Sequence[Sequence[Any]]) -> list[FlowPart]:
    """Returns both couplings of a block, of one network each or of two: scales and shifts."""
    width, couplings = _condition(module), []
    for nets, partition in zip(networks, _halves(module), strict=True):
        first, *rest = (read_network(net, len(partition.kept), context=width) for net in nets)
        network = concatenated(first, *rest) if rest else first
        couplings.append(_scaling(module, network, partition))
    return couplings


def _nice(module: Any) -> list[FlowPart]:
    couplings = []
    for net, partition in zip((module.F, module.G), _halves(module), strict=True):
        network = read_network(net, len(partition.kept), context=_condition(module))
        network = check_outputs(network, len(partition.changed))
        couplings.append(CouplingPart(partition, network, None))
    return couplings


def _one_sided(module: Any) -> list[FlowPart]:
    partition = _halves(module)[1]
    network = read_network(module.subnet, len(partition.kept), context=_condition(module))
    return [_scaling(module, network, partition)]


def _conditional(module: Any) -> list[FlowPart]:
    network = read_network(module.subnet, 0, context=_condition(module))
    return [_scaling(module, network, Partition(module.channels, ()))]


def _permutation(module: Any) -> list[FlowPart]:
    return [ReorderingPart(tuple(module.perm.tolist()))]


def _linear(module: Any) -> list[FlowPart]:
    shift = module.b.detach().flatten() if isinstance(module.b, Tensor) else None
    return [dense(module.M.detach().mT, shift, trained=False)]


def _act_norm(module: Any) -> list[FlowPart]:
    if module.init_on_next_batch:
        raise Unsupported("it is not initialized: it waits for its first batch")
    return [ScalingPart(module.scale.detach().flatten().clone(), module.bias.detach().flatten())]


KNOWN = {
    f"{HOME}.all_in_one_block.AllInOneBlock": _all_in_one,
    f"{HOME}.coupling_layers.GLOWCouplingBlock": lambda module: _two_sided(
        module, [[module.subnet2], [module.subnet1]]
    ),
    f"{HOME}.coupling_layers.RNVPCouplingBlock": lambda module: _two_sided(
        module, [[module.subnet_s2, module.subnet_t2], [module.subnet_s1, module.subnet_t1]]
    ),
    f"{HOME}.coupling_layers.NICECouplingBlock": _nice,
    f"{HOME}.coupling_layers.AffineCouplingOneSided": _one_sided,
    f"{HOME}.coupling_layers.ConditionalAffineTransform": _conditional,
    f"{HOME}.fixed_transforms.PermuteRandom": _permutation,
    f"{HOME}.fixed_transforms.FixedLinearTransform": _linear,
    f"{HOME}.invertible_resnet.ActNorm": _act_norm,
}
