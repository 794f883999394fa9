"""KF216, KF403, KF503: encoded rows, compared with samples of the base."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from kappaflow.bijections import Domain, Standardize
from kappaflow.conditioning.round_trip import latent_points
from kappaflow.conditioning.spectrum import DENSE_UP_TO
from kappaflow.diagnosis.check import Symptom, check, measurement
from kappaflow.diagnosis.checks.log_dets import TOLERATED
from kappaflow.diagnosis.checks.samples import kolmogorov_smirnov
from kappaflow.diagnosis.measurements import Measurements
from kappaflow.diagnosis.tensors import (
    effective_rows,
    in_chunks,
    mean_of,
    median_of,
    shares_of,
    spread_of,
)
from kappaflow.finding import Evidence
from kappaflow.flows.rows import describe_column

LARGE_ROWS = 64  # rows above 500 dimensions
BASE_SAMPLES = 4096  # rows and samples at most, without a context; with contexts, one for each row
FAR = 30.0  # nats below the lowest density of all samples of the base, for a row to be far out
WEIGHTLESS = 1e-3  # weight of a row, in units of the mean weight, below which it does not count
SPREAD_ROWS = 32  # least number of rows for a standard deviation
FEW = 0.05  # share of rows far out above which the flow was trained on other data
TAIL_ROWS = 500  # least number of rows to examine a tail
ABSURD, SEVERAL = 30.0, 8  # nats per coordinate (about 8 standard deviations); least rows
COLLAPSED = 0.05  # standard deviation of collapsed latents; samples of the base have 1
# Means and standard deviations of columns that nobody would call standardized.
OFF_LATENT, OFF_RATIO = 0.5, 1.5  # of means and standard deviations of latents that fit
OFF_MEAN, OFF_SPREADS = 3.0, (0.2, 5.0)
# Of encoded rows
LEAST_ROWS = 200
COORDINATES = 64  # that are compared one by one
DIRECTIONS = 8  # random projections
UNLIKELY = 1e-7
VISIBLE, LARGE = 0.1, 0.25  # Kolmogorov-Smirnov distance of a note, and of a warning
RELATED, STRONGLY = 0.3, 0.6  # correlation of two coordinates of a note, and of a warning


class Encoded(NamedTuple):
    """The first rows, their latents, and samples of the base (one a row with contexts)."""

    x: Tensor
    z: Tensor
    log_det: Tensor
    base_log_prob: Tensor
    samples: Tensor
    samples_log_prob: Tensor
    below: Tensor  # nats by which each latent is less likely than any sample of the base
    shares: Tensor  # of the rows in means

    @property
    def far(self) -> Tensor:
        """The indices of the rows far out whose weight counts."""
        counts = self.shares * len(self.shares) > WEIGHTLESS
        return ((self.below > FAR) & counts).nonzero().flatten()


@measurement("encoded rows and samples of the base")
def encoded(m: Measurements) -> Encoded | None:
    """Encodes up to 4,096 rows, or 64 above 500 dimensions. Returns None without rows."""
    if m.rows is None:
        return None
    flow, is_large = m.flow, m.rows[0].numel() > DENSE_UP_TO
    most = m.effort.limit(LARGE_ROWS if is_large else BASE_SAMPLES)
    rows = m.up_to(most, len(m.rows), "encoded rows and outliers: {} rows")
    if m.weights is not None and not m.weights[:rows].any():
        return None
    x, context = m.rows[:rows], None if m.contexts is None else m.contexts[:rows]
    z, log_det = in_chunks(flow.bijection, x, context)
    count = len(x) if context is not None else max(len(x), min(most, BASE_SAMPLES))
    samples = latent_points(flow, count, context, torch.Generator().manual_seed(4))
    of_rows, of_samples = (flow.base.log_prob(value, context).double() for value in (z, samples))
    least = of_samples.nan_to_num(torch.inf).min()  # infinite if none has a density
    below = (least - of_rows).nan_to_num(0, posinf=0)
    return Encoded(x, z, log_det, of_rows, samples, of_samples, below, m.shares(rows).to(x.device))


@check(
    "KF403",
    "the data is not on the scale that the flow expects",
    before="KF201",
    cause="The rows are on another scale than the training rows, or the flow is not trained.",
    fix="Give the rows the scale and the transformations of the training rows, or train the flow "
    "on such rows.",
)
def wrong_scale(m: Measurements) -> Iterator[Symptom]:
    """The check fires on any of three signs. The standardization was never fitted, the rows are
    not standardized, and their latents do not look like samples of the base. The latent of the
    median row is 30 nats per coordinate less likely than the least likely of 4,096 samples of the
    base, about 8 standard deviations in each. All rows are close together in the latent space.

    Example:
        flow = kf.real_nvp(2, depth=2, hidden=(8,))
        x = 100 + 10 * torch.randn(64, 2)
    """
    rows = encoded(m)
    if rows is None:
        return
    z, samples = rows.z.flatten(1).double(), rows.samples.flatten(1).double()
    standardized = m.flow.standardization(rows.x)[0].flatten(1).double()
    shares, median = rows.shares, median_of(rows.below, rows.shares)
    latent_spread = _spreads(z, shares).max().item()
    evidence: Evidence = {
        "rows": len(z),
        "far": len(rows.far),
        "median_nats_below": median,
        "latent_spread": latent_spread,
    }
    means, spreads = mean_of(standardized, shares), _spreads(standardized, shares)
    column = None if _fits(z, samples, shares) else _unstandardized_column(means, spreads)
    unfitted = [part for part in m.flow.standardization if not getattr(part, "fitted", True)]
    if column is not None and any(isinstance(part, (Domain, Standardize)) for part in unfitted):
        spread, name = spreads[column], describe_column(m.flow.columns, column)
        also = "" if spread.isnan() else f" and standard deviation {spread:.3g}"
        yield Symptom(
            "The flow's standardization was never fitted, and the rows are not standardized: "
            f"{name} has mean {means[column]:.3g}{also}.",
            evidence,
            cause="The flow was not trained, and does not know the mean and the standard "
            "deviation of its columns.",
            fix="Call kappaflow.fit, or flow.standardization.fit(x) with the training rows.",
        )
    elif len(z) >= SEVERAL and median > ABSURD * z.shape[1]:
        yield Symptom(
            f"{len(rows.far):,} of {len(z):,} rows are farther out than any sample of the base "
            f"(median: {median:.3g} nats): the flow would never generate such rows.",
            evidence,
        )
    elif 0 < latent_spread < COLLAPSED:
        yield Symptom(
            f"All {len(z):,} rows lie close together in the latent space: no coordinate has a "
            f"standard deviation above {latent_spread:.2g}, and samples of the base have 1.",
            evidence,
        )


@check(
    "KF503",
    "a few rows are farther out than any sample",
    severity="warning",
    cause="The flow was not trained on such rows, and extrapolates.",
    fix="Transform the columns with heavy tails (a logarithm, ranks), use a base with heavier "
    "tails, or also report the median.",
)
def few_rows_far_out(m: Measurements) -> Iterator[Symptom]:
    """In 500 rows or more, a few (at most one in twenty) have latents that are 30 nats less
    likely than the least likely of 4,096 samples of the base. These rows dominate the mean of
    log_prob. If no measured slope is as steep as a map from a sample to these rows has to be, the
    tails of the data are heavier than those of the flow
    ([Verine and others](theory/depth-bound.md)).

    Example:
        flow = kf.Flow(kf.StandardNormal(2), kf.bijections.ElementwiseAffine(2))
        x = torch.randn(1000, 2)
        x[17] = 40
    """
    rows = encoded(m)
    if rows is None or len(rows.x) < TAIL_ROWS or not 0 < rows.shares[rows.far].sum() <= FEW:
        return
    log_prob = rows.base_log_prob + rows.log_det.double()
    finite = torch.isfinite(log_prob)
    mean, mean_without = (
        mean_of(log_prob[kept], shares_of(rows.shares[kept], len(log_prob))).item()
        for kept in (finite, finite.index_fill(0, rows.far, False))
    )
    # The least slope of a map that sends a sample of the base to the furthest row, and the
    # largest singular value of the map from latent to data at the points.
    standardized = m.flow.standardization(rows.x)[0].flatten(1).double()
    away = (standardized - standardized.median(dim=0).values).norm(dim=1)
    needed = (away[rows.far].max() / rows.samples.flatten(1).double().norm(dim=1).max()).item()
    positive = m.profile.sigma_min[-1][m.profile.sigma_min[-1] > 0]
    measured = (1 / positive.min()).item() if len(positive) else float("nan")
    worst, below = int(rows.below.argmax()), rows.below.max().item()
    yield Symptom(
        f"{len(rows.far)} of {len(rows.x)} rows are farther out than any sample of the base; the "
        f"worst, {m.name_row(worst)}, by {below:.3g} nats. The mean of log_prob is {mean:.4g}, "
        f"and {mean_without:.4g} without them.",
        {
            "far": len(rows.far),
            "rows": len(rows.x),
            "worst_row": worst,
            "nats_below": below,
            "mean": mean,
            "mean_without": mean_without,
            "slope_needed": needed,
            "slope_measured": measured,
        },
        cause=f"The tails of the data are heavier than those of the flow: a map that reaches "
        f"these rows needs a slope of {needed:.2g}, and the largest measured slope is "
        f"{measured:.2g}."
        if needed > measured
        else None,
    )


def _spreads(rows: Tensor, shares: Tensor) -> Tensor:
    """Returns the standard deviation of each column; nan for few rows."""
    is_known = effective_rows(shares) >= SPREAD_ROWS
    return spread_of(rows, shares) if is_known else torch.full_like(rows[0], torch.nan)


def _fits(z: Tensor, samples: Tensor, shares: Tensor) -> bool:
    """Returns whether many latents have about the means and standard deviations of samples."""
    if effective_rows(shares) < SPREAD_ROWS:
        return False
    spread = samples.std(0)
    ratio = _spreads(z, shares) / spread
    near = (mean_of(z, shares) - samples.mean(0)).abs() < OFF_LATENT * spread
    return bool((near & (ratio > 1 / OFF_RATIO) & (ratio < OFF_RATIO)).all())


def _unstandardized_column(means: Tensor, spreads: Tensor) -> int | None:
    """Returns the first column that is not even roughly standardized; None if there is none."""
    low, high = OFF_SPREADS
    off = means.abs() > OFF_MEAN
    off |= (spreads > high) | ((spreads < low) & (spreads > 0))
    return int(off.nonzero()[0]) if off.any() else None


class LatentFit(NamedTuple):
    """Encoded rows, by their weights, against samples of the base."""

    rows: int
    name: str  # of what has the largest significant Kolmogorov-Smirnov distance
    distance: float  # 0 if no distance is significant
    correlation: float  # largest significant difference of a correlation of two coordinates
    pair: tuple[int, int]  # these two coordinates


@measurement("encoded rows")
def latent_fit(m: Measurements) -> LatentFit | None:
    """Compares encoded rows, 200 at least (or as informative), with the base; None for fewer."""
    rows = encoded(m)
    if rows is None or not torch.isfinite(rows.z).all():
        return None
    n = effective_rows(rows.shares)
    if n < LEAST_ROWS:
        return None
    z, base = rows.z.flatten(1).cpu().double(), rows.samples.flatten(1).cpu().double()
    pairs = {"log_prob of the base": (rows.base_log_prob, rows.samples_log_prob)}
    related, pair = 0.0, (0, 0)
    if m.contexts is None:  # coordinates of rows with different contexts mix their distributions
        most, count = m.effort.limit(COORDINATES), z.shape[1]
        separate = m.up_to(most, count, "{} coordinates of the encoded rows")
        pairs |= {f"coordinate {i}": (z[:, i], base[:, i]) for i in range(separate)}
        generator = torch.Generator().manual_seed(6)
        along = torch.randn(DIRECTIONS, count, generator=generator, dtype=torch.float64)
        pairs |= {f"direction {i}": (z @ axis, base @ axis) for i, axis in enumerate(along)}
        equal = shares_of(None, len(base))
        off = (_correlations(z, rows.shares.cpu()) - _correlations(base, equal)).abs()
        related, pair = off.max().item(), divmod(int(off.argmax()), count)
    shares = None if m.weights is None else rows.shares.cpu()
    tests = {name: kolmogorov_smirnov(*pair, shares) for name, pair in pairs.items()}
    significant = {
        name: d for name, (d, chance) in tests.items() if len(pairs) * chance <= UNLIKELY
    }
    name, distance = max(significant.items(), key=lambda item: item[1], default=("", 0.0))
    return LatentFit(len(z), name, distance, related if n * related**2 > 50 else 0.0, pair)


@check(
    "KF216",
    "encoded rows do not look like the base",
    severity="note",
    cause="The flow does not fit these rows: they are from another distribution than the training "
    "rows, a mode or a feature was missed, or the training was too short.",
    fix="Compare samples with the rows, column by column. Train longer or with a larger model, on "
    "rows like these.",
)
def encoded_rows_differ(m: Measurements) -> Iterator[Symptom]:
    """A flow that fits its data turns rows into samples of the base. The doctor compares up to
    4,096 encoded rows, at least 200, with samples of the base: the log_prob of the base, each
    coordinate, projections (Kolmogorov-Smirnov), and the correlations of coordinates. A distance
    above 0.1 at a significance of one in ten million is a note, above 0.25 a warning.

    Example:
        flow = kf.Flow(kf.StandardNormal(2), kf.bijections.ElementwiseAffine(2))
        x = torch.randn(1000, 2)
        x[:500, 0] += 4
    """
    result = latent_fit(m)
    if result is None or wrong_scale(m) or not m.data_errors.max().item() <= TOLERATED:
        return
    rows, name, distance, related, (a, b) = result
    start = "Encoded rows do not look like samples of the base:"
    if distance >= VISIBLE and distance >= related:
        yield Symptom(
            f"{start} the Kolmogorov-Smirnov distance of {name} is {distance:.2f} over {rows:,} "
            "rows.",
            {"kolmogorov_smirnov": distance, "rows": rows},
            severity="warning" if distance >= LARGE else None,
        )
    elif related >= RELATED:
        yield Symptom(
            f"{start} coordinates {a} and {b} have a correlation that differs by {related:.2f} "
            f"over {rows:,} rows.",
            {"correlation": related, "rows": rows},
            severity="warning" if related >= STRONGLY else None,
        )


def _correlations(rows: Tensor, shares: Tensor) -> Tensor:
    """Returns the correlations of the columns, (n, n), with zeros on the diagonal."""
    centered = (rows - mean_of(rows, shares)) * shares.sqrt()[:, None]
    scaled = centered / centered.norm(dim=0).clamp_min(1e-300)
    return (scaled.T @ scaled).fill_diagonal_(0)
