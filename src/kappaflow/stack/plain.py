"""Conversion between plain couplings and stacks: modules and arguments."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from kappaflow.bijection import Bijection
from kappaflow.bijections import AdditiveCoupling, AffineCoupling, Permutation
from kappaflow.bijections.coupling import Coupling
from kappaflow.errors import ArgumentError
from kappaflow.nets import MLP, PairedMLP, ResidualMLP
from kappaflow.nets.exact_type import is_exactly
from kappaflow.partition import Partition

PlainCoupling = AffineCoupling | AdditiveCoupling
Network = MLP | ResidualMLP | PairedMLP


def coupling(
    partition: Partition,
    *,
    kind: str,
    hidden: tuple[int, ...],
    scale_bound: float,
    context_features: int,
    residual: bool,
    dropout: float,
    scale: str,
    wiring: str,
) -> PlainCoupling:
    """Returns a new coupling; `CouplingStack` describes the arguments."""
    inputs, changed = len(partition.kept), len(partition.changed)
    outputs = changed * (2 if kind == "affine" else 1)
    if wiring == "blocks":
        net: Network = ResidualMLP(
            inputs,
            outputs,
            hidden[0],
            blocks=(len(hidden) - 1) // 2,
            context_features=context_features,
        )
    elif wiring == "paired":
        net = PairedMLP(inputs, outputs, hidden, context_features=context_features)
    else:
        net = MLP(
            inputs,
            outputs,
            hidden,
            context_features=context_features,
            residual=residual,
            dropout=dropout,
        )
    if kind == "additive":
        return AdditiveCoupling(partition, net, context_features=context_features)
    return AffineCoupling(
        partition,
        net,
        scale_bound=scale_bound,
        context_features=context_features,
        scale=scale,
    )


WIRINGS = {MLP: "plain", ResidualMLP: "blocks", PairedMLP: "paired"}
KINDS = {AffineCoupling: "affine", AdditiveCoupling: "additive"}


def settings_of(bijections: Sequence[Bijection]) -> dict[str, Any]:
    """Returns the arguments of the stack that equals plain couplings."""
    couplings: list[Coupling] = []
    permutations: list[tuple[int, ...] | None] = []
    pending: tuple[int, ...] | None = None
    for position, part in enumerate(bijections):
        if type(part) is Permutation and pending is None:
            pending = tuple(part.index.tolist())
        elif type(part) in KINDS:
            couplings.append(part)  # pyright: ignore[reportArgumentType]
            permutations.append(pending)
            pending = None
        else:
            raise ArgumentError(
                "'bijections' should be affine or additive couplings with at most one permutation "
                f"before each, got {type(part).__name__} at place {position}."
            )
    if pending is not None or not couplings:
        raise ArgumentError("'bijections' should end with a coupling.")
    arguments = _common(couplings)
    arguments["partitions"] = [coupling.partition for coupling in couplings]
    arguments["permutations"] = permutations if any(p is not None for p in permutations) else None
    return arguments


def _common(couplings: Sequence[Coupling]) -> dict[str, Any]:
    """Returns the settings that all couplings share."""
    first, *others = map(_described, couplings)
    for index, other in enumerate(others, start=1):
        for key, value in other.items():
            if value != first[key]:
                raise ArgumentError(
                    f"'bijections' should be alike to be stacked, got {key}={first[key]!r} in "
                    f"coupling 0 and {value!r} in coupling {index}."
                )
    return first


def _described(coupling: Coupling) -> dict[str, Any]:
    net: Any = coupling.conditioner
    if not all(is_exactly(part, type(part)) for part in (coupling, net)):
        raise ArgumentError(
            "'bijections' should have no replaced methods to be stacked: a stack would not call "
            "them."
        )
    if type(net) not in WIRINGS:
        raise ArgumentError(
            f"'bijections' should have MLP conditioners to be stacked, got {type(net).__name__}: "
            "for others, Chain(..., memory=...) has the same memory modes."
        )
    if net.activation != "relu" or (isinstance(net, ResidualMLP) and net.gates is not None):
        what = "gates of the context" if net.activation == "relu" else net.activation
        raise ArgumentError(
            "'bijections' should have conditioners of linear layers and ReLU to be stacked, got "
            f"{what}: for others, Chain(..., memory=...) has the same memory modes."
        )
    if any(type(layer) is not nn.Linear for layer in net.layers):
        raise ArgumentError(
            "'bijections' should have MLP conditioners of plain linear layers to be stacked, got "
            f"{', '.join(type(layer).__name__ for layer in net.layers)}."
        )
    values: dict[str, Any] = {
        "kind": KINDS[type(coupling)],
        "hidden": tuple(layer.out_features for layer in net.layers[:-1]),  # pyright: ignore[reportAttributeAccessIssue]
        "context_features": coupling.context_features,
        "residual": isinstance(net, MLP) and net.residual,
        "dropout": net.dropout if isinstance(net, MLP) else 0.0,
        "wiring": WIRINGS[type(net)],
    }
    if isinstance(coupling, AffineCoupling):
        values["scale_bound"] = coupling.scale_bound
        values["scale"] = coupling.scale
    return values


def check_permutations(
    stack: Any,
    state: dict[str, Any],
    prefix: str,
    _metadata: Any,
    _strict: bool,
    _missing: list[str],
    _unexpected: list[str],
    errors: list[str],
) -> None:
    """Refuses other permutations than those of a stack, whose blocks are made for its own."""
    for position, layer in enumerate(stack):
        name = f"{prefix}bijections.{position}.index"
        if isinstance(layer, Permutation) and name in state:
            if not torch.equal(state[name].cpu(), layer.index.cpu()):
                errors.append(f"{name} differs from the permutation of this stack.")
            state[name] = layer.index
