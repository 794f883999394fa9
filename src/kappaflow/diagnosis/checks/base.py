"""KF215: the log_prob of the base, compared with its integral and with its samples."""

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from scipy.special import kolmogorov
from torch import Tensor

from kappaflow.conditioning.round_trip import latent_points
from kappaflow.diagnosis.check import Symptom, check, measurement
from kappaflow.diagnosis.measurements import Measurements
from kappaflow.flows import Base, StandardNormal

LogProb = Callable[[Tensor], Tensor]  # of flat rows (N, n), in float64
DIMENSIONS, SAMPLES, PAIRS = 128, 4096, 16
GRID, REACH = 4001, 14.0  # points of a coordinate, spaced by sinh up to 6e5 standard deviations
ROWS = 65_536  # points of grids at once
LEAST, EACH = 0.05, 0.01  # tolerated error of the log-integral: in all, and for each coordinate
UNLIKELY = 1e-7


class BaseFit(NamedTuple):
    """The base's log_prob against itself and against its samples.

    `distance` is the largest Kolmogorov-Smirnov distance of a coordinate of the samples from the
    distribution that log_prob gives it, and `significance` the probability of at least this
    distance for a correct base, times the number of coordinates.
    """

    log_integral: float
    distance: float
    significance: float


@measurement("the base", checked="the base")
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
        m.up_to(m.effort.limit(DIMENSIONS), n, f"the base of {n:,} dimensions") < n
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
    tolerance = LEAST + EACH * math.prod(m.flow.base.event_shape)
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
    steps = 0.5 * (density[1:] + density[:-1]) * (u[1] - u[0])
    cumulative = torch.cat((steps.new_zeros(1), steps.cumsum(0)))
    total = cumulative[-1]
    ordered = z.sort().values
    i = torch.searchsorted(at, ordered).clamp(1, GRID - 1)
    share = ((ordered - at[i - 1]) / (at[i] - at[i - 1])).clamp(0, 1)
    expected = (cumulative[i - 1] + share * steps[i - 1]) / total
    count = torch.arange(len(z), device=z.device)
    distance = torch.maximum((count + 1) / len(z) - expected, expected - count / len(z)).max()
    return total.log().item(), distance.item()
