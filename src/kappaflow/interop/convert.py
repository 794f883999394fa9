"""`convert`: trained coupling flows of other libraries as a `Flow`."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import import_module
from itertools import groupby
from typing import Any

import torch
from torch import Tensor, nn

from kappaflow.bijection import Bijection, Chain, Inverse
from kappaflow.bijections import AdditiveCoupling, AffineCoupling, ElementwiseAffine, Permutation
from kappaflow.errors import ArgumentError, ConversionError
from kappaflow.flows import Flow, StandardNormal
from kappaflow.interop.blueprint import (
    Blueprint,
    CouplingPart,
    FlowPart,
    NetworkWeights,
    OtherPart,
    ReorderingPart,
    ScalingPart,
    inverse_of,
)
from kappaflow.interop.folding import fold_scalings
from kappaflow.interop.layers import is_modified, keeps_methods
from kappaflow.nets import MLP, PairedMLP, ResidualMLP
from kappaflow.stack import CouplingStack

# The file that reads a flow and the methods that define its density, by the package that defines
# its class or one of its bases. No library is imported here.
HOMES = {
    "zuko": ("zuko", ("forward",)),
    "nflows": ("nflows", ("log_prob", "_log_prob")),
    "normflows": ("normflows", ("log_prob",)),
    "FrEIA": ("freia", ("forward",)),
}
CONVERTERS = "'converters' should map classes to functions."


def convert(
    flow: object, *, converters: Mapping[type, Callable[[Any], Bijection]] | None = None
) -> Flow:
    """Returns a `Flow` with the same function as a coupling flow of another library.

    It supports flows of zuko, nflows, normflows and FrEIA that consist of affine or additive
    couplings, permutations, linear maps, and norms in evaluation mode. Weights are copied, and the
    original stays unchanged. The result is a `Flow` like any other: it can be trained, saved,
    measured and rewritten. Couplings of one shape run as stacks, and scales and shifts between
    them are folded into their networks.

    Args:
        flow: The flow. It is read in evaluation mode.
        converters: Converters for your own layers: a function for each class, from the layer to a
            bijection from data to latent.

    Returns:
        The flow, with the dtype, device and mode (training or evaluation) of the original. Its
        base is a standard normal; another mean and deviation become the last map of the bijection.

    Raises:
        ConversionError: Some layers are not supported. All are named, each with the reason.
        ArgumentError: The object is not a flow of these libraries.

    Example:
        >>> import torch, zuko, kappaflow as kf  # doctest: +SKIP
        >>> theirs = zuko.flows.RealNVP(3, transforms=4).double()  # doctest: +SKIP
        >>> ours, x = kf.convert(theirs), torch.randn(5, 3).double()  # doctest: +SKIP
        >>> (ours.log_prob(x) - theirs().log_prob(x)).abs().max() < 1e-12  # doctest: +SKIP
        tensor(True)
    """
    blueprint_of = _reader_of(flow)
    if not isinstance(converters, Mapping | None):
        raise ArgumentError(CONVERTERS)
    functions = dict(converters or {})
    for kind, function in functions.items():
        if not isinstance(kind, type) or not callable(function):
            raise ArgumentError(CONVERTERS)
    with torch.no_grad():
        blueprint = blueprint_of(flow, functions)
    return flow_of(blueprint).train(getattr(flow, "training", False))


def _reader_of(flow: object) -> Callable[[Any, Any], Blueprint]:
    """Returns the function that reads flows of the flow's library."""
    for kind in type(flow).__mro__:
        library = kind.__module__.partition(".")[0]
        if library in HOMES:
            name, methods = HOMES[library]
            if is_modified(flow) or not keeps_methods(flow, kind, methods):
                reason = f"it has hooks, or overrides {methods[0]} of {kind.__name__}"
                raise ConversionError(library, [(type(flow).__name__, reason)])
            return import_module(f"kappaflow.interop.{name}").blueprint_of
    raise ArgumentError(
        f"'flow' should be a flow of {', '.join(HOMES)}, got {type(flow).__name__}: "
        "to measure flows of other libraries, use kappaflow.wrap."
    )


def flow_of(blueprint: Blueprint) -> Flow:
    """Returns the flow that a blueprint describes."""
    bijections = assemble(blueprint.parts)
    settings = {}
    if blueprint.embedding is not None:
        settings["embedding"] = network_of(blueprint.embedding, 0)
        settings["context_features"] = blueprint.embedding.inputs
    flow = Flow(StandardNormal(blueprint.latent_shape), Chain(bijections, **settings))
    return flow.to(blueprint.like.device, blueprint.like.dtype)


def assemble(parts: Sequence[FlowPart]) -> list[Bijection]:
    """Returns the bijections from data to latent, couplings in stacks where possible."""
    bijections: list[Bijection] = []
    for group in _groups(parts):
        inverted = any(isinstance(part, CouplingPart) and part.inverted for part in group)
        if isinstance(group[0], OtherPart):
            bijections.append(_other(group[0]))
        elif inverted:
            bijections += [_inverted(layer) for layer in reversed(_built(inverse_of(group)))]
        else:
            bijections += _built(group)
    return bijections


def _groups(parts: Sequence[FlowPart]) -> Iterator[list[FlowPart]]:
    """Yields consecutive parts whose couplings have one direction, and each `OtherPart` alone."""
    group: list[FlowPart] = []
    direction: bool | None = None
    for part in parts:
        part_direction = part.inverted if isinstance(part, CouplingPart) else None
        ends = isinstance(part, OtherPart) or (
            None not in (part_direction, direction) and part_direction != direction
        )
        if ends and group:
            yield group
            group, direction = [], None
        if isinstance(part, OtherPart):
            yield [part]
            continue
        group.append(part)
        direction = direction if part_direction is None else part_direction
    if group:
        yield group


def _built(parts: Sequence[FlowPart]) -> list[Bijection]:
    """Returns the bijections of couplings, scalings and reorderings."""
    bijections: list[Bijection] = []
    joined = _join_reorderings(fold_scalings(parts))
    for stackable, group in groupby(map(_bijection, joined), _is_stackable):
        built = list(group)
        bijections += _stacked(built) if stackable else built
    return bijections


def _join_reorderings(parts: Sequence[FlowPart]) -> list[FlowPart]:
    """Returns the parts with consecutive reorderings joined and identities removed."""
    joined: list[FlowPart] = []
    for part in parts:
        before = joined[-1] if joined else None
        if isinstance(part, ReorderingPart) and isinstance(before, ReorderingPart):
            joined[-1] = part = ReorderingPart(tuple(before.index[i] for i in part.index))
        else:
            joined.append(part)
        if isinstance(part, ReorderingPart) and part.index == tuple(range(len(part.index))):
            joined.pop()
    return joined


def _is_stackable(part: Bijection) -> bool:
    if isinstance(part, Permutation):
        return True
    if not isinstance(part, AffineCoupling | AdditiveCoupling):
        return False
    net = part.conditioner
    gated = isinstance(net, ResidualMLP) and net.gates is not None
    stackable = isinstance(net, MLP | ResidualMLP | PairedMLP)
    return stackable and net.activation == "relu" and not gated


def _stacked(parts: list[Bijection]) -> list[Bijection]:
    """Returns stacks of couplings of one shape, with the permutations before each coupling."""
    bijections: list[Bijection] = []
    permutations: list[Bijection] = []
    stack: list[Bijection] = []
    shape: object = None
    for part in parts:
        if isinstance(part, Permutation):
            permutations.append(part)
            continue
        if stack and _stack_shape(part) != shape:
            bijections.append(CouplingStack.of(stack))
            stack = []
        stack += [*permutations, part]
        permutations, shape = [], _stack_shape(part)
    if stack:
        bijections.append(CouplingStack.of(stack))
    return bijections + permutations


def _stack_shape(part: Bijection) -> tuple[object, ...]:
    """Returns the properties that all couplings of one stack share."""
    net = part.conditioner
    hidden = tuple(layer.out_features for layer in net.layers[:-1])  # pyright: ignore
    bound = (part.scale, part.scale_bound) if isinstance(part, AffineCoupling) else None
    return type(part), type(net), hidden, part.context_features, bound


def _bijection(part: FlowPart) -> Bijection:
    if isinstance(part, ReorderingPart):
        return Permutation(part.index)
    if isinstance(part, ScalingPart):
        affine = ElementwiseAffine(len(part.shift)).to(part.shift)
        affine.load_state_dict({"log_scale": part.log_scale, "shift": part.shift})
        return affine
    if isinstance(part, OtherPart):
        return _other(part)
    return _coupling(part)


def _other(part: OtherPart) -> Bijection:
    bijection = part.make()
    return _inverted(bijection) if part.inverted else bijection


def _inverted(part: Bijection) -> Bijection:
    if isinstance(part, Inverse):
        return part.bijection
    if isinstance(part, Permutation):
        return Permutation(part.index.argsort())
    if isinstance(part, ElementwiseAffine):
        return _bijection(ScalingPart(part.log_scale.detach(), part.shift.detach()).inverse())
    return Inverse(part)


def _coupling(part: CouplingPart) -> Bijection:
    net = network_of(part.network, part.network.context_features)
    context = part.network.context_features
    if part.scale is None:
        return AdditiveCoupling(part.partition, net, context_features=context)
    return AffineCoupling(
        part.partition,
        net,
        scale=part.scale,
        scale_bound=part.bound,
        context_features=context,
    )


def network_of(network: NetworkWeights, context: int) -> nn.Module:
    """Returns a kappaflow network with a copy of the weights."""
    like, inputs, outputs = network.weights[0], network.inputs, network.outputs
    settings = {
        "context_features": context,
        "activation": network.activation,
        "slope": network.slope,
    }
    pairs = zip(network.weights, network.biases, strict=True)
    layers = {f"layers.{i}": pair for i, pair in enumerate(pairs)}
    if network.blocks:
        blocks, gated = (len(network.weights) - 2) // 2, bool(network.gates)
        net = ResidualMLP(inputs, outputs, len(like), blocks=blocks, gated=gated, **settings)
        return _loaded(net, layers | {f"gates.{i}": p for i, p in enumerate(network.gates)})
    hidden = [len(weight) for weight in network.weights[:-1]]
    kind = PairedMLP if network.paired else MLP
    return _loaded(kind(inputs, outputs, hidden, **settings), layers)


@torch.no_grad()
def _loaded(net: nn.Module, pairs: dict[str, tuple[Tensor, Tensor]]) -> nn.Module:
    """Returns the network with these weights and biases, in their dtype and on their device."""
    net = net.to(next(iter(pairs.values()))[0])
    state = {}
    for name, (weight, bias) in pairs.items():
        state |= {f"{name}.weight": weight.detach(), f"{name}.bias": bias.detach()}
    net.load_state_dict(state)
    return net
