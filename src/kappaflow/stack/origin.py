"""Plain couplings, read as the arguments and the state of a stack."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from kappaflow.bijection import Bijection, Chain
from kappaflow.bijections import AdditiveCoupling, AffineCoupling, Permutation
from kappaflow.bijections.coupling import Coupling
from kappaflow.errors import ArgumentError
from kappaflow.nets import MLP, ResidualMLP, TwinMLP

WIRINGS = {MLP: "plain", ResidualMLP: "blocks", TwinMLP: "twins"}
KINDS = {AffineCoupling: "affine", AdditiveCoupling: "additive"}


def origin_of(bijections: Sequence[Bijection]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Returns the arguments of the stack that has the function of plain bijections, and its state.

    Args:
        bijections: Couplings of one kind, with permutations between them.

    Returns:
        Keyword arguments of `CouplingStack`, and its state.

    Raises:
        ArgumentError: They cannot be stacked; the text says which one and why.
    """
    found: list[Coupling] = []
    permutations: list[tuple[int, ...] | None] = []
    waiting: tuple[int, ...] | None = None
    for place, part in enumerate(bijections):
        if type(part) is Permutation and waiting is None:
            waiting = tuple(part.index.tolist())
        elif type(part) in KINDS:
            found.append(part)  # pyright: ignore[reportArgumentType]
            permutations.append(waiting)
            waiting = None
        else:
            raise ArgumentError(
                "'bijections' should be affine or additive couplings with at most one permutation "
                f"in front of each, got {type(part).__name__} at place {place}."
            )
    if waiting is not None or not found:
        raise ArgumentError("'bijections' should hold a coupling, and end with one.")
    arguments = _common(found)
    arguments["partitions"] = [coupling.partition for coupling in found]
    arguments["permutations"] = permutations if any(p is not None for p in permutations) else None
    return arguments, Chain(bijections).state_dict()


def _common(couplings: Sequence[Coupling]) -> dict[str, Any]:
    """Returns what all couplings have in common, or says in what one differs."""
    first, *others = map(_described, couplings)
    for place, other in enumerate(others, start=1):
        for key, value in other.items():
            if value != first[key]:
                raise ArgumentError(
                    f"'bijections' should be alike to be stacked, got {key}={first[key]!r} in "
                    f"coupling 0 and {value!r} in coupling {place}."
                )
    return first


def _described(coupling: Coupling) -> dict[str, Any]:
    net: Any = coupling.conditioner
    if any(part._forward_hooks or part._forward_pre_hooks for part in coupling.modules()):
        raise ArgumentError(
            "'bijections' should have no hooks to be stacked: a stack would not call them."
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
    found: dict[str, Any] = {
        "kind": KINDS[type(coupling)],
        "hidden": tuple(layer.out_features for layer in net.layers[:-1]),  # pyright: ignore[reportAttributeAccessIssue]
        "context_features": coupling.context_features,
        "residual": isinstance(net, MLP) and net.residual,
        "dropout": net.dropout if isinstance(net, MLP) else 0.0,
        "wiring": WIRINGS[type(net)],
    }
    if isinstance(coupling, AffineCoupling):
        found["scale_bound"] = coupling.scale_bound
        found["scale"] = coupling.scale
    return found
