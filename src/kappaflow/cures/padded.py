"""A trained flow of couplings with more room: Gaussian padding that it does not use yet."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from kappaflow._checks import positive_int
from kappaflow.bijection import Bijection, Chain
from kappaflow.bijections import AdditiveCoupling, AffineCoupling
from kappaflow.errors import ArgumentError
from kappaflow.flows import Flow
from kappaflow.registry import build, describe
from kappaflow.stack import CouplingStack

RECIPES = ("real_nvp", "nice")
PARTITIONS = ("half", "alternating", "random-half")
Plain = AffineCoupling | AdditiveCoupling
DEFAULTS = {"padding": None, "start": "identity", "mixing": None}


@torch.no_grad()
def padded(flow: Flow, features: int | None = None) -> Flow:
    """Returns a flow of the same density with Gaussian padding, which training can make use of.

    Each coupling reads and changes half of the padding too, at first with weights of zero: what
    belongs to the data is what it was, and log_prob with it.

    Args:
        flow: As `real_nvp` or `nice` made it of two features or more, without padding, linear maps
            between its couplings, a whitening start or random permutations.
        features: How many are added; as many as there are if left out.

    Returns:
        The flow.

    Raises:
        ArgumentError: It is another flow, or `features` is not a whole number above 0.

    Example:
        >>> import kappaflow as kf
        >>> flow = kf.real_nvp(2, depth=2, hidden=(8,))
        >>> x = torch.ones(3, 2)
        >>> torch.allclose(padded(flow).log_prob(x), flow.log_prob(x))
        True
    """
    described = _checked(flow)
    added = flow.joint_shape[0] if features is None else positive_int("features", features)
    with torch.random.fork_rng(devices=[]):
        wide = build({**described, "arguments": {**described["arguments"], "padding": added}})
    wide.to(flow.dtype)
    outer, inner = _chain(wide), _chain(flow)
    if outer.embedding is not None and inner.embedding is not None:
        outer.embedding.load_state_dict(inner.embedding.state_dict())
    for new, old in zip(outer, inner, strict=True):
        if isinstance(new, CouplingStack) and isinstance(old, CouplingStack):
            # What is written into the weights of its plain couplings is written into a stack.
            for coupling, own in zip(_couplings(new), _couplings(old), strict=True):
                _widen(coupling, own)
        else:
            _take(new, old)
    return wide.to(flow.device).train(flow.training)


def _widen(new: Plain, old: Plain) -> None:
    """Makes a coupling of data and padding the one of the data alone."""
    wide, narrow = _linear_layers(new), _linear_layers(old)
    for tensor in (wide[0].weight, wide[-1].weight, wide[-1].bias):
        tensor.zero_()
    for layer, own in zip(wide[1:-1], narrow[1:-1], strict=True):
        layer.weight.copy_(own.weight)
        layer.bias.copy_(own.bias)
    wide[0].bias.copy_(narrow[0].bias)
    kept = len(old.partition.kept)
    wide[0].weight[:, :kept] = narrow[0].weight[:, :kept]
    wide[0].weight[:, len(new.partition.kept) :] = narrow[0].weight[:, kept:]  # of a context
    parts = new.parameters_per_feature
    for name in ("weight", "bias"):
        tensor, own = (getattr(layers[-1], name) for layers in (wide, narrow))
        for part, of_data in zip(tensor.chunk(parts), own.chunk(parts), strict=True):
            part[: len(of_data)] = of_data


def _linear_layers(coupling: Plain) -> list[nn.Linear]:
    return [layer for layer in coupling.conditioner.modules() if isinstance(layer, nn.Linear)]


def _take(new: Bijection, old: Bijection) -> None:
    """Gives a map of single features the numbers of the data's, the padding keeps its own."""
    there = new.state_dict()
    for name, tensor in old.state_dict().items():
        own = there[name][: len(tensor)] if tensor.dim() else there[name]
        own.copy_(tensor)


def _checked(flow: Flow) -> dict[str, Any]:
    """Returns the description of a flow that can be padded."""
    said = describe(flow)
    arguments = said["arguments"]
    if said["name"] not in RECIPES:
        by_hand = said["name"] == "Flow"
        raise ArgumentError(
            "'flow' should be as real_nvp or nice made it to be padded, this one was "
            f"{'put together from its layers' if by_hand else 'made by ' + said['name']}."
        )
    plain = all(arguments.get(name, value) == value for name, value in DEFAULTS.items())
    if not plain or arguments["partition"] not in PARTITIONS or flow.joint_shape[0] == 1:
        raise ArgumentError(
            "'flow' should have two features or more, and no padding, linear maps, whitening "
            "start or random permutations, to be padded."
        )
    return said


def _chain(flow: Flow) -> Chain:
    return flow.bijection if isinstance(flow.bijection, Chain) else Chain([flow.bijection])


def _couplings(stack: CouplingStack) -> Iterator[Plain]:
    return (part for part in stack.plain() if isinstance(part, Plain))
