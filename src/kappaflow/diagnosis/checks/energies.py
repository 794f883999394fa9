"""KF801, KF802: a flow compared with the unnormalized density that it was fitted to."""

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from kappaflow.conditioning.spectrum import DENSE_UP_TO
from kappaflow.diagnosis.check import Symptom, check, measurement
from kappaflow.diagnosis.measurements import Measurements
from kappaflow.energies import (
    ImportanceSamples,
    LogDensity,
    importance_sample,
    log_density_at,
    with_gradient,
)
from kappaflow.finding import Evidence
from kappaflow.flows import Flow

SAMPLES = 2048
MARGIN = 3.0  # nats above the largest weight of all samples, from which the flow misses mass
STARTS, FURTHEST = 64, 64.0  # number of searches, and their largest start distance in deviations
CLIMB, FIRST, LAST = 150, 0.2, 1e-4  # steps of a search, and their first and last relative length
MOST_REGIONS, DRAWS_OF_REGION = 16, 256
DECISIVE = 5.0  # least effective sample size of an estimate; fewer can overestimate it badly
APART = 0.5  # maxima closer than this, in standard deviations per coordinate, are one region
DIFFERENCE = 1e-2  # step of the finite differences, in standard deviations of the samples
WIDEST = 10.0  # largest width of a region, in standard deviations of the samples
SHARE = 0.01  # missed share of the mass, or of the rows, from which the check fires
HEAVY = 0.7  # Pareto k of the tail above which means of weights are unreliable
NEARLY_ALL = 0.9  # share of effective samples above which a heavy tail changes no mean
FEW = 0.01  # share of effective samples that is too small for any tail
COORDINATES = 6  # coordinates of a point that a message shows


class Energy(NamedTuple):
    """A flow compared with an unnormalized density.

    Regions and rows are missed if a weight there is `MARGIN` nats above the largest weight of the
    samples.
    """

    samples: ImportanceSamples
    not_a_number: int  # number of samples without a log-density
    missed_mass: float  # share of the known mass in missed regions
    missed_by: float  # nats of the weight at the highest missed maximum above that weight
    missed_at: Tensor | None  # the highest missed maximum, (D,)
    points: int
    points_missed: int
    worst_point: int
    worst_by: float  # nats of the weight of that row above the largest weight of the samples


@measurement("the unnormalized density", checked="the unnormalized density")
def energy(m: Measurements) -> Energy | None:
    """Compares weights at samples, at the rows, and where the flow has no samples.

    It searches regions without samples by climbing the log-density from points around the
    samples, up to far outside, and from the rows. Importance sampling from Gaussians with the
    curvature at the maxima estimates the mass of regions where the flow is far too small.
    """
    if m.log_density is None:
        return None
    flow, log_density, x = m.flow, m.log_density, m.rows
    generator = torch.Generator().manual_seed(5)
    samples = importance_sample(flow, log_density, SAMPLES, generator=generator)
    known = samples.log_weights[torch.isfinite(samples.log_weights)]
    largest = known.max().item() if len(known) else -math.inf
    above = torch.zeros(0) if x is None else _log_weights(flow, log_density, x) - largest
    above = above.nan_to_num(-math.inf, posinf=math.inf, neginf=-math.inf)  # no weight anywhere
    missed = above > MARGIN
    mass, by, maxima = 0.0, 0.0, torch.zeros(0)
    if len(known) and samples.x[0].numel() <= DENSE_UP_TO:
        rows = None if x is None else x[missed.to(x.device)][:STARTS]
        maxima, by = _maxima(flow, log_density, samples, rows, largest, generator)
        if len(maxima):
            mass = _mass(flow, log_density, samples, maxima, largest, generator)
    return Energy(
        samples=samples,
        not_a_number=int((samples.log_density.isnan() | (samples.log_density == math.inf)).sum()),
        missed_mass=mass,
        missed_by=by,
        missed_at=maxima[0].flatten() if len(maxima) else None,
        points=len(above),
        points_missed=int(missed.sum()),
        worst_point=int(above.argmax()) if len(above) else -1,
        worst_by=above.max().item() if len(above) else 0.0,
    )


@check(
    "KF801",
    "the flow misses modes of the energy",
    severity="warning",
    cause="The reverse divergence does not penalize regions without samples.",
    fix="Train with a longer annealing from a lower inverse_temperature (kappaflow.fit_energy), "
    "or start from a flow that kappaflow.fit trained on rows of all modes.",
)
def modes_missed(m: Measurements) -> Iterator[Symptom]:
    """This check is for flows fitted to an unnormalized density: `doctor(flow, x,
    log_density=log_density)`, see [Energies](energies.md). The doctor climbs the log-density from
    64 points, up to 64 standard deviations outside of the samples, and from the given rows. Around
    maxima where importance weights are more than 3 nats above those of all samples, it estimates
    the share of the mass that the flow misses. It is a warning from a share of 0.01, or if more
    than 0.01 of the rows are there. A region that no search and no row reaches stays unseen.

    Example:
        def log_density(x):
            return torch.logaddexp(-0.5 * x.square().sum(1), -0.5 * (x - 6).square().sum(1))


        flow = kf.Flow(kf.StandardNormal(2), kf.bijections.ElementwiseAffine(2))
        x = None
    """
    result = energy(m)
    if result is None:
        return
    by_rows = result.points_missed > SHARE * result.points
    if result.missed_mass < SHARE and not by_rows:
        return
    share = result.samples.effective_sample_size
    yield Symptom(
        _missed_mass(result) if result.missed_mass >= SHARE else _missed_rows(result),
        {
            "missed_mass": result.missed_mass,
            "missed_by_nats": result.missed_by,
            "missed_at": None if result.missed_at is None else _coordinates(result),
            "points": result.points,
            "points_missed": result.points_missed,
            "worst_point": result.worst_point if result.points else None,
            "worst_point_by_nats": result.worst_by if result.points else None,
            "effective_sample_size": share,
            "log_normalizer": result.samples.log_normalizer,
        },
        cause="The reverse divergence does not penalize regions without samples, and the "
        "importance weights of samples do not show it: the effective sample size is "
        f"{share:.2g} of the samples."
        if math.isfinite(share)
        else None,
    )


@check(
    "KF802",
    "a few samples dominate the importance weights",
    severity="warning",
    cause="The density has heavier tails than the flow, or a shape that the flow did not learn. "
    "Above a Pareto k of 0.7, estimates of log Z and of means have no reliable error.",
    fix="Train longer, use a deeper flow, or use the samples as proposals of a Markov chain "
    "instead of weighting them.",
)
def weights_heavy(m: Measurements) -> Iterator[Symptom]:
    """The weights of 2,048 samples have a Pareto k above 0.7 and an effective sample size
    below 0.9, or an effective sample size below 0.01. It is an error if the log-density is not a
    number at some samples, or if all weights are zero.

    Example:
        def log_density(x):
            return -x.abs().sum(1)


        scales = kf.bijections.ElementwiseAffine(2, log_scale=[0.7, 0.7])
        flow = kf.Flow(kf.StandardNormal(2), scales)
        x = None
    """
    result = energy(m)
    if result is None:
        return
    samples, lost = result.samples, result.not_a_number
    effective = samples.effective_sample_size
    evidence: Evidence = {
        "not_a_number": lost,
        "effective_sample_size": effective,
        "pareto_k": samples.pareto_k,
        "log_normalizer": samples.log_normalizer,
        "log_normalizer_error": samples.log_normalizer_error,
    }
    if lost:
        yield Symptom(
            f"log_density is not a number at {lost} of {len(samples)} samples.",
            evidence,
            cause="The energy is not defined where the flow has samples.",
            fix="Let log_density return -inf, or a finite number, outside of its domain.",
        )
    elif not math.isfinite(effective):
        yield _no_weights(samples, evidence)
    elif effective < FEW or (samples.pareto_k > HEAVY and effective < NEARLY_ALL):
        yield Symptom(
            f"A few of {len(samples)} samples dominate the importance weights: the effective "
            f"sample size is {effective:.2g} of the samples, and the tail of the weights has a "
            f"Pareto k of {samples.pareto_k:.2f}.",
            evidence,
        )


def _no_weights(samples: ImportanceSamples, evidence: Evidence) -> Symptom:
    """Returns the KF802 symptom for weights that are all zero or not all finite."""
    bad = int((samples.log_weights.isnan() | (samples.log_weights == math.inf)).sum())
    message = f"The importance weights of all {len(samples)} samples are zero."
    cause = "log_density is -inf wherever the flow has samples."
    fix = (
        "Check log_density at samples of the flow, and train again from a flow with samples in "
        "its domain."
    )
    if bad:
        message = f"The importance weights of {bad} of {len(samples)} samples are not finite."
        cause = "log_prob of the flow is not finite at these samples."
        fix = "Bound the log-scales and train again."
    return Symptom(message, evidence, severity="error", cause=cause, fix=fix)


def _missed_mass(result: Energy) -> str:
    return (
        f"At least about {result.missed_mass:.2g} of the mass lies where the flow has no samples, "
        f"some around ({_coordinates(result)}): weights there are {result.missed_by:.3g} nats "
        f"larger than at any of {len(result.samples)} samples."
    )


def _missed_rows(result: Energy) -> str:
    missed = f"{result.points_missed} of {result.points} rows are where the flow has no samples"
    if not math.isfinite(result.worst_by):
        return f"{missed}, such as row {result.worst_point}."
    return (
        f"{missed}. The worst is row {result.worst_point}: its weight is {result.worst_by:.3g} "
        f"nats larger than any weight of {len(result.samples)} samples."
    )


def _coordinates(result: Energy) -> str:
    values = [] if result.missed_at is None else result.missed_at.tolist()
    more = ", ..." if len(values) > COORDINATES else ""
    return ", ".join(f"{value:.3g}" for value in values[:COORDINATES]) + more


def _log_weights(flow: Flow, log_density: LogDensity, x: Tensor) -> Tensor:
    """Returns log p - log q, (n,), in float64.

    It is -inf if p is zero, and inf if q is zero where p is not.
    """
    log_p = _finite_or_zero(log_density_at(log_density, x))
    log_q = flow.log_prob(x).double()
    log_q = log_q.nan_to_num(-math.inf, posinf=math.inf, neginf=-math.inf)
    return torch.where(log_p == -math.inf, log_p, log_p - log_q).cpu()


def _finite_or_zero(log_density: Tensor) -> Tensor:
    """Returns a log-density in float64, -inf where it is not finite."""
    return log_density.double().nan_to_num(-math.inf, posinf=-math.inf, neginf=-math.inf)


def _maxima(
    flow: Flow,
    log_density: LogDensity,
    samples: ImportanceSamples,
    rows: Tensor | None,
    largest: float,
    generator: torch.Generator,
) -> tuple[Tensor, float]:
    """Returns the maxima that the flow misses, highest first, and the largest excess in nats.

    The rows are kept as candidates too, because a step of a climb can leave a narrow region.
    """
    center, width = _center_and_width(samples.x)
    reach = torch.logspace(0, math.log2(FURTHEST), STARTS, base=2.0)
    noise = torch.randn((STARTS, *center.shape), generator=generator)
    reach = reach.reshape(-1, *[1] * center.dim()).to(center)
    starts = center + reach * width * noise.to(center)
    if rows is not None and len(rows):
        starts = torch.cat((rows, starts))
        reach = torch.cat((torch.ones_like(reach[:1]).expand(len(rows), *reach.shape[1:]), reach))
    result = _climb(log_density, starts, reach * width)
    result = result if rows is None else torch.cat((result, rows))
    above = _log_weights(flow, log_density, result) - largest
    # Sort by log-density: a climb that got stuck far out has a larger weight than any mode.
    order = (
        log_density_at(log_density, result).nan_to_num(-math.inf).cpu().argsort(descending=True)
    )
    order = order[above[order] > MARGIN]
    kept: list[int] = []
    for i in order.tolist():
        away = ((result[i] - result[kept]) / width).square().flatten(1).mean(1).sqrt()
        if not (away < APART).any():
            kept.append(i)
        if len(kept) == MOST_REGIONS:
            break
    return result[kept], above[kept[0]].item() if kept else 0.0


def _center_and_width(samples: Tensor) -> tuple[Tensor, Tensor]:
    """Returns mean and standard deviation of each coordinate of the samples."""
    deviation = samples.std(dim=0)
    return samples.mean(dim=0), deviation.clamp_min(1e-6 * deviation.max().clamp_min(1e-30))


def _climb(log_density: LogDensity, starts: Tensor, scale: Tensor) -> Tensor:
    """Climbs from each start with Adam in shrinking steps, and returns where it ends."""
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
    """Returns the share of the mass near the maxima, where the flow is far too small.

    The estimate is unbiased for any positive proposal; a poor one misses some of the mass.
    """
    _, width = _center_and_width(samples.x)
    event, width = maxima.shape[1:], width.flatten().double()
    values, axes, slope = _curvatures(log_density, maxima, width)
    step = ((slope[:, None] @ axes) / values[:, None]) @ axes.mT  # Newton's, uphill
    centers = maxima.flatten(1).double() / width + step[:, 0].clamp(-1, 1)
    noise = torch.randn((len(maxima), DRAWS_OF_REGION, len(width)), generator=generator)
    noise = noise.double().to(centers.device)
    z = centers[:, None] + (noise / values.sqrt()[:, None]) @ axes.mT
    z = z.flatten(0, 1)
    along = torch.einsum("nmd,mde->nme", z[:, None] - centers, axes)
    log_each = -0.5 * (along.square() * values).sum(2) + 0.5 * values.log().sum(1)
    log_g = (
        log_each.logsumexp(1) - math.log(len(maxima)) - 0.5 * len(width) * math.log(2 * math.pi)
    )
    log_g = (log_g - width.log().sum()).cpu()
    x = (z * width).reshape(-1, *event).to(maxima.dtype)
    log_p = _finite_or_zero(log_density_at(log_density, x)).cpu()
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
    """Returns eigenvalues (m, D) and axes (m, D, D) of minus the Hessian, and the gradient (m, D).

    The unit is the standard deviation of the samples. Derivatives are differences of gradients.
    Eigenvalues are made positive and at least `WIDEST ** -2`.
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
