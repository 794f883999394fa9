"""The ways to a density, which should agree: through the layers, as the library says, by draws."""

from dataclasses import dataclass

import torch
from torch import Tensor

from kappaflow.adapters import Wrapped
from kappaflow.conditioning import layers_of
from kappaflow.flows import Flow

ROUNDED = 4  # units of rounding by which draws are moved, to see what that does


@dataclass(frozen=True)
class Paths:
    """Log-densities (B,) at the points, in nats, by several ways; and at draws.

    Attributes:
        rounding: By how much the densities change when the points are rounded otherwise.
        again: Through the layers a second time.
        in_halves: Through the layers, the batch cut in two; None for a single point.
        mixing: The first layer whose values change when the batch is cut; None if none does.
        own: As the library itself computes it; None where it has none.
        drawn: At draws of the flow, through the layers; None where it says no density with them.
        drawn_said: What came with the draws.
        drawn_rounding: As for the points.
    """

    rounding: Tensor
    again: Tensor
    in_halves: Tensor | None
    mixing: str | None
    own: Tensor | None
    drawn: Tensor | None
    drawn_said: Tensor | None
    drawn_rounding: Tensor | None


def paths_at(flow: Flow, x: Tensor, context: Tensor | None, log_prob: Tensor) -> Paths:
    """Returns the densities by all ways.

    Args:
        flow: In evaluation mode.
        x: Points as its bijection takes them, (B, *event).
        context: (B, C) or None.
        log_prob: At the points, through the layers.

    Returns:
        The ways.
    """
    again = flow.joined_log_prob(x, context)
    in_halves = mixing = None
    if len(x) > 1:
        in_halves = torch.cat([flow.joined_log_prob(*half) for half in _halves(x, context)])
        if differ(in_halves, log_prob):
            mixing = _first_mixing(flow, x, context)
    drawn, said, rounding = _drawn(flow, len(x), context) or (None, None, None)
    own = flow.own_log_prob(x, context) if isinstance(flow, Wrapped) else None
    rounded = _rounding(flow, x, context, log_prob)
    return Paths(rounded, again, in_halves, mixing, own, drawn, said, rounding)


def _halves(x: Tensor, context: Tensor | None) -> list[tuple[Tensor, Tensor | None]]:
    cut = len(x) // 2
    parts = (slice(0, cut), slice(cut, None))
    return [(x[part], None if context is None else context[part]) for part in parts]


def _first_mixing(flow: Flow, x: Tensor, context: Tensor | None) -> str | None:
    """Returns the first layer whose log_det or value is another one for half of the batch."""
    half = len(x) // 2
    state = x
    for layer in layers_of(flow.bijection, context):
        there = None if layer.context is None else layer.context[:half]
        value, log_det = layer.bijection(state, layer.context)
        few, few_log_det = layer.bijection(state[:half], there)
        if differ(value[:half], few) or differ(log_det[:half], few_log_det):
            return layer.name
        state = value
    return None


def differ(a: Tensor, b: Tensor) -> bool:
    """Returns whether two results differ by more than the order in which sums are taken."""
    eps = torch.finfo(a.dtype).eps
    size = 1 + torch.maximum(a.abs(), b.abs()).nan_to_num(0, posinf=0)
    return bool(((a - b).abs().nan_to_num(0) > 1e3 * eps * size).any())


def _drawn(flow: Flow, n: int, context: Tensor | None) -> tuple[Tensor, Tensor, Tensor] | None:
    """Returns densities of draws, what came with these, and what rounding makes of them."""
    generator = torch.Generator().manual_seed(1)
    if isinstance(flow, Wrapped):
        x, said = flow.own_sample(n, context, generator=generator) or (None, None)
        if x is None or said is None:
            return None
    elif flow.augment is None and context is None:
        x, said = flow.sample_and_log_prob(n, generator=generator)
    else:
        return None
    x = x.to(flow.dtype)
    drawn = flow.joined_log_prob(x, context)
    return drawn, said, _rounding(flow, x, context, drawn)


def _rounding(flow: Flow, x: Tensor, context: Tensor | None, log_prob: Tensor) -> Tensor:
    """Returns by how much densities change when the points are moved by a few roundings, (B,)."""
    generator = torch.Generator().manual_seed(0)
    signs = torch.randint(0, 2, x.shape, generator=generator).to(x) * 2 - 1
    moved = x * (1 + ROUNDED * torch.finfo(x.dtype).eps * signs)
    return (flow.joined_log_prob(moved, context) - log_prob).abs()
