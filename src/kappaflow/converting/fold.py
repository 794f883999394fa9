r"""Scales and shifts between couplings, taken back to the data: couplings then stand in a row.

A map A of each feature behind a coupling C equals a coupling C' behind a map A' of each feature.
With A: :math:`z_i \mapsto d_i z_i + e_i` and C: :math:`z_2 = x_2 e^s + t`, where (s, t) are read
from x_1, A' multiplies by d, and adds e to x_1 alone; C' undoes that where its network reads, and
has the shifts :math:`d_2 t + e_2`. What arrives at the data is one such map of the whole flow.

Source: ours.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from kappaflow.converting.plan import Coupling, Network, Part, Reordering, Scaling

LARGEST = 30.0  # logarithm of the largest factor that is taken into networks


def folded(parts: Sequence[Part]) -> list[Part]:
    """Returns parts with the same function and at most one scaling, in front of all others.

    Where a factor would grow beyond measure, a scaling is left where it is.

    Args:
        parts: Couplings on rows of features, scalings and reorderings.
    """
    found: list[Part] = []
    pending: Scaling | None = None
    for part in reversed(parts):
        if isinstance(part, Scaling):
            pending = part if pending is None else _behind(part, pending)
            continue
        if pending is None:
            found.append(part)
        elif pending.log_scale.abs().max() > LARGEST:
            found += [pending, part]
            pending = None
        elif isinstance(part, Reordering):
            index = torch.as_tensor(part.inverse().index)
            pending = Scaling(pending.log_scale[index], pending.shift[index])
            found.append(part)
        elif isinstance(part, Coupling):
            pending, part = _in_front(part, pending)
            found.append(part)
    if pending is not None:
        found.append(pending)
    return found[::-1]


def _behind(first: Scaling, second: Scaling) -> Scaling:
    """Returns one scaling after another as one."""
    by = second.log_scale.double()
    return Scaling(
        first.log_scale.double() + by,
        first.shift.double() * by.exp() + second.shift.double(),
    )


def _in_front(coupling: Coupling, behind: Scaling) -> tuple[Scaling, Coupling]:
    """Returns the scaling A' and the coupling C' that A after C is."""
    kept = torch.as_tensor(coupling.partition.kept, dtype=torch.long)
    changed = torch.as_tensor(coupling.partition.changed, dtype=torch.long)
    log_scale, shift = behind.log_scale.double(), behind.shift.double()
    network = _reading(coupling.network, log_scale[kept], shift[kept])
    raw = network.outputs - len(changed)
    factors = torch.cat((log_scale.new_ones(raw), log_scale[changed].exp()))
    weight, bias = network.weights[-1].double(), network.biases[-1].double()
    bias = bias * factors + torch.cat((log_scale.new_zeros(raw), shift[changed]))
    last = network.weights[-1]
    network = network.with_last((weight * factors[:, None]).to(last), bias.to(last))
    shift = shift.clone()
    shift[changed] = 0
    return Scaling(log_scale, shift), replace(coupling, network=network)


def _reading(network: Network, log_scale: Tensor, shift: Tensor) -> Network:
    """Returns the network that reads d x + e, where it read x."""
    weight, bias = network.weights[0].double().clone(), network.biases[0].double()
    inputs = network.inputs
    weight[:, :inputs] = weight[:, :inputs] * (-log_scale).exp()
    bias = bias - weight[:, :inputs] @ shift
    like = network.weights[0]
    return network.with_first(weight.to(like), bias.to(like))
