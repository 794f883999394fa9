"""A coupling in coordinates that stand in another order."""

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from kappaflow.bijections import AdditiveCoupling, AffineCoupling
from kappaflow.nets import MLP
from kappaflow.nets.linearized import is_plain
from kappaflow.partition import Partition
from kappaflow.registry import register

AnyCoupling = AffineCoupling | AdditiveCoupling


@register("ReorderedNetwork")
class ReorderedNetwork(nn.Module):
    """A conditioner whose inputs and outputs stand in another order.

    Args:
        network: From (B, inputs), and a context, to (B, outputs).
        inputs: Where each of its inputs stands here.
        outputs: Where each of its outputs stands here.
    """

    def __init__(self, network: nn.Module, inputs: Sequence[int], outputs: Sequence[int]) -> None:
        super().__init__()
        self.network = network
        self.inputs: Tensor
        self.outputs: Tensor
        self.register_buffer("inputs", torch.as_tensor(inputs))
        self.register_buffer("outputs", torch.as_tensor(outputs).argsort())

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Returns the answer for what it reads, in the order of this side."""
        x = x.index_select(1, self.inputs)
        answer = self.network(x) if context is None else self.network(x, context)
        return answer.index_select(1, self.outputs)


def reordered(coupling: AnyCoupling, order: Sequence[int], *, partition: Partition) -> AnyCoupling:
    """Returns the coupling of y = x[order] that a coupling of x is.

    Args:
        coupling: Of x.
        order: Of the features.
        partition: What the new one keeps, the places of what the old one keeps.

    Returns:
        A coupling on the same kind of conditioner; one that is no plain `MLP` is wrapped.
    """
    inputs = _places(order, coupling.partition.kept, partition.kept)
    changed = _places(order, coupling.partition.changed, partition.changed)
    width = len(changed)
    outputs = [i * width + j for i in range(coupling.parameters_per_feature) for j in changed]
    network = _reordered_network(coupling.conditioner, inputs, outputs)
    settings = {"context_features": coupling.context_features, "memory": coupling.memory}
    if isinstance(coupling, AffineCoupling):
        settings["scale_bound"] = coupling.scale_bound
        settings["scale"] = coupling.scale
    return type(coupling)(partition, network, **settings)


def _places(order: Sequence[int], features: Sequence[int], positions: Sequence[int]) -> list[int]:
    """Returns for each of the old features its number among the new positions."""
    number = {order[position]: i for i, position in enumerate(positions)}
    return [number[feature] for feature in features]


def _reordered_network(
    network: nn.Module, inputs: Sequence[int], outputs: Sequence[int]
) -> nn.Module:
    if inputs == sorted(inputs) and outputs == sorted(outputs):
        return copy.deepcopy(network)
    if not (is_plain(network) and _reads_only(network)):
        return ReorderedNetwork(copy.deepcopy(network), inputs, outputs)
    made = copy.deepcopy(network)
    state = made.state_dict()
    first, last = "layers.0.weight", f"layers.{len(made.layers) - 1}"
    state[first][:, list(inputs)] = state[first][:, : len(inputs)].clone()
    for name in (f"{last}.weight", f"{last}.bias"):
        state[name][list(outputs)] = state[name].clone()
    return made


def _reads_only(network: MLP) -> bool:
    """Returns whether what comes in is read by the first layer, and not added to it as well."""
    state = network.state_dict()
    rows, columns = state["layers.0.weight"].shape
    return not (network.residual and rows == columns)
