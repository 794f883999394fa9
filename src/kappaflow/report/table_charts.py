"""Charts of a report on a table: single columns, scores of other rows, and the latent."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from kappaflow.goodness import Marginal
from kappaflow.goodness.deviation import number
from kappaflow.goodness.given import GivenDensity
from kappaflow.report.charts import (
    DATA,
    INK,
    MUTED,
    SAMPLES,
    Chart,
    Panel,
    Rule,
    histogram,
    line,
    single_chart,
)
from kappaflow.report.content import Latent, ScoreDensities
from kappaflow.report.numbers import drawable, significant
from kappaflow.report.result import Separation

MOST_MARGINALS = 12
NOTABLE = 3  # standard errors
LOG_FROM = 1_000  # ratio of densities from which their axis is logarithmic
LONGEST = 24  # characters of a name in a title
LEAST_P = 1e-12
ROWS = "held-out rows"


def marginals_chart(parts: Sequence[Marginal], most: int = MOST_MARGINALS) -> Chart:
    """Returns histograms of each column; if there are many, of those that differ most."""
    worst = sorted(range(len(parts)), key=lambda i: parts[i].p_value)[:most]
    left_out = ""
    if len(parts) > most:
        left_out = f" The page shows the {most} of {len(parts)} columns that differ most."
    return Chart(
        name="marginals",
        title="One column at a time",
        caption="Shares of held-out rows and of samples per unit of the column; the first and the "
        "last bin also hold what lies beyond. Below are their differences in standard errors, "
        "blue where samples are missing; one bin of 370 exceeds a dotted line by chance. p is "
        "corrected for the number of tests: below 0.01, chance does not explain the difference, "
        f"which may be small.{left_out}",
        panels=[marginal_panel(parts[i]) for i in sorted(worst)],
        small=True,
        height=250,
    )


def marginal_panel(part: Marginal) -> Panel:
    """Returns the histograms of a column with their differences in standard errors below."""
    pulls, ends = np.array(part.pulls), (part.edges[0], part.edges[-1])
    sides = ((np.maximum(pulls, 0), DATA), (np.minimum(pulls, 0), SAMPLES))
    largest = float(np.abs(pulls).max(initial=5.0))
    power = 10 ** np.floor(np.log10(largest))
    largest = 1.05 * float(power * next(n for n in (1, 2, 5, 10) if n * power >= largest))
    below = Panel(
        x=part.column,
        y="difference (SE)",
        x_range=ends,
        y_range=(-largest, largest),
        series=[
            *[histogram("", part.edges, [*side], tone, filled=True) for side, tone in sides],
            histogram("", part.edges, part.pulls, MUTED, filled=False),
        ],
        rules=[Rule(at=at) for at in (-NOTABLE, NOTABLE)],
    )
    title = f"{part.column[:LONGEST]}: {p_phrase(part.p_value)}"
    return replace(densities_panel(part, title), x_range=ends, below=below)


def densities_panel(part: Marginal | GivenDensity, title: str) -> Panel:
    """Returns the histograms of a column; the axis is logarithmic if densities differ widely."""
    widths = np.diff(part.edges)
    densities = [np.array(shares) / widths for shares in (part.rows, part.samples)]
    known = np.concatenate(densities)
    low, high = known[known > 0].min(), known.max()
    is_log = bool(high > LOG_FROM * low)
    floor = float(low) / 10 if is_log else 0.0  # below a logarithmic axis
    x = [part.edges[0], *part.edges]
    lists = [[floor, *np.maximum(density, floor), floor] for density in densities]
    return Panel(
        title=title,
        x=part.column,
        y="density",
        y_log=is_log,
        y_range=(float(low) / 2, 2 * float(high)) if is_log else (0, None),
        series=[
            line(ROWS, x, lists[0], DATA, kind="area"),
            line("samples", x, lists[1], SAMPLES, kind="steps"),
        ],
    )


def given_chart(parts: Sequence[GivenDensity]) -> Chart | None:
    """Returns the first columns at three contexts; None without any."""
    if not parts:
        return None
    columns = list(dict.fromkeys(part.column for part in parts))
    ordered = sorted(parts, key=lambda part: columns.index(part.column))
    panels = [densities_panel(part, _context_phrase(part)) for part in ordered]
    return Chart(
        name="given",
        title=f"Columns where {parts[0].context} is low, medium and high",
        caption=f"{parts[0].count:,} held-out rows around the 10, 50 and 90 % quantiles of "
        f"{parts[0].context}, and samples at their contexts.",
        panels=panels,
        small=True,
        height=170,
    )


def _context_phrase(part: GivenDensity) -> str:
    ends, width = (part.low, part.high), part.high - part.low
    is_whole = all(end.is_integer() for end in ends)
    low, high = (f"{end:,.0f}" if is_whole else number(end, width) for end in ends)
    return f"{part.context[:LONGEST]}: {low} to {high}"


def p_phrase(p_value: float) -> str:
    """Returns a p-value as text, such as "p = 0.4"."""
    digits = 2 if p_value < 0.1 else 1
    return f"p = {significant(p_value, digits)}" if p_value >= LEAST_P else "p < 10⁻¹²"


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
