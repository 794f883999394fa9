"""KF207: the integral of the density, by importance sampling in few dimensions."""

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from kappaflow.diagnosis.check import Symptom, check, measurement, table
from kappaflow.diagnosis.checks.base import base_inconsistent
from kappaflow.diagnosis.checks.log_dets import log_det_wrong
from kappaflow.diagnosis.finding import Table
from kappaflow.diagnosis.measurements import Measurements, library_log_prob

DIMENSIONS = 3  # largest number of dimensions; above, no proposal is close enough
FIGURES = ("integral", "standard_error", "effective_draws")
CENTERS = 256
WIDTH = 0.3  # width of a kernel, in standard deviations of the samples
FAR, FREEDOM = 0.3, 3.0  # share of proposals from Student's t, and its degrees of freedom
LEAST, ERRORS, WORTH = 0.05, 6.0, 200.0  # least error; in standard errors; effective samples


class Integral(NamedTuple):
    """An estimate of the integral of a density: the mean of p / q over samples of a proposal q."""

    value: float
    standard_error: float
    effective: float  # effective number of samples, (sum w)^2 / sum w^2


@measurement("integral of the density", checked="integral of the density")
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


@table("integral")
def integral_table(m: Measurements) -> Table:
    """Returns the estimate as a table of one row."""
    figures = dict(zip(FIGURES, integral(m) or (), strict=False))
    return {name: [figure] for name, figure in figures.items()}


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
    chi = torch.randn(draws, int(FREEDOM), generator=generator, dtype=torch.float64)
    far = middle + spread * noise / (chi.square().sum(1, keepdim=True) / FREEDOM).sqrt()
    is_far = torch.rand(draws, generator=generator) < FAR
    x = torch.where(is_far[:, None], far, near)
    return x, torch.logaddexp(
        math.log(1 - FAR) + _kernels(x, centers, WIDTH * spread),
        math.log(FAR) + _student(x, middle, spread),
    )


def _kernels(x: Tensor, centers: Tensor, width: Tensor) -> Tensor:
    away = ((x[:, None] - centers) / width).square().sum(2)
    constant = width.log().sum() + 0.5 * x.shape[1] * math.log(2 * math.pi)
    return torch.logsumexp(-0.5 * away, 1) - math.log(len(centers)) - constant


def _student(x: Tensor, middle: Tensor, spread: Tensor) -> Tensor:
    n = x.shape[1]
    away = ((x - middle) / spread).square().sum(1)
    constant = (
        math.lgamma((FREEDOM + n) / 2)
        - math.lgamma(FREEDOM / 2)
        - 0.5 * n * math.log(FREEDOM * math.pi)
    )
    return constant - spread.log().sum() - 0.5 * (FREEDOM + n) * torch.log1p(away / FREEDOM)
