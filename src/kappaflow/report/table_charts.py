"""Charts of a report on a table: single columns, scores of other rows, and the latent."""

import math
from collections.abc import Sequence

import numpy as np

from kappaflow.report.charts import (
    DATA,
    INK,
    SAMPLES,
    Chart,
    Panel,
    Rule,
    histogram,
    line,
    single_chart,
)
from kappaflow.report.content import Latent, Marginal, ScoreDensities
from kappaflow.report.numbers import drawable
from kappaflow.report.result import Separation

MOST_MARGINALS = 40


def marginals_chart(parts: Sequence[Marginal]) -> Chart | None:
    """Returns a histogram for each column; if there are many, for those that differ most."""
    if not parts:
        return None
    different = sorted(parts, key=total_variation, reverse=True)[:MOST_MARGINALS]
    names, left_out = {part.column for part in different}, ""
    if len(parts) > MOST_MARGINALS:
        left_out = (
            f" The page shows the {MOST_MARGINALS} of {len(parts)} columns that differ most."
        )
    return Chart(
        name="marginals",
        title="One column at a time",
        caption="The outline should follow the filled shape, with its peaks, gaps and tails. A "
        "smooth outline over separate peaks means that the flow connects what is separate in the "
        f"data.{left_out}",
        panels=[marginal_panel(part) for part in parts if part.column in names],
        columns=4,
        small=True,
        height=150,
    )


def total_variation(part: Marginal) -> float:
    """Returns the total variation distance of two histograms; 1 if it is unknown."""
    with np.errstate(all="ignore"):
        gaps = np.subtract(part.data, part.samples) * np.diff(part.edges)
        total = float(np.abs(gaps).sum() / 2)
    return total if math.isfinite(total) else 1.0


def marginal_panel(part: Marginal, rows: str = "held-out data") -> Panel:
    """Returns the histograms of one column, for data and for samples."""
    return Panel(
        title=part.column,
        x="value (column's unit)",
        y="density (per unit)",
        y_range=(0, None),
        series=[
            histogram(rows, part.edges, part.data, DATA, filled=True),
            histogram("samples", part.edges, part.samples, SAMPLES, filled=False),
        ],
    )


def separation_chart(part: Separation, scores: ScoreDensities, number: int) -> Chart:
    """Returns the scores of rows like the training data and of other rows."""
    return single_chart(
        f"separation-{number}",
        part.name,
        "The two shapes should overlap little, with the filled one on the right. The AUC is the "
        "chance that a row like the training data scores above another row: 0.5 is a coin toss, 1 "
        "is perfect.",
        x="log_prob (nats per row)",
        y="density (per nat)",
        y_range=(0, None),
        series=[
            histogram(
                "like the training data", scores.edges, scores.density_in, DATA, filled=True
            ),
            histogram("other rows", scores.edges, scores.density_out, SAMPLES, filled=False),
        ],
    )


def latent_charts(latent: Latent, rows: str = "held-out rows") -> list[Chart]:
    """Returns the histogram of all latent coordinates, and mean and deviation of each."""
    charts = [_latent_histogram(latent, rows)] if latent.density else []
    return [*charts, _latent_coordinates(latent)] if latent.coordinates else charts


def _latent_histogram(latent: Latent, rows: str) -> Chart:
    edges = latent.edges
    middles = [(a + b) / 2 for a, b in zip(edges[:-1], edges[1:], strict=True)]
    return single_chart(
        "latent",
        "All latent coordinates",
        "The filled histogram should fill the dashed curve and end where it ends. Shoulders, "
        "holes and long tails are structure of the data that the flow has not removed.",
        x="latent coordinate (standard deviations)",
        y="density (per standard deviation)",
        y_range=(0, None),
        series=[
            histogram(rows, edges, latent.density, DATA, filled=True),
            line(latent.base, middles, latent.normal, INK, kind="dashed"),
        ],
    )


def _latent_coordinates(latent: Latent) -> Chart:
    numbers = range(1, len(latent.coordinates) + 1)
    means = [mean for mean, _ in latent.coordinates]
    deviations = [deviation for _, deviation in latent.coordinates]
    shown = [v for v in drawable([*means, *deviations]) if v is not None]
    return single_chart(
        "latent-coordinates",
        "Each latent coordinate",
        "Filled points should lie on the line at 1 and open ones on the line at 0. A coordinate "
        "far from both does not follow the base yet.",
        x="latent coordinate (number)",
        x_range=(0, len(numbers) + 1),
        x_whole=True,
        y="value (standard deviations)",
        y_range=(min([-0.25, *shown]) - 0.1, max([1.25, *shown]) + 0.1),
        series=[
            line("standard deviation, should be 1", numbers, deviations, DATA, kind="points"),
            line("mean, should be 0", numbers, means, SAMPLES, kind="points", mark="open diamond"),
        ],
        rules=[Rule(at=at) for at in (0, 1)],
    )
