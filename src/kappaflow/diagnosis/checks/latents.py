"""KF216: encoded rows, compared with samples of the base."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from kappaflow.diagnosis.check import Symptom, check, measurement
from kappaflow.diagnosis.checks.log_dets import TOLERATED
from kappaflow.diagnosis.checks.outliers import encoded, wrong_scale
from kappaflow.diagnosis.checks.samples import kolmogorov_smirnov
from kappaflow.diagnosis.measurements import Measurements

LEAST_ROWS = 200
COORDINATES = 64  # that are compared one by one
DIRECTIONS = 8  # random projections
UNLIKELY = 1e-7
VISIBLE, LARGE = 0.1, 0.25  # Kolmogorov-Smirnov distance of a note, and of a warning
RELATED, STRONGLY = 0.3, 0.6  # correlation of two coordinates of a note, and of a warning


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
