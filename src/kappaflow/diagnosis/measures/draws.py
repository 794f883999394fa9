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
    x, again = (_own(flow, n, context) for _ in range(2))
    if x is None or again is None:
        return None
    x = x.to(flow.dtype)
    z = flow.bijection(x, context)[0]
    base = flow.base.sample(
        n,
        context=context,
        dtype=flow.dtype,
        device=flow.device,
        generator=torch.Generator().manual_seed(2),
    )
    pairs = [(flow.base.log_prob(z, context), flow.base.log_prob(base, context))]
    generator = torch.Generator().manual_seed(3)
    across = torch.randn(DIRECTIONS, z[0].numel(), generator=generator, dtype=torch.float64)
    if context is None:  # projections of different laws are those of a mixture, and still equal
        pairs += [(z.flatten(1).double() @ one, base.flatten(1).double() @ one) for one in across]
    found = [_compared(a, b) for a, b in pairs]
    repeated = (x - again.to(x)).abs()
    same = (x == again.to(x)) | (x.isnan() & again.isnan())
    return Draws(
        n,
        max(distance for distance, _ in found),
        min(1.0, len(found) * min(significance for _, significance in found)),
        0.0 if bool(same.all()) else repeated.nan_to_num(torch.inf).max().item(),
    )


def _own(flow: Flow, n: int, context: Tensor | None) -> Tensor | None:
    """Returns draws as the flow makes them, the same ones each time."""
    generator = torch.Generator().manual_seed(1)
    if isinstance(flow, Wrapped):
        drawn = flow.own_sample(n, context, generator=generator)
        return None if drawn is None else drawn[0]
    if flow.augment is not None:
        return None
    if context is None:
        return flow.sample(n, generator=generator)
    return flow.sample(1, context, generator=generator)[0]


def _compared(a: Tensor, b: Tensor) -> tuple[float, float]:
    """Returns the Kolmogorov-Smirnov distance of two samples, and how rare it is."""
    found: Any = ks_2samp(a.double().cpu().numpy(), b.double().cpu().numpy())
    return float(found.statistic), float(found.pvalue)
