"""Rules on a likelihood that a few rows decide, and on rows in other units."""

from collections.abc import Iterator

from kappaflow.bijections import Domain, Standardize
from kappaflow.diagnosis.finding import Finding
from kappaflow.diagnosis.measured import Measured

FEW = 0.05  # of the points: more, and the flow was trained on others
ROWS = 500  # fewer say too little of a tail
ABSURD, SEVERAL = 30.0, 8  # nats for each coordinate (some 8 deviations), and rows at least
COLLAPSED = 0.05  # standard deviation of the latents, where draws have 1
# Mean and standard deviations of columns that nobody would call standardized.
OFF_MEAN, OFF_SPREADS = 3.0, (0.2, 5.0)


def tail_explodes(m: Measured) -> Iterator[Finding]:
    """KF503: a few points lie further out than any draw, and carry the mean."""
    found = m.outliers
    if found is None or not 0 < len(found.far) <= FEW * found.rows or found.rows < ROWS:
        return
    steep = found.slope_needed > found.slope_measured
    yield Finding(
        code="KF503",
        severity="warning",
        layer=None,
        message=(
            f"{len(found.far)} of {found.rows} points lie further out than any draw of the base, "
            f"the worst, {m.name_row(found.worst)}, by {found.below:.3g} nats: log_prob is "
            f"{found.mean:.4g} in the mean and {found.mean_without:.4g} without them."
        ),
        cause=(
            f"Their tails are heavier than the flow's: a map that takes a draw there has a slope "
            f"of {found.slope_needed:.2g} somewhere, and the largest seen is "
            f"{found.slope_measured:.2g}."
            if steep
            else "The flow was not trained on such points, and extrapolates."
        ),
        cure=(
            "Transform the columns with heavy tails (a logarithm, ranks), take a base with "
            "heavier tails, or report the median too."
        ),
        evidence={
            "far": len(found.far),
            "rows": found.rows,
            "worst_row": found.worst,
            "nats_below": found.below,
            "mean": found.mean,
            "mean_without": found.mean_without,
            "slope_needed": found.slope_needed,
            "slope_measured": found.slope_measured,
        },
    )


def other_units(m: Measured) -> Iterator[Finding]:
    """KF403: a standardization that was never fitted, or rows that the flow would never draw."""
    found = m.outliers
    if found is None:
        return
    cause = "The rows are in other units than those the flow was trained on, or it is not trained."
    cure = (
        "Give the rows in the units, and with the transformations, of the training rows; train "
        "the flow on such rows if it is not trained."
    )
    off = _off_column(m)
    unfitted = [part for part in m.flow.units if not getattr(part, "fitted", True)]
    if off is not None and any(isinstance(part, (Domain, Standardize)) for part in unfitted):
        message = (
            "The flow's standardization was never fitted, and the rows are not standardized: "
            f"column {off} has mean {found.means[off]:.3g}"
            + (
                ""
                if found.spreads[off].isnan()
                else f" and standard deviation {found.spreads[off]:.3g}"
            )
            + "."
        )
        cause = "The flow was neither trained nor given the mean and deviation of its columns."
        cure = "Call kappaflow.fit, or flow.standardization.fit(x) with the training rows."
    elif found.rows >= SEVERAL and found.median_below > ABSURD * m.dimensions:
        message = (
            f"{len(found.far):,} of {found.rows:,} rows lie further out than any of the draws of "
            f"the base, by {found.median_below:.3g} nats in the median: the flow would never "
            "generate such rows."
        )
    elif 0 < found.latent_spread < COLLAPSED:
        message = (
            f"All {found.rows:,} rows lie close together in the latent space: no coordinate has a "
            f"standard deviation above {found.latent_spread:.2g}, where draws of the base have 1."
        )
    else:
        return
    yield Finding(
        code="KF403",
        severity="error",
        layer=None,
        message=message,
        cause=cause,
        cure=cure,
        evidence={
            "rows": found.rows,
            "far": len(found.far),
            "median_nats_below": found.median_below,
            "latent_spread": found.latent_spread,
        },
    )


def _off_column(m: Measured) -> int | None:
    """Returns the first column that is not even roughly standardized, None where all are."""
    found = m.outliers
    if found is None:
        return None
    low, high = OFF_SPREADS
    off = found.means.abs() > OFF_MEAN
    off |= (found.spreads > high) | ((found.spreads < low) & (found.spreads > 0))
    return int(off.nonzero()[0]) if off.any() else None
