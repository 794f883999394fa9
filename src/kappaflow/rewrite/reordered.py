"""Couplings of reordered features: the same function, with the features at other positions.

`Plan` reorders the couplings of a flow with `reordered`, so that all use one partition.
"""

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from kappaflow.bijections import AdditiveCoupling, AffineCoupling
from kappaflow.nets import MLP
from kappaflow.nets.linearized import is_plain
from kappaflow.partition import Partition
from kappaflow.registry import register

AnyCoupling = AffineCoupling | AdditiveCoupling


def reordered(coupling: AnyCoupling, order: Sequence[int], *, partition: Partition) -> AnyCoupling:
    """Returns a coupling of y = x[order] that equals a coupling of x.

    The new partition keeps the same features, at new positions. A conditioner other than a plain
    `MLP` is wrapped.
    """
    inputs = _new_numbers(order, coupling.partition.kept, partition.kept)
    changed = _new_numbers(order, coupling.partition.changed, partition.changed)
    width = len(changed)
    outputs = [i * width + j for i in range(coupling.parameters_per_feature) for j in changed]
    network = _reordered_network(coupling.conditioner, inputs, outputs)
    settings: dict[str, Any] = {"context_features": coupling.context_features}
    if isinstance(coupling, AffineCoupling):
        settings["scale_bound"] = coupling.scale_bound
        settings["scale"] = coupling.scale
    return type(coupling)(partition, network, **settings)


@register("ReorderedNetwork")
class ReorderedNetwork(nn.Module):
    """Wraps a conditioner to reorder its inputs and outputs.

    `inputs` and `outputs` hold the new position of each input and output of the network.
    """

    def __init__(self, network: nn.Module, inputs: Sequence[int], outputs: Sequence[int]) -> None:
        super().__init__()
        self.network = network
        self.inputs: Tensor
        self.outputs: Tensor
        self.register_buffer("inputs", torch.as_tensor(inputs))
        self.register_buffer("outputs", torch.as_tensor(outputs).argsort())

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Returns the output of the network, in the new order."""
        x = x.index_select(1, self.inputs)
        answer = self.network(x) if context is None else self.network(x, context)
        return answer.index_select(1, self.outputs)


def _new_numbers(
    order: Sequence[int], features: Sequence[int], positions: Sequence[int]
) -> list[int]:
    """Returns the position of each feature, as an index into the list of new positions."""
    number = {order[position]: i for i, position in enumerate(positions)}
    return [number[feature] for feature in features]


def _reordered_network(
    network: nn.Module, inputs: Sequence[int], outputs: Sequence[int]
) -> nn.Module:
    """Returns a copy that reads and writes the new positions: its weights permuted, or wrapped."""
    if inputs == sorted(inputs) and outputs == sorted(outputs):
        return copy.deepcopy(network)
    if not (is_plain(network) and _only_first_layer_reads(network)):
        return ReorderedNetwork(copy.deepcopy(network), inputs, outputs)
    permuted = copy.deepcopy(network)
    state = permuted.state_dict()
    first, last = "layers.0.weight", f"layers.{len(permuted.layers) - 1}"
    state[first][:, list(inputs)] = state[first][:, : len(inputs)].clone()
    for name in (f"{last}.weight", f"{last}.bias"):
        state[name][list(outputs)] = state[name].clone()
    return permuted


def _only_first_layer_reads(network: MLP) -> bool:
    """Returns whether no residual connection adds the input to the first hidden layer."""
    state = network.state_dict()
    rows, columns = state["layers.0.weight"].shape
    return not (network.residual and rows == columns)
