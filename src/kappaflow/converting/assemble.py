"""Bijections and stacks from what was read."""

from collections.abc import Iterator, Sequence
from itertools import groupby

import torch
from torch import Tensor, nn

from kappaflow.bijection import Bijection, Chain, Inverse
from kappaflow.bijections import (
    AdditiveCoupling,
    AffineCoupling,
    ElementwiseAffine,
    Permutation,
)
from kappaflow.converting.fold import folded
from kappaflow.converting.plan import (
    Coupling,
    Network,
    Other,
    Part,
    Plan,
    Reordering,
    Scaling,
    inverse_of,
)
from kappaflow.flows import Flow, StandardNormal
from kappaflow.nets import MLP, ConvNet, PairedMLP, ResidualMLP
from kappaflow.stack import CouplingStack


def flow_of(plan: Plan) -> Flow:
    """Returns the flow of a plan."""
    made = assembled(plan.parts)
    settings = {}
    if plan.embedding is not None:
        settings["embedding"] = network_of(plan.embedding, 0)
        settings["context_features"] = plan.embedding.inputs
    flow = Flow(StandardNormal(plan.latent_shape), Chain(made, **settings))
    return flow.to(plan.like.device, plan.like.dtype)


def assembled(parts: Sequence[Part]) -> list[Bijection]:
    """Returns bijections from data to latent, couplings in stacks where they fit into one."""
    found: list[Bijection] = []
    for run in _runs(parts):
        backwards = any(isinstance(part, Coupling) and part.backwards for part in run)
        if isinstance(run[0], Other):
            found.append(_other(run[0]))
        elif backwards:
            found += [_inverted(one) for one in reversed(_run(inverse_of(run)))]
        else:
            found += _run(run)
    return found


def _runs(parts: Sequence[Part]) -> Iterator[list[Part]]:
    """Yields runs of parts of which couplings have one direction, and other parts alone."""
    run: list[Part] = []
    direction: bool | None = None
    for part in parts:
        own = part.backwards if isinstance(part, Coupling) else None
        ends = isinstance(part, Other) or (None not in (own, direction) and own != direction)
        if ends and run:
            yield run
            run, direction = [], None
        if isinstance(part, Other):
            yield [part]
            continue
        run.append(part)
        direction = direction if own is None else own
    if run:
        yield run


def _run(run: Sequence[Part]) -> list[Bijection]:
    """Returns the bijections of couplings, scalings and reorderings."""
    if all(not isinstance(p, Coupling) or not p.network.convolves for p in run):
        run = folded(run)
    made = [_made(part) for part in _one_reordering(run)]
    found: list[Bijection] = []
    for stacks, group in groupby(made, _stacks):
        parts = list(group)
        found += _stacked(parts) if stacks else parts
    return found


def _one_reordering(run: Sequence[Part]) -> list[Part]:
    """Returns the parts with reorderings that follow each other joined, and idle ones left out."""
    found: list[Part] = []
    for part in run:
        before = found[-1] if found else None
        if isinstance(part, Reordering) and isinstance(before, Reordering):
            found[-1] = part = Reordering(tuple(before.index[i] for i in part.index))
        else:
            found.append(part)
        if isinstance(part, Reordering) and part.index == tuple(range(len(part.index))):
            found.pop()
    return found


def _stacks(part: Bijection) -> bool:
    if isinstance(part, Permutation):
        return True
    if not isinstance(part, AffineCoupling | AdditiveCoupling):
        return False
    net = part.conditioner
    gated = isinstance(net, ResidualMLP) and net.gates is not None
    stackable = isinstance(net, MLP | ResidualMLP | PairedMLP)
    return stackable and net.activation == "relu" and not gated


def _stacked(parts: list[Bijection]) -> list[Bijection]:
    """Returns stacks of couplings of one shape, with the permutations in front of each."""
    found: list[Bijection] = []
    waiting: list[Bijection] = []
    run: list[Bijection] = []
    shape: object = None
    for part in parts:
        if isinstance(part, Permutation):
            waiting.append(part)
            continue
        if run and _shape(part) != shape:
            found.append(CouplingStack.of(run))
            run = []
        run += [*waiting, part]
        waiting, shape = [], _shape(part)
    if run:
        found.append(CouplingStack.of(run))
    return found + waiting


def _shape(part: Bijection) -> tuple[object, ...]:
    """Returns what couplings of one stack have in common."""
    net = part.conditioner
    hidden = tuple(layer.out_features for layer in net.layers[:-1])  # pyright: ignore
    bound = (part.scale, part.scale_bound) if isinstance(part, AffineCoupling) else None
    return type(part), type(net), hidden, part.context_features, bound


def _made(part: Part) -> Bijection:
    if isinstance(part, Reordering):
        return Permutation(part.index)
    if isinstance(part, Scaling):
        made = ElementwiseAffine(len(part.shift)).to(part.shift)
        made.load_state_dict({"log_scale": part.log_scale, "shift": part.shift})
        return made
    if isinstance(part, Other):
        return _other(part)
    return _coupling(part)


def _other(part: Other) -> Bijection:
    made = part.make()
    return _inverted(made) if part.backwards else made


def _inverted(part: Bijection) -> Bijection:
    if isinstance(part, Inverse):
        return part.bijection
    if isinstance(part, Permutation):
        return Permutation(part.index.argsort())
    if isinstance(part, ElementwiseAffine):
        return _made(Scaling(part.log_scale.detach(), part.shift.detach()).inverse())
    return Inverse(part)


def _coupling(part: Coupling) -> Bijection:
    net = network_of(part.network, part.network.context_features)
    context = part.network.context_features
    memory = "store" if part.network.convolves else "recompute"
    if part.scale is None:
        return AdditiveCoupling(part.partition, net, context_features=context, memory=memory)
    return AffineCoupling(
        part.partition,
        net,
        scale=part.scale,
        scale_bound=part.bound,
        context_features=context,
        memory=memory,
    )


def network_of(network: Network, context: int) -> nn.Module:
    """Returns a network of ours with a copy of the weights.

    Args:
        network: What was read.
        context: Width of the context.
    """
    like, inputs, outputs = network.weights[0], network.inputs, network.outputs
    if network.convolves:
        made = ConvNet(inputs, outputs, len(like))
        names = ("first.convolution", "middle", "last")
        return _loaded(made, dict(zip(names, _pairs(network), strict=True)))
    settings = {
        "context_features": context,
        "activation": network.activation,
        "slope": network.slope,
    }
    layers = {f"layers.{i}": pair for i, pair in enumerate(_pairs(network))}
    if network.blocks:
        blocks, gated = (len(network.weights) - 2) // 2, bool(network.gates)
        made = ResidualMLP(inputs, outputs, len(like), blocks=blocks, gated=gated, **settings)
        return _loaded(made, layers | {f"gates.{i}": p for i, p in enumerate(network.gates)})
    hidden = [len(weight) for weight in network.weights[:-1]]
    kind = PairedMLP if network.twins else MLP
    return _loaded(kind(inputs, outputs, hidden, **settings), layers)


def _pairs(network: Network) -> list[tuple[Tensor, Tensor]]:
    return list(zip(network.weights, network.biases, strict=True))


@torch.no_grad()
def _loaded(net: nn.Module, pairs: dict[str, tuple[Tensor, Tensor]]) -> nn.Module:
    """Returns the network with these weights and biases, of their type and on their device."""
    net = net.to(next(iter(pairs.values()))[0])
    state = {}
    for name, (weight, bias) in pairs.items():
        state |= {f"{name}.weight": weight.detach(), f"{name}.bias": bias.detach()}
    net.load_state_dict(state)
    return net
