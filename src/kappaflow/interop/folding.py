"""Folds scales and shifts between couplings into the couplings' networks, for `convert`.

Couplings without anything between them run as one stack. Let A be a scaling after a coupling C: A
maps z_i to d_i z_i + e_i, and C maps x_2 to x_2 e^s + t, where its network reads x_1. Then A after
C equals C' after A': A' multiplies all features by d and adds e to x_1 only; the network of C'
undoes A' on its inputs, and its shifts are d_2 t + e_2. Scalings so move to the data, where one is
left. Source: ours.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from kappaflow.interop.blueprint import (
    CouplingPart,
    FlowPart,
    NetworkWeights,
    ReorderingPart,
    ScalingPart,
)

MAX_LOG_SCALE = 30.0  # largest log-scale that is folded into networks


def fold_scalings(parts: Sequence[FlowPart]) -> list[FlowPart]:
    """Returns parts of the same function with at most one scaling, before all others."""
    folded: list[FlowPart] = []
    pending: ScalingPart | None = None
    for part in reversed(parts):
        if isinstance(part, ScalingPart):
            pending = part if pending is None else _compose(part, pending)
            continue
        if pending is None:
            folded.append(part)
        elif pending.log_scale.abs().max() > MAX_LOG_SCALE:
            folded += [pending, part]
            pending = None
        elif isinstance(part, ReorderingPart):
            index = torch.as_tensor(part.inverse().index)
            pending = ScalingPart(pending.log_scale[index], pending.shift[index])
            folded.append(part)
        elif isinstance(part, CouplingPart):
            pending, part = _move_before(part, pending)
            folded.append(part)
    if pending is not None:
        folded.append(pending)
    return folded[::-1]


def _compose(first: ScalingPart, second: ScalingPart) -> ScalingPart:
    """Returns `second` after `first` as one scaling."""
    by = second.log_scale.double()
    return ScalingPart(
        first.log_scale.double() + by,
        first.shift.double() * by.exp() + second.shift.double(),
    )


def _move_before(coupling: CouplingPart, scaling: ScalingPart) -> tuple[ScalingPart, CouplingPart]:
    """Returns the scaling A' and the coupling C' with C' after A' equal to A after C."""
    kept = torch.as_tensor(coupling.partition.kept, dtype=torch.long)
    changed = torch.as_tensor(coupling.partition.changed, dtype=torch.long)
    log_scale, shift = scaling.log_scale.double(), scaling.shift.double()
    network = _undo_on_inputs(coupling.network, log_scale[kept], shift[kept])
    raw = network.outputs - len(changed)
    factors = torch.cat((log_scale.new_ones(raw), log_scale[changed].exp()))
    weight, bias = network.weights[-1].double(), network.biases[-1].double()
    bias = bias * factors + torch.cat((log_scale.new_zeros(raw), shift[changed]))
    last = network.weights[-1]
    network = network.replace_last((weight * factors[:, None]).to(last), bias.to(last))
    shift = shift.clone()
    shift[changed] = 0
    return ScalingPart(log_scale, shift), replace(coupling, network=network)


def _undo_on_inputs(network: NetworkWeights, log_scale: Tensor, shift: Tensor) -> NetworkWeights:
    """Returns the network that computes from d x + e what this one computes from x."""
    weight, bias = network.weights[0].double().clone(), network.biases[0].double()
    inputs = network.inputs
    weight[:, :inputs] = weight[:, :inputs] * (-log_scale).exp()
    bias = bias - weight[:, :inputs] @ shift
    like = network.weights[0]
    return network.replace_first(weight.to(like), bias.to(like))
