"""What contexts do: to the density, and to the conditioning."""

from dataclasses import dataclass

import torch
from torch import Tensor

from kappaflow.conditioning.profile import profile_at
from kappaflow.conditioning.spectrum import DENSE_UP_TO
from kappaflow.diagnosis.measures.paths import differ
from kappaflow.flows import Flow

MOST, LARGE = 256, 4  # rows of flows up to 500 dimensions, and of larger ones


@dataclass(frozen=True)
class Contexts:
    """The flow under the contexts of many rows.

    Attributes:
        matters: Whether the density of a point changes with its context.
        differ: Whether any two rows of the context differ.
        condition_number: At each of the rows that were looked at, (R,).
        rows: Which these are, (R,).
    """

    matters: bool
    differ: bool
    condition_number: Tensor
    rows: Tensor


def contexts_of(flow: Flow, x: Tensor, context: Tensor | None) -> Contexts | None:
    """Returns what contexts do at points spread over all rows, None for a flow without any.

    Args:
        flow: In evaluation mode.
        x: Points as its bijection takes them, (B, *event).
        context: (B, C) or None.

    Returns:
        What was found.
    """
    if context is None:
        return None
    most = min(MOST if x[0].numel() <= DENSE_UP_TO else LARGE, len(x))
    rows = torch.linspace(0, len(x) - 1, most).round().long().unique()
    x, context = x[rows], context[rows]
    others = context.roll(1, 0)
    here, there = flow.joined_log_prob(x, context), flow.joined_log_prob(x, others)
    return Contexts(
        differ(here, there),
        bool((context != others).any()),
        profile_at(flow, x, context).condition_number[-1],
        rows,
    )
