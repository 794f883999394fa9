"""What an energy says of a flow: the weights of its draws, and where mass lies that it misses."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from kappaflow.conditioning.spectrum import DENSE_UP_TO
from kappaflow.energies import ImportanceSamples, LogDensity, importance_sample, with_gradient
from kappaflow.energies.target import log_density_at
from kappaflow.flows import Flow

DRAWS = 2048
MARGIN = 3.0  # nats above the largest weight of all draws: there the flow misses mass
STARTS, FURTHEST = 64, 64.0  # of climbs, and how many deviations of the draws they begin out
CLIMB, FIRST, LAST = 150, 0.2, 1e-4  # steps, and their lengths as shares of how far out one began
MOST_REGIONS, DRAWS_OF_REGION = 16, 256
DECISIVE = 5.0  # effective draws of an estimate, at least: of fewer it may be far too large
APART = 0.5  # deviations of the draws, a coordinate: maxima that are closer are one region
DIFFERENCE = 1e-2  # deviations of the draws
WIDEST = 10.0  # deviations of the draws that a region is taken to be wide


@dataclass(frozen=True)
class Energy:
    """A flow beside an unnormalized density.

    Attributes:
        samples: Draws of the flow with their importance weights.
        not_a_number: How many of the draws have no log-density.
        largest: The largest log weight of the draws.
        missed_mass: Share of the mass, of what is known, in regions where weights are `MARGIN`
            nats above that.
        missed_by: By how many nats weights are larger at the highest underrated maximum.
        missed_at: That maximum, (D,); None where there is none.
        points: How many points were given.
        points_missed: At how many of them weights are `MARGIN` nats above the largest of the
            draws.
        worst_point: Index of the point with the largest weight.
        worst_by: By how many nats it is above the largest of the draws.
    """

    samples: ImportanceSamples
    not_a_number: int
    largest: float
    missed_mass: float
    missed_by: float
    missed_at: Tensor | None
    points: int
    points_missed: int
    worst_point: int
    worst_by: float


def energy_of(flow: Flow, log_density: LogDensity, x: Tensor | None) -> Energy:
    """Returns what importance weights say at draws, at points, and where no draw is.

    Regions without draws are looked for by climbing the log-density from points around the draws,
    up to far outside, and from given points. The mass of those where the flow is far too small is
    estimated by importance sampling from Gaussians that have the curvature at the maxima.

    Args:
        flow: In evaluation mode, with an exact log_prob and without a context.
        log_density: Up to a constant.
        x: Points, (B, *event), or None.

    Returns:
        What was found.
    """
    generator = torch.Generator().manual_seed(5)
    samples = importance_sample(flow, log_density, DRAWS, generator=generator)
    known = samples.log_weights[torch.isfinite(samples.log_weights)]
    largest = known.max().item() if len(known) else -math.inf
    above = torch.zeros(0) if x is None else _log_weights(flow, log_density, x) - largest
    missed = above > MARGIN
    mass, by, at = 0.0, 0.0, None
    if len(known) and samples.x[0].numel() <= DENSE_UP_TO:
        given = None if x is None else x[missed.to(x.device)][:STARTS]
        maxima, by = _maxima(flow, log_density, samples, given, largest, generator)
        if len(maxima):
            at = maxima[0].flatten()
            mass = _mass(flow, log_density, samples, maxima, largest, generator)
    return Energy(
        samples=samples,
        not_a_number=int((samples.log_density.isnan() | (samples.log_density == math.inf)).sum()),
        largest=largest,
        missed_mass=mass,
        missed_by=by,
        missed_at=at,
        points=len(above),
        points_missed=int(missed.sum()),
        worst_point=int(above.argmax()) if len(above) else -1,
        worst_by=above.max().item() if len(above) else 0.0,
    )


def _log_weights(flow: Flow, log_density: LogDensity, x: Tensor) -> Tensor:
    """Returns log p - log q, (n,), float64; infinite where the flow has no density, -inf for p."""
    log_p = log_density_at(log_density, x).double().nan_to_num(-math.inf, posinf=-math.inf)
    log_q = flow.log_prob(x).double().nan_to_num(-math.inf)
    return torch.where(log_p == -math.inf, log_p, log_p - log_q).cpu()


def _maxima(
    flow: Flow,
    log_density: LogDensity,
    samples: ImportanceSamples,
    given: Tensor | None,
    largest: float,
    generator: torch.Generator,
) -> tuple[Tensor, float]:
    """Returns maxima that are far underrated, the highest first, and by how many nats that is.

    Given points are among them as they are: a step of a climb leaves a region that is narrow.
    """
    center, width = _place(samples.x)
    reach = torch.logspace(0, math.log2(FURTHEST), STARTS, base=2.0)
    noise = torch.randn((STARTS, *center.shape), generator=generator)
    reach = reach.reshape(-1, *[1] * center.dim()).to(center)
    starts = center + reach * width * noise.to(center)
    if given is not None and len(given):
        starts = torch.cat((given, starts))
        reach = torch.cat((torch.ones_like(reach[:1]).expand(len(given), *reach.shape[1:]), reach))
    found = _climbed(log_density, starts, reach * width)
    found = found if given is None else torch.cat((found, given))
    above = _log_weights(flow, log_density, found) - largest
    # The highest first: where a climb got stuck far out, the flow is smaller than at any mode.
    order = log_density_at(log_density, found).nan_to_num(-math.inf).cpu().argsort(descending=True)
    order = order[above[order] > MARGIN]
    kept: list[int] = []
    for i in order.tolist():
        away = ((found[i] - found[kept]) / width).square().flatten(1).mean(1).sqrt()
        if not (away < APART).any():
            kept.append(i)
        if len(kept) == MOST_REGIONS:
            break
    return found[kept], above[kept[0]].item() if kept else 0.0


def _place(draws: Tensor) -> tuple[Tensor, Tensor]:
    """Returns mean and deviation of the draws, coordinate by coordinate."""
    deviation = draws.std(dim=0)
    return draws.mean(dim=0), deviation.clamp_min(1e-6 * deviation.max().clamp_min(1e-30))


def _climbed(log_density: LogDensity, starts: Tensor, scale: Tensor) -> Tensor:
    """Returns where a climb from each start ends, by Adam in steps that shrink."""
    way = torch.zeros_like(starts)
    optimizer = torch.optim.Adam([way], lr=FIRST, betas=(0.8, 0.95))
    for step in range(CLIMB):
        optimizer.param_groups[0]["lr"] = FIRST * (LAST / FIRST) ** (step / CLIMB)
        _, slope = with_gradient(log_density, starts + scale * way)
        way.grad = -(slope * scale).nan_to_num(0.0, 0.0, 0.0)
        optimizer.step()
    return starts + scale * way.detach()


def _mass(
    flow: Flow,
    log_density: LogDensity,
    samples: ImportanceSamples,
    maxima: Tensor,
    largest: float,
    generator: torch.Generator,
) -> float:
    """Returns the share of the mass that lies where the flow is far too small, near maxima.

    Without bias for that mass and any proposal that is positive: a poor one misses some of it.
    """
    _, width = _place(samples.x)
    event, width = maxima.shape[1:], width.flatten().double()
    values, axes, slope = _curvatures(log_density, maxima, width)
    step = ((slope[:, None] @ axes) / values[:, None]) @ axes.mT  # Newton's, uphill
    centers = maxima.flatten(1).double() / width + step[:, 0].clamp(-1, 1)
    noise = torch.randn((len(maxima), DRAWS_OF_REGION, len(width)), generator=generator)
    noise = noise.double().to(centers.device)
    draws = centers[:, None] + (noise / values.sqrt()[:, None]) @ axes.mT
    draws = draws.flatten(0, 1)
    along = torch.einsum("nmd,mde->nme", draws[:, None] - centers, axes)
    log_each = -0.5 * (along.square() * values).sum(2) + 0.5 * values.log().sum(1)
    log_g = (
        log_each.logsumexp(1) - math.log(len(maxima)) - 0.5 * len(width) * math.log(2 * math.pi)
    )
    log_g = (log_g - width.log().sum()).cpu()
    x = (draws * width).reshape(-1, *event).to(maxima.dtype)
    log_p = log_density_at(log_density, x).double().nan_to_num(-math.inf, posinf=-math.inf).cpu()
    missed = _log_weights(flow, log_density, x) > largest + MARGIN
    log_weights = torch.where(missed, log_p - log_g, -math.inf)
    decisive = (2 * log_weights.logsumexp(0) - (2 * log_weights).logsumexp(0)).exp()
    if not decisive >= DECISIVE:
        return 0.0
    log_mass = log_weights.logsumexp(0) - math.log(len(x))
    return torch.sigmoid(log_mass - samples.log_normalizer).item()


def _curvatures(
    log_density: LogDensity, maxima: Tensor, width: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Returns eigenvalues (m, D) and axes (m, D, D) of minus the Hessian, and the slope (m, D).

    In deviations, by differences of gradients; values are made positive, and no less than those
    of `WIDEST`.
    """
    count, dimensions = len(maxima), len(width)
    shift = torch.diag(DIFFERENCE * width)
    at = maxima.flatten(1).double()[:, None, None] + torch.stack((shift, -shift))
    rows = at.reshape(-1, *maxima.shape[1:]).to(maxima.dtype)
    slope = with_gradient(log_density, rows)[1].double().nan_to_num(0.0, 0.0, 0.0)
    slope = slope.reshape(count, 2, dimensions, dimensions) * width
    hessian = (slope[:, 1] - slope[:, 0]) / (2 * DIFFERENCE)
    values, axes = torch.linalg.eigh((hessian + hessian.mT) / 2)
    return values.abs().clamp_min(WIDEST**-2), axes, slope.mean(dim=(1, 2))
