"""The rule on a likelihood that a few points decide."""

from collections.abc import Iterator

from kappaflow.diagnosis.finding import Finding
from kappaflow.diagnosis.measured import Measured

FEW = 0.05  # of the points: more, and the flow was trained on others
ROWS = 500  # fewer say too little of a tail


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
            f"the worst, row {found.worst}, by {found.below:.3g} nats: log_prob is "
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
