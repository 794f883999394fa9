"""KF207, KF215: the integral of the density, and the log_prob of the base against its samples."""

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.special import kolmogorov
from torch import Tensor
from torch.distributions import Normal

from kappaflow.conditioning.round_trip import latent_points
from kappaflow.diagnosis.check import Symptom, check, measurement
from kappaflow.diagnosis.checks.log_dets import log_det_wrong
from kappaflow.diagnosis.measurements import Measurements, library_log_prob
from kappaflow.flows import Base, StandardNormal

LogProb = Callable[[Tensor], Tensor]  # of flat rows (N, n), in float64
# Of the base
BASE_DIMENSIONS, SAMPLES, PAIRS = 128, 4096, 16
GRID, REACH = 4001, 14.0  # points of a coordinate, spaced by sinh up to 6e5 standard deviations
ROWS = 65_536  # points of grids at once
BASE_LEAST, EACH = 0.05, 0.01  # tolerated error of the log-integral: in all, for each coordinate
UNLIKELY = 1e-7
# Of the flow
DIMENSIONS = 3  # largest number of dimensions; above, no proposal is close enough
FIGURES = ("integral", "standard_error", "effective_draws")
CENTERS = 256
WIDTH = 0.3  # width of a kernel, in standard deviations of the samples
FAR, FREEDOM = 0.3, 3  # share of proposals from Student's t, and its degrees of freedom
LEAST, ERRORS, WORTH = 0.05, 6.0, 200.0  # least error; in standard errors; effective samples


class BaseFit(NamedTuple):
    """The base's log_prob against itself and against its samples."""

    log_integral: float
    distance: float  # largest Kolmogorov-Smirnov distance of a coordinate from its log_prob
    significance: float  # probability of it for a correct base, times the number of coordinates


@measurement("the base")
def base_fit(m: Measurements) -> BaseFit | None:
    """Integrates each coordinate. Returns None for a base whose coordinates are not independent.

    With contexts, the base is conditional on the first context. A standard normal of kappaflow
    needs no check.
    """
    base, context = m.flow.base, None if m.context is None else m.context[:1]
    if type(base) is StandardNormal:
        return None
    contexts = None if context is None else context.expand(SAMPLES, -1)
    z = latent_points(m.flow, SAMPLES, contexts, torch.Generator().manual_seed(5))
    n = z[0].numel()
    if (
        m.up_to(m.effort.limit(BASE_DIMENSIONS), n, f"the base of {n:,} dimensions") < n
        or not torch.isfinite(z).all()
    ):
        return None
    log_prob = _flat_log_prob(base, z, context)
    flat = z.flatten(1)
    if not torch.isfinite(log_prob(flat[:PAIRS])).all() or not _independent(log_prob, flat):
        return None
    integrals, distances = zip(
        *(_coordinate(log_prob, flat[0], flat[:, number], number) for number in range(n)),
        strict=True,
    )
    worst = max(distances)
    significance = min(1.0, n * float(kolmogorov(math.sqrt(SAMPLES) * worst)))
    return BaseFit(log_prob(flat[:1]).item() + sum(integrals), worst, significance)


@check(
    "KF215",
    "the base does not fit its own samples",
    cause="The base lacks its constant, counts too few features, or scales its samples.",
    fix="Use a distribution of torch.distributions with torch.distributions.Independent.",
)
def base_inconsistent(m: Measurements) -> Iterator[Symptom]:
    """If the coordinates of the base are independent, in up to 128 dimensions, the doctor
    integrates each of them. It reports an integral that is not one, and samples that do not follow
    the resulting distribution at a significance of one in ten million.

    Example:
        from torch.distributions import Independent, Normal, TransformedDistribution
        from torch.distributions.transforms import AffineTransform


        class Unnormalized(Normal):
            def log_prob(self, value):
                return -0.5 * value.square()


        base = Independent(Unnormalized(torch.zeros(2), torch.ones(2)), 1)
        flow = TransformedDistribution(base, [AffineTransform(torch.zeros(2), 2.0)])
        x = 2 * torch.randn(64, 2)
    """
    result = base_fit(m)
    if result is None:
        return
    tolerance = BASE_LEAST + EACH * math.prod(m.flow.base.event_shape)
    if not abs(result.log_integral) <= tolerance:
        yield Symptom(
            f"The density of the base integrates to exp({result.log_integral:.3g}) instead of 1.",
            {"log_integral": result.log_integral, "tolerance": tolerance},
        )
    elif result.significance <= UNLIKELY:
        yield Symptom(
            f"Samples of the base do not follow its log_prob: the Kolmogorov-Smirnov distance is "
            f"{result.distance:.2f}, which a correct base reaches with a probability of "
            f"{result.significance:.0e}.",
            {"kolmogorov_smirnov": result.distance, "significance": result.significance},
        )


def _flat_log_prob(base: Base, like: Tensor, context: Tensor | None) -> LogProb:
    """Returns the log_prob of the base as a function of flat rows, in float64."""

    def log_prob(rows: Tensor) -> Tensor:
        contexts = None if context is None else context.expand(len(rows), -1)
        return base.log_prob(rows.reshape(len(rows), *like.shape[1:]), contexts).double()

    return log_prob


def _independent(log_prob: LogProb, z: Tensor) -> bool:
    """Returns whether exchanging coordinates of two samples leaves the sum of log_prob."""
    a, b = z[:PAIRS], z[PAIRS : 2 * PAIRS]
    if z.shape[1] == 1:
        return True
    before = log_prob(a) + log_prob(b)
    for mask in (torch.arange(z.shape[1]) % 2 == 0, torch.arange(z.shape[1]) == 0):
        mask = mask.to(z.device)
        after = log_prob(torch.where(mask, a, b)) + log_prob(torch.where(mask, b, a))
        if not ((after - before).abs() <= 1e-4 * (1 + before.abs())).all():
            return False
    return True


def _coordinate(log_prob: LogProb, start: Tensor, z: Tensor, number: int) -> tuple[float, float]:
    """Returns the log-integral along a coordinate through a point, relative to the point, and the
    distance of samples from the distribution along it.
    """
    z = z.double()
    middle, spread = z.median(), z.std().clamp_min(1e-12)
    u = torch.linspace(-REACH, REACH, GRID, dtype=torch.float64, device=z.device)
    at = middle + spread * torch.sinh(u)
    rows = start.repeat(GRID, 1)
    rows[:, number] = at.to(start)
    logs = torch.cat([log_prob(part) for part in rows.split(ROWS)]) - log_prob(start[None])
    density = logs.nan_to_num(-torch.inf).exp() * spread * torch.cosh(u)
    cumulative = torch.cumulative_trapezoid(density, u)
    grid, shares = at.cpu().numpy(), (cumulative / cumulative[-1]).cpu().numpy()
    from scipy.stats import ks_1samp  # takes half as long to load as torch

    test: Any = ks_1samp(z.cpu().numpy(), lambda v: np.interp(v, grid, [0.0, *shares]))
    return cumulative[-1].log().item(), float(test.statistic)


class Integral(NamedTuple):
    """An estimate of the integral of a density: the mean of p / q over samples of a proposal q."""

    value: float
    standard_error: float
    effective: float  # effective number of samples, (sum w)^2 / sum w^2


@measurement("integral of the density")
def integral(m: Measurements) -> Integral | None:
    """Estimates the integral of the density. Returns None above three dimensions.

    Proposals come from kernels around samples of the flow, and from a Student's t around all of
    them, which covers the tails. With contexts, the density is conditional on the first context.
    """
    flow = m.flow
    if len(flow.joint_shape) != 1 or flow.joint_shape[0] > DIMENSIONS or flow.augment is not None:
        return None
    samples = m.samples[torch.isfinite(m.samples).all(1)].cpu().double()[:CENTERS]
    if len(samples) < 8:
        return None
    draws = 2 * m.effort.samples
    x, log_q = _proposals(samples, draws, torch.Generator().manual_seed(0))
    context = None if m.context is None else m.context[:1].expand(draws, -1)
    points = x.to(flow.dtype).to(flow.device)
    own = library_log_prob(flow, points, context)
    log_p = flow.augmented_log_prob(points, context) if own is None else own
    weights = (log_p.cpu().double() - log_q).exp().nan_to_num(0, posinf=0)
    value, error = weights.mean().item(), weights.std().item() / math.sqrt(draws)
    effective = weights.sum().square() / weights.square().sum().clamp_min(1e-300)
    return Integral(value, error, effective.item())


@check(
    "KF207",
    "the density does not integrate to one",
    cause="The base is not normalized, or the map is not one-to-one, or not onto.",
    fix="Integrate the base alone, and check that each layer is one-to-one and onto.",
)
def not_normalized(m: Measurements) -> Iterator[Symptom]:
    """In up to three dimensions, the doctor estimates the integral by importance sampling. It
    reports a difference from one of more than 0.05 and six standard errors.

    Example:
        class Folded:
            def encode(self, x):
                return x.abs(), torch.zeros(len(x))

            def decode(self, z):
                return z.abs(), torch.zeros(len(z))

            def log_prob(self, x):
                return 1 + torch.distributions.Normal(0, 1).log_prob(x).sum(1)


        flow = Folded()
        x = torch.rand(64, 2)
    """
    result = integral(m)
    if result is None or result.effective < WORTH or log_det_wrong(m) or base_inconsistent(m):
        return
    if abs(result.value - 1) > max(LEAST, ERRORS * result.standard_error):
        yield Symptom(
            f"The density integrates to {result.value:.3g} ± {result.standard_error:.1g}.",
            dict(zip(FIGURES, result, strict=True)),
        )


def _proposals(centers: Tensor, draws: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Returns samples of the proposal and its log-density there, (N, n) and (N,)."""
    n = centers.shape[1]
    middle, spread = centers.mean(0), centers.std(0).clamp_min(1e-12)
    noise = torch.randn(draws, n, generator=generator, dtype=torch.float64)
    chosen = torch.randint(len(centers), (draws,), generator=generator)
    near = centers[chosen] + WIDTH * spread * noise
    chi = torch.randn(draws, FREEDOM, generator=generator, dtype=torch.float64)
    far = middle + spread * noise / (chi.square().sum(1, keepdim=True) / FREEDOM).sqrt()
    is_far = torch.rand(draws, generator=generator) < FAR
    x = torch.where(is_far[:, None], far, near)
    kernels = Normal(centers, WIDTH * spread).log_prob(x[:, None]).sum(2)
    from scipy.stats import multivariate_t

    student = multivariate_t(np.zeros(n), df=FREEDOM).logpdf(((x - middle) / spread).numpy())
    return x, torch.logaddexp(
        math.log(1 - FAR) + torch.logsumexp(kernels, 1) - math.log(len(centers)),
        math.log(FAR) + torch.from_numpy(student).reshape(draws) - spread.log().sum(),
    )
