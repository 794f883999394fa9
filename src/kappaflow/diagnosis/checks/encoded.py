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
from kappaflow.diagnosis.tensors import in_chunks
from kappaflow.flows.rows import describe_column

LARGE_ROWS = 64  # rows above 500 dimensions
BASE_SAMPLES = 4096  # rows and samples at most, without a context; with contexts, one for each row
FAR = 30.0  # nats below the lowest density of all samples of the base, for a row to be far out
SPREAD_ROWS = 32  # least number of rows for a standard deviation
FEW = 0.05  # share of rows far out above which the flow was trained on other data
TAIL_ROWS = 500  # least number of rows to examine a tail
ABSURD, SEVERAL = 30.0, 8  # nats per coordinate (about 8 standard deviations); least rows
COLLAPSED = 0.05  # standard deviation of collapsed latents; samples of the base have 1
MEANS_AND_SLOPES = ("mean", "mean_without", "slope_needed", "slope_measured")
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


@measurement("encoded rows and samples of the base")
def encoded(m: Measurements) -> Encoded | None:
    """Encodes up to 4,096 rows, or 64 above 500 dimensions. Returns None without rows."""
    if m.rows is None:
        return None
    flow, is_large = m.flow, m.rows[0].numel() > DENSE_UP_TO
    most = m.effort.limit(LARGE_ROWS if is_large else BASE_SAMPLES)
    rows = m.up_to(most, len(m.rows), "encoded rows and outliers: {} rows")
    x, context = m.rows[:rows], None if m.contexts is None else m.contexts[:rows]
    z, log_det = in_chunks(flow.bijection, x, context)
    count = len(x) if context is not None else max(len(x), min(most, BASE_SAMPLES))
    samples = latent_points(flow, count, context, torch.Generator().manual_seed(4))
    densities = (flow.base.log_prob(values, context).double() for values in (z, samples))
    base_log_prob, samples_log_prob = densities
    return Encoded(x, z, log_det, base_log_prob, samples, samples_log_prob)


class Outliers(NamedTuple):
    """The likelihood of the rows with and without the rows far out.

    Far-out rows have latents that are `FAR` nats less likely than any sample of the base.
    """

    rows: int
    far: Tensor  # indices of the rows far out
    below: Tensor  # nats by which each latent is less likely than any sample of the base
    mean: float  # of log_prob
    mean_without: float
    slope_needed: float  # least slope of a map from a sample of the base to the furthest row
    slope_measured: (
        float  # the largest singular value of the map from latent to data at the points
    )
    latent_spread: float  # largest standard deviation of a coordinate of the latents
    fits: bool  # whether the latents have roughly the means and deviations of samples
    means: Tensor  # of each standardized column, (D,)
    spreads: Tensor  # standard deviation of each standardized column; nan for few rows


@measurement("rows far out", checked="scale of the data")
def outliers(m: Measurements) -> Outliers | None:
    """Compares the latents of the rows with samples of the base. Returns None without rows."""
    rows = encoded(m)
    if rows is None:
        return None
    log_prob = rows.base_log_prob + rows.log_det.double()
    least = rows.samples_log_prob.nan_to_num(torch.inf).min()  # infinite if none has a density
    below = (least - rows.base_log_prob).nan_to_num(0, posinf=0)
    far = (below > FAR).nonzero().flatten()
    near = torch.isfinite(log_prob).index_fill(0, far, False)
    standardized = m.flow.standardization(rows.x)[0].flatten(1).double()
    z, samples = rows.z.flatten(1).double(), rows.samples.flatten(1).double()
    away = (standardized - standardized.median(dim=0).values).norm(dim=1)
    reach = samples.norm(dim=1).max()
    positive = m.profile.sigma_min[-1][m.profile.sigma_min[-1] > 0]
    return Outliers(
        rows=len(rows.x),
        far=far,
        below=below,
        mean=log_prob[torch.isfinite(log_prob)].mean().item(),
        mean_without=log_prob[near].mean().item(),
        slope_needed=(away[far].max() / reach).item() if len(far) else 0.0,
        slope_measured=(1 / positive.min()).item() if len(positive) else float("nan"),
        latent_spread=_spreads(z).max().item(),
        fits=_fits(z, samples),
        means=standardized.mean(0),
        spreads=_spreads(standardized),
    )


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
    result = outliers(m)
    if result is None:
        return
    median = result.below.median().item()
    evidence = {
        "rows": result.rows,
        "far": len(result.far),
        "median_nats_below": median,
        "latent_spread": result.latent_spread,
    }
    column = None if result.fits else _unstandardized_column(result)
    unfitted = [part for part in m.flow.standardization if not getattr(part, "fitted", True)]
    if column is not None and any(isinstance(part, (Domain, Standardize)) for part in unfitted):
        spread, name = result.spreads[column], describe_column(m.flow.columns, column)
        also = "" if spread.isnan() else f" and standard deviation {spread:.3g}"
        yield Symptom(
            "The flow's standardization was never fitted, and the rows are not standardized: "
            f"{name} has mean {result.means[column]:.3g}{also}.",
            evidence,
            cause="The flow was not trained, and does not know the mean and the standard "
            "deviation of its columns.",
            fix="Call kappaflow.fit, or flow.standardization.fit(x) with the training rows.",
        )
    elif result.rows >= SEVERAL and median > ABSURD * m.standardized[0].numel():
        yield Symptom(
            f"{len(result.far):,} of {result.rows:,} rows are farther out than any sample of the "
            f"base (median: {median:.3g} nats): the flow would never generate such "
            "rows.",
            evidence,
        )
    elif 0 < result.latent_spread < COLLAPSED:
        yield Symptom(
            f"All {result.rows:,} rows lie close together in the latent space: no coordinate has "
            f"a standard deviation above {result.latent_spread:.2g}, and samples of the base "
            "have 1.",
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
    tails of the data are heavier than those of the flow ([Verine and others](theory/index.md)).

    Example:
        flow = kf.Flow(kf.StandardNormal(2), kf.bijections.ElementwiseAffine(2))
        x = torch.randn(1000, 2)
        x[17] = 40
    """
    result = outliers(m)
    if result is None or not 0 < len(result.far) <= FEW * result.rows or result.rows < TAIL_ROWS:
        return
    worst, below = int(result.below.argmax()), result.below.max().item()
    yield Symptom(
        f"{len(result.far)} of {result.rows} rows are farther out than any sample of the base; "
        f"the worst, {m.name_row(worst)}, by {below:.3g} nats. The mean of "
        f"log_prob is {result.mean:.4g}, and {result.mean_without:.4g} without them.",
        {
            "far": len(result.far),
            "rows": result.rows,
            "worst_row": worst,
            "nats_below": below,
            **{name: getattr(result, name) for name in MEANS_AND_SLOPES},
        },
        cause=f"The tails of the data are heavier than those of the flow: a map that reaches "
        f"these rows needs a slope of {result.slope_needed:.2g}, and the largest measured slope "
        f"is {result.slope_measured:.2g}."
        if result.slope_needed > result.slope_measured
        else None,
    )


def _spreads(rows: Tensor) -> Tensor:
    """Returns the standard deviation of each column; nan for few rows."""
    return rows.std(0) if len(rows) >= SPREAD_ROWS else torch.full_like(rows[0], torch.nan)


def _fits(z: Tensor, samples: Tensor) -> bool:
    """Returns whether latents have roughly the means and standard deviations of samples.

    It is False for few rows.
    """
    if len(z) < SPREAD_ROWS:
        return False
    spread = samples.std(0)
    ratio = _spreads(z) / spread
    near = (z.mean(0) - samples.mean(0)).abs() < OFF_LATENT * spread
    return bool((near & (ratio > 1 / OFF_RATIO) & (ratio < OFF_RATIO)).all())


def _unstandardized_column(result: Outliers) -> int | None:
    """Returns the first column that is not even roughly standardized; None if there is none."""
    low, high = OFF_SPREADS
    off = result.means.abs() > OFF_MEAN
    off |= (result.spreads > high) | ((result.spreads < low) & (result.spreads > 0))
    return int(off.nonzero()[0]) if off.any() else None


class LatentFit(NamedTuple):
    """Encoded rows against samples of the base."""

    rows: int
    distances: dict[str, float]  # significant Kolmogorov-Smirnov distances, by what is compared
    correlation: float  # largest difference of a correlation between two coordinates
    pair: tuple[int, int]  # these two coordinates


@measurement("encoded rows", checked="encoded rows")
def latent_fit(m: Measurements) -> LatentFit | None:
    """Compares encoded rows with the base: log_prob, coordinates, projections, correlations.

    Returns None for fewer than 200 encoded rows.
    """
    rows = encoded(m)
    if rows is None or len(rows.z) < LEAST_ROWS:
        return None
    z, base = rows.z.flatten(1).cpu().double(), rows.samples.flatten(1).cpu().double()
    if not torch.isfinite(z).all():
        return None
    pairs = {"log_prob of the base": (rows.base_log_prob.cpu(), rows.samples_log_prob.cpu())}
    if m.contexts is None:  # coordinates of rows with different contexts mix their distributions
        count = z.shape[1]
        separate = m.up_to(
            m.effort.limit(COORDINATES), count, "{} coordinates of the encoded rows"
        )
        pairs |= {f"coordinate {i}": (z[:, i], base[:, i]) for i in range(separate)}
        generator = torch.Generator().manual_seed(6)
        along = torch.randn(DIRECTIONS, count, generator=generator, dtype=torch.float64)
        pairs |= {f"direction {i}": (z @ axis, base @ axis) for i, axis in enumerate(along)}
    distances = {}
    for name, (own, others) in pairs.items():
        distance, significance = kolmogorov_smirnov(own, others)
        if len(pairs) * significance <= UNLIKELY:
            distances[name] = distance
    off = (
        (_correlations(z) - _correlations(base)).abs() if m.contexts is None else z.new_zeros(1, 1)
    )
    pair = divmod(int(off.argmax()), len(off))
    return LatentFit(len(z), distances, off.max().item(), pair)


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
    name, distance = max(result.distances.items(), key=lambda one: one[1], default=("", 0.0))
    related = result.correlation if result.rows * result.correlation**2 > 50 else 0.0
    if distance >= VISIBLE and distance >= related:
        yield Symptom(
            f"Encoded rows do not look like samples of the base: the Kolmogorov-Smirnov distance "
            f"of {name} is {distance:.2f} over {result.rows:,} rows.",
            {"kolmogorov_smirnov": distance, "rows": result.rows},
            severity="warning" if distance >= LARGE else None,
        )
    elif related >= RELATED:
        a, b = result.pair
        yield Symptom(
            f"Encoded rows do not look like samples of the base: coordinates {a} and {b} have a "
            f"correlation that differs by {related:.2f} over {result.rows:,} rows.",
            {"correlation": related, "rows": result.rows},
            severity="warning" if related >= STRONGLY else None,
        )


def _correlations(rows: Tensor) -> Tensor:
    """Returns the correlations of the columns, (n, n), with zeros on the diagonal."""
    centered = rows - rows.mean(0)
    scaled = centered / centered.norm(dim=0).clamp_min(1e-300)
    return (scaled.T @ scaled).fill_diagonal_(0)
