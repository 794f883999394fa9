"""Draws as a flow makes them itself, held against its density and against one another."""

from dataclasses import dataclass
from typing import Any

import torch
from scipy.stats import ks_2samp
from torch import Tensor

from kappaflow.adapters import Wrapped
from kappaflow.conditioning.spectrum import DENSE_UP_TO
from kappaflow.flows import Flow

DRAWS, LARGE_DRAWS = 512, 64  # of flows up to 500 dimensions, and of larger ones
DIRECTIONS = 4
SEEDS = (0x5851F42D4C957F2D, 0x2545F4914F6CDD1D)  # far apart: streams of small seeds are alike
DOUBTED = 1e-3  # a significance below is looked at again with other draws


@dataclass(frozen=True)
class Draws:
    """How the latents of a flow's own draws are distributed, beside draws of its base.

    Attributes:
        number: Of draws.
        distance: The largest Kolmogorov-Smirnov distance of the two, over the base's log_prob and
            over projections on random directions.
        significance: The probability of at least this distance among equal laws, times the number
            of comparisons.
        repeated: The largest difference of draws that one seed makes twice; not finite where
            these have different values that are not finite.
    """

    number: int
    distance: float
    significance: float
    repeated: float


def draws_of(flow: Flow, context: Tensor | None) -> Draws | None:
    """Returns how the flow's own way to draw agrees with its layers and its base.

    A draw that follows the density becomes, on the way to the latent, a draw of the base: this
    needs no histogram, and holds in any dimension.

    Args:
        flow: In evaluation mode.
        context: (B, C) or None; each row is drawn for in its turn.

    Returns:
        What was found; None for a flow that draws nothing itself, and for one with an
        augmentation, whose draws are a part of what its layers take.
    """
    large = flow.base.sample(1, context=None if context is None else context[:1]).numel()
    n = DRAWS if large <= DENSE_UP_TO else LARGE_DRAWS
    if context is not None:
        context = context[torch.arange(n) % len(context)]
    x, again = (_own(flow, n, context, SEEDS[0]) for _ in range(2))
    if x is None or again is None:
        return None
    distance, significance = _law(flow, x, context, SEEDS[0])
    if significance < DOUBTED:  # what is chance does not come twice
        other = _own(flow, n, context, SEEDS[1])
        second = (0.0, 1.0) if other is None else _law(flow, other, context, SEEDS[1])
        distance, significance = min(distance, second[0]), max(significance, second[1])
    same = (x == again) | (x.isnan() & again.isnan())
    off = (x - again).abs().nan_to_num(torch.inf).max().item()
    return Draws(n, distance, significance, 0.0 if bool(same.all()) else off)


def _law(flow: Flow, x: Tensor, context: Tensor | None, seed: int) -> tuple[float, float]:
    """Returns how far the latents of draws are from draws of the base, and how rare that is."""
    z = flow.bijection(x, context)[0]
    generator = torch.Generator().manual_seed(seed + 1)
    base = flow.base.sample(
        len(x),
        context=context,
        dtype=flow.dtype,
        device=flow.device,
        generator=torch.Generator().manual_seed(seed >> 1),
    )
    pairs = [(flow.base.log_prob(z, context), flow.base.log_prob(base, context))]
    if context is None:  # with contexts, whole rows of them are compared by the densities alone
        across = torch.randn(DIRECTIONS, z[0].numel(), generator=generator, dtype=torch.float64)
        there, here = z.flatten(1).cpu().double(), base.flatten(1).cpu().double()
        pairs += [(there @ one, here @ one) for one in across]
    found = [_compared(a, b) for a, b in pairs]
    significance = min(1.0, len(found) * min(one for _, one in found))
    return max(distance for distance, _ in found), significance


def _own(flow: Flow, n: int, context: Tensor | None, seed: int) -> Tensor | None:
    """Returns draws as the flow makes them, the same ones each time, in the type of the flow."""
    generator = torch.Generator().manual_seed(seed)
    if isinstance(flow, Wrapped):
        drawn = flow.own_sample(n, context, generator=generator)
        return None if drawn is None else drawn[0].to(flow.dtype)
    if flow.augment is not None:
        return None
    if context is None:
        return flow.sample(n, generator=generator)
    return flow.sample(1, context, generator=generator)[0]


def _compared(a: Tensor, b: Tensor) -> tuple[float, float]:
    """Returns the Kolmogorov-Smirnov distance of two samples, and how rare it is."""
    found: Any = ks_2samp(a.double().cpu().numpy(), b.double().cpu().numpy())
    return float(found.statistic), float(found.pvalue)
