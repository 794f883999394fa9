"""KF801, KF802: a flow compared with the unnormalized density that it was fitted to."""

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor
from torch.distributions import MultivariateNormal

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
STARTS, MAX_START_DISTANCE = 64, 64.0  # searches; their largest start distance in deviations
CLIMB_STEPS, FIRST_STEP, LAST_STEP = 150, 0.2, 1e-4  # their number, and their relative lengths
MAX_REGIONS, SAMPLES_PER_REGION = 16, 256
MIN_EFFECTIVE_SAMPLES = 5.0  # of an estimate; fewer can overestimate it badly
MIN_MODE_DISTANCE = 0.5  # of two regions, in standard deviations per coordinate
DIFFERENCE_STEP = 1e-2  # step of the finite differences, in standard deviations of the samples
MAX_WIDTH = 10.0  # of a region, in standard deviations of the samples
MAX_MISSED_SHARE = 0.01  # missed share of the mass, or of the rows, from which the check fires
MAX_PARETO_K = 0.7  # Pareto k of the tail above which means of weights are unreliable
HARMLESS_EFFECTIVE_SHARE = 0.9  # of the samples, above which a heavy tail changes no mean
MIN_EFFECTIVE_SHARE = 0.01  # share of effective samples below which the check fires for any tail
SHOWN_COORDINATES = 6  # of a point that a message shows
NOT_PENALIZED = "The reverse divergence does not penalize regions without samples"


class EnergyFit(NamedTuple):
    """A flow compared with an unnormalized density.

    Regions and rows are missed if a weight there is `MARGIN` nats above the largest weight of the
    samples.
    """

    samples: ImportanceSamples
    invalid_count: int  # samples at which the log-density is nan or inf
    missed_mass: float  # share of the known mass in missed regions
    missed_by_nats: float  # how far the weight at the highest missed maximum exceeds that weight
    missed_at: Tensor | None  # the highest missed maximum, (D,)
    row_excess: Tensor  # how far the weight of each row exceeds that weight, in nats
    rows_missed: int

    @property
    def coordinates(self) -> str:
        """The first coordinates of the highest missed maximum, as text."""
        values = [] if self.missed_at is None else self.missed_at.tolist()
        more = ", ..." if len(values) > SHOWN_COORDINATES else ""
        return ", ".join(f"{value:.3g}" for value in values[:SHOWN_COORDINATES]) + more


@measurement("the unnormalized density")
def energy_fit(m: Measurements) -> EnergyFit | None:
    """Compares weights at samples, at the rows, and where the flow has no samples."""
    if m.log_density is None:
        return None
    generator = torch.Generator().manual_seed(5)
    samples = importance_sample(m.flow, m.log_density, SAMPLES, generator=generator)
    search = ModeSearch(m.flow, m.log_density, samples, generator)
    rows = samples.x[:0] if m.rows is None else m.rows
    # A log_density may not take zero rows.
    row_excess = search.excess(rows) if len(rows) else torch.zeros(0, dtype=torch.float64)
    missed = row_excess > MARGIN
    mass, excess, maxima = 0.0, 0.0, samples.x[:0]
    if math.isfinite(search.largest) and samples.x[0].numel() <= DENSE_UP_TO:
        maxima, excess = search.maxima(rows[missed.to(rows.device)][:STARTS])
        mass = search.mass(maxima) if len(maxima) else 0.0
    return EnergyFit(
        samples=samples,
        invalid_count=int((samples.log_density.isnan() | (samples.log_density == math.inf)).sum()),
        missed_mass=mass,
        missed_by_nats=excess,
        missed_at=maxima[0].flatten() if len(maxima) else None,
        row_excess=row_excess,
        rows_missed=int(missed.sum()),
    )


@check(
    "KF801",
    "the flow misses modes of the energy",
    severity="warning",
    cause=f"{NOT_PENALIZED}.",
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
    result = energy_fit(m)
    if result is None:
        return
    rows = len(result.row_excess)
    if result.missed_mass < MAX_MISSED_SHARE and result.rows_missed <= MAX_MISSED_SHARE * rows:
        return
    worst = int(result.row_excess.argmax()) if rows else None
    effective = result.samples.effective_sample_size
    yield Symptom(
        _missed_mass(result) if result.missed_mass >= MAX_MISSED_SHARE else _missed_rows(result),
        {
            "missed_mass": result.missed_mass,
            "missed_by_nats": result.missed_by_nats,
            "missed_at": result.coordinates or None,
            "points": rows,
            "points_missed": result.rows_missed,
            "worst_point": worst,
            "worst_point_by_nats": None if worst is None else result.row_excess[worst].item(),
            "effective_sample_size": effective,
            "log_normalizer": result.samples.log_normalizer,
        },
        cause=f"{NOT_PENALIZED}, and the importance weights of samples do not show it: the "
        f"effective sample size is {effective:.2g} of the samples."
        if math.isfinite(effective)
        else None,
    )


def _missed_mass(result: EnergyFit) -> str:
    return (
        f"At least about {result.missed_mass:.2g} of the mass lies where the flow has no samples, "
        f"some around ({result.coordinates}): weights there are {result.missed_by_nats:.3g} nats "
        f"larger than at any of {len(result.samples)} samples."
    )


def _missed_rows(result: EnergyFit) -> str:
    rows, worst = len(result.row_excess), int(result.row_excess.argmax())
    missed = f"{result.rows_missed} of {rows} rows are where the flow has no samples"
    excess = result.row_excess[worst].item()
    if not math.isfinite(excess):
        return f"{missed}, such as row {worst}."
    return (
        f"{missed}. The worst is row {worst}: its weight is {excess:.3g} nats larger than any "
        f"weight of {len(result.samples)} samples."
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
    result = energy_fit(m)
    if result is None:
        return
    samples, invalid = result.samples, result.invalid_count
    effective = samples.effective_sample_size
    evidence: Evidence = {
        "not_a_number": invalid,
        "effective_sample_size": effective,
        "pareto_k": samples.pareto_k,
        "log_normalizer": samples.log_normalizer,
        "log_normalizer_error": samples.log_normalizer_error,
    }
    if invalid:
        yield Symptom(
            f"log_density is not a number at {invalid} of {len(samples)} samples.",
            evidence,
            cause="The energy is not defined where the flow has samples.",
            fix="Let log_density return -inf, or a finite number, outside of its domain.",
        )
    elif not math.isfinite(effective):
        yield _invalid_weights(samples, evidence)
    elif effective < MIN_EFFECTIVE_SHARE or (
        samples.pareto_k > MAX_PARETO_K and effective < HARMLESS_EFFECTIVE_SHARE
    ):
        yield Symptom(
            f"A few of {len(samples)} samples dominate the importance weights: the effective "
            f"sample size is {effective:.2g} of the samples, and the tail of the weights has a "
            f"Pareto k of {samples.pareto_k:.2f}.",
            evidence,
        )


def _invalid_weights(samples: ImportanceSamples, evidence: Evidence) -> Symptom:
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


class ModeSearch:
    """Finds where a flow is far too small, and estimates the share of the mass there."""

    def __init__(
        self,
        flow: Flow,
        log_density: LogDensity,
        samples: ImportanceSamples,
        generator: torch.Generator,
    ) -> None:
        self.flow, self.log_density, self.generator = flow, log_density, generator
        self.log_normalizer = samples.log_normalizer
        finite = samples.log_weights[torch.isfinite(samples.log_weights)]
        self.largest = finite.max().item() if len(finite) else -math.inf
        deviation = samples.x.std(dim=0)
        self.center = samples.x.mean(dim=0)
        self.width = deviation.clamp_min(1e-6 * deviation.max().clamp_min(1e-30))

    def log_p(self, x: Tensor) -> Tensor:
        """Returns the log-density in float64, -inf where it is not finite."""
        log_p = log_density_at(self.log_density, x).double()
        return log_p.nan_to_num(-math.inf, posinf=-math.inf, neginf=-math.inf)

    def excess(self, x: Tensor) -> Tensor:
        """Returns how far log p - log q exceeds that of all samples, in nats, (n,)."""
        log_p, log_q = self.log_p(x), self.flow.log_prob(x).double()
        log_q = log_q.nan_to_num(-math.inf, posinf=math.inf, neginf=-math.inf)
        weights = torch.where(log_p == -math.inf, log_p, log_p - log_q).cpu()
        return (weights - self.largest).nan_to_num(-math.inf, posinf=math.inf, neginf=-math.inf)

    def maxima(self, rows: Tensor) -> tuple[Tensor, float]:
        """Returns the maxima that the flow misses, highest first, and the largest excess in nats.

        The log-density is climbed from points around the samples, up to far outside, and from
        rows. The rows are candidates too, because a climb can leave a narrow region.
        """
        center, width = self.center, self.width
        reach = torch.logspace(0, math.log2(MAX_START_DISTANCE), STARTS, base=2.0)
        noise = torch.randn((STARTS, *center.shape), generator=self.generator)
        reach = reach.reshape(-1, *[1] * center.dim()).to(center)
        starts = torch.cat((rows, center + reach * width * noise.to(center)))
        reach = torch.cat((reach.new_ones(len(rows), *reach.shape[1:]), reach))
        points = torch.cat((_climb(self.log_density, starts, reach * width), rows))
        excess = self.excess(points)
        # Sort by log-density: a climb that got stuck far out has a larger weight than any mode.
        log_density = log_density_at(self.log_density, points).nan_to_num(-math.inf)
        order = log_density.cpu().argsort(descending=True)
        kept: list[int] = []
        for i in order[excess[order] > MARGIN].tolist():
            distances = ((points[i] - points[kept]) / width).square().flatten(1).mean(1).sqrt()
            if not (distances < MIN_MODE_DISTANCE).any():
                kept.append(i)
            if len(kept) == MAX_REGIONS:
                break
        return points[kept], excess[kept[0]].item() if kept else 0.0

    def mass(self, maxima: Tensor) -> float:
        """Returns the share of the mass near the maxima, where the flow is far too small.

        Proposals are Gaussians with the curvature at the maxima. The estimate is unbiased for any
        positive proposal; a poor one misses some of the mass.
        """
        event, width = maxima.shape[1:], self.width.flatten().double()
        values, axes, slope = _curvatures(self.log_density, maxima, width)
        step = ((slope[:, None] @ axes) / values[:, None]) @ axes.mT  # Newton's, uphill
        centers = maxima.flatten(1).double() / width + step[:, 0].clamp(-1, 1)
        shape = (len(maxima), SAMPLES_PER_REGION, len(width))
        noise = torch.randn(shape, generator=self.generator)
        scales = (axes / values.sqrt()[:, None]).mT
        z = (centers[:, None] + noise.double().to(centers.device) @ scales).flatten(0, 1)
        lower = torch.linalg.qr(scales).R.mT  # scales.mT @ scales would lose half of the digits
        lower = lower * lower.diagonal(dim1=1, dim2=2).sign()[:, None]
        proposals = MultivariateNormal(centers, scale_tril=lower, validate_args=False)
        log_each = proposals.log_prob(z[:, None])
        log_g = log_each.logsumexp(1) - math.log(len(maxima)) - width.log().sum()
        x = (z * width).reshape(-1, *event).to(maxima.dtype)
        missed = self.excess(x) > MARGIN
        log_weights = torch.where(missed, self.log_p(x).cpu() - log_g.cpu(), -math.inf)
        effective_samples = (2 * log_weights.logsumexp(0) - (2 * log_weights).logsumexp(0)).exp()
        if not effective_samples >= MIN_EFFECTIVE_SAMPLES:
            return 0.0
        log_mass = log_weights.logsumexp(0) - math.log(len(x))
        return torch.sigmoid(log_mass - self.log_normalizer).item()


def _climb(log_density: LogDensity, starts: Tensor, scale: Tensor) -> Tensor:
    """Climbs from each start with Adam in shrinking steps, and returns where it ends."""
    offset = torch.zeros_like(starts)
    optimizer = torch.optim.Adam([offset], lr=FIRST_STEP, betas=(0.8, 0.95))
    for step in range(CLIMB_STEPS):
        share = step / CLIMB_STEPS
        optimizer.param_groups[0]["lr"] = FIRST_STEP * (LAST_STEP / FIRST_STEP) ** share
        _, slope = with_gradient(log_density, starts + scale * offset)
        offset.grad = -(slope * scale).nan_to_num(0.0, 0.0, 0.0)
        optimizer.step()
    return starts + scale * offset.detach()


def _curvatures(
    log_density: LogDensity, maxima: Tensor, width: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Returns eigenvalues (m, D) and axes (m, D, D) of minus the Hessian, and the gradient (m, D).

    The unit is the standard deviation of the samples. Derivatives are differences of gradients.
    Eigenvalues are made positive and at least `MAX_WIDTH ** -2`.
    """
    count, dimensions = len(maxima), len(width)
    shift = torch.diag(DIFFERENCE_STEP * width)
    positions = maxima.flatten(1).double()[:, None, None] + torch.stack((shift, -shift))
    rows = positions.reshape(-1, *maxima.shape[1:]).to(maxima.dtype)
    slope = with_gradient(log_density, rows)[1].double().nan_to_num(0.0, 0.0, 0.0)
    slope = slope.reshape(count, 2, dimensions, dimensions) * width
    hessian = (slope[:, 1] - slope[:, 0]) / (2 * DIFFERENCE_STEP)
    values, axes = torch.linalg.eigh((hessian + hessian.mT) / 2)
    return values.abs().clamp_min(MAX_WIDTH**-2), axes, slope.mean(dim=(1, 2))
