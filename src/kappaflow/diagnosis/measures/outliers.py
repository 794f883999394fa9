"""Rows that a flow puts further out than any draw of its base, and rows in other units."""

from dataclasses import dataclass

import torch
from torch import Tensor

from kappaflow.conditioning import Profile
from kappaflow.conditioning.spectrum import DENSE_UP_TO
from kappaflow.flows import Flow

MOST, LARGE = 4096, 64  # rows of flows up to 500 dimensions, and of larger ones
FAR = 30.0  # nats below the least density of all draws
SPREAD_OF = 32  # rows at least, for a standard deviation


@dataclass(frozen=True)
class Outliers:
    """The likelihood of points with and without those that are far out.

    Attributes:
        rows: How many points.
        far: Indices of the points whose latents are `FAR` nats less likely than any draw.
        worst: Index of the least likely of all.
        below: By how many nats its latent is less likely than any draw.
        mean: Of log_prob over all points.
        mean_without: The same without the far ones.
        slope_needed: Distance of the furthest of them from the middle of the draws, in
            standardised units, over the length of the furthest draw of the base: a map that takes
            a draw there is at least that steep somewhere.
        slope_measured: The largest singular value of the way to the data at the points examined.
        median_below: Median over the rows of how many nats their latents are less likely than any
            draw.
        latent_spread: Largest standard deviation of a coordinate of the latents; nan for fewer
            than 32 rows.
        means: Means of the standardized columns, (D,).
        spreads: Their standard deviations, (D,); nan for fewer than 32 rows.
    """

    rows: int
    far: Tensor
    worst: int
    below: float
    mean: float
    mean_without: float
    slope_needed: float
    slope_measured: float
    median_below: float
    latent_spread: float
    means: Tensor
    spreads: Tensor


def outliers_of(flow: Flow, x: Tensor, context: Tensor | None, shape: Profile) -> Outliers:
    """Returns which points are far out, and what they do to the mean.

    Args:
        flow: In evaluation mode.
        x: Points as its bijection takes them, (B, *event), all that there are.
        context: (B, C) or None.
        shape: The conditioning at some of them.

    Returns:
        What was found.
    """
    most = MOST if x[0].numel() <= DENSE_UP_TO else LARGE
    x, context = x[:most], None if context is None else context[:most]
    z, log_det = flow.bijection(x, context)
    at_points = flow.base.log_prob(z, context).double()
    log_prob = at_points + log_det.double()
    draws = flow.base.sample(
        len(x) if context is not None else most,
        context=context,
        dtype=flow.dtype,
        device=flow.device,
        generator=torch.Generator().manual_seed(4),
    )
    at_draws = flow.base.log_prob(draws, context).double()
    least = at_draws.nan_to_num(torch.inf).min()  # infinite if no draw has a density
    below = (least - at_points).nan_to_num(0, posinf=0)
    far = (below > FAR).nonzero().flatten()
    near = torch.isfinite(log_prob).index_fill(0, far, False)
    points = flow.units(x)[0].flatten(1).double()
    away = (points - points.median(dim=0).values).norm(dim=1)
    reach = draws.flatten(1).double().norm(dim=1).max()
    finite = shape.sigma_min[-1][shape.sigma_min[-1] > 0]
    return Outliers(
        rows=len(x),
        far=far,
        worst=int(below.argmax()),
        below=below.max().item(),
        mean=log_prob[torch.isfinite(log_prob)].mean().item(),
        mean_without=log_prob[near].mean().item(),
        slope_needed=(away[far].max() / reach).item() if len(far) else 0.0,
        slope_measured=(1 / finite.min()).item() if len(finite) else float("nan"),
        median_below=below.median().item(),
        latent_spread=_spreads(z.flatten(1).double()).max().item(),
        means=points.mean(0),
        spreads=_spreads(points),
    )


def _spreads(rows: Tensor) -> Tensor:
    """Returns the standard deviation of each column, nan for few rows."""
    return rows.std(0) if len(rows) >= SPREAD_OF else torch.full_like(rows[0], torch.nan)
