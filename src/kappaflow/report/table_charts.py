"""Charts of a report on a table: data against samples, scores of other rows, and the latent."""

import statistics
from collections.abc import Sequence

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
from kappaflow.report.content import Latent, Marginal, Pairs, Separation
from kappaflow.report.numbers import drawable, fixed, significant, what_is_not_drawn

MOST_MARGINALS = 40
MOST_PAIRED_COLUMNS = 5
MOST_POINTS = 6000  # largest number of points on a page: each is an element of the document

Range = tuple[float, float]
Rows = list[list[float | None]]


def marginals_chart(parts: Sequence[Marginal]) -> Chart | None:
    """Returns a histogram for each column; if there are many, for those that differ most."""
    if not parts:
        return None
    shown, left_out = list(parts), ""
    if len(parts) > MOST_MARGINALS:
        worst = sorted(parts, key=total_variation, reverse=True)[:MOST_MARGINALS]
        kept = {id(part) for part in worst}
        shown = [part for part in parts if id(part) in kept]
        left_out = (
            f" The page shows the {MOST_MARGINALS} of {len(parts)} columns that differ most."
        )
    return Chart(
        name="marginals",
        title="One column at a time",
        caption="The outline should follow the filled shape, with its peaks, gaps and tails. A "
        "smooth outline over separate peaks means that the flow connects what is separate in the "
        f"data.{left_out}",
        panels=[_marginal(part) for part in shown],
        columns=4,
        small=True,
        height=150,
    )


def total_variation(part: Marginal) -> float:
    """Returns the total variation distance of two histograms; 1 if it is unknown."""
    edges, data, samples = drawable(part.edges), drawable(part.data), drawable(part.samples)
    total = 0.0
    for left, right, a, b in zip(edges[:-1], edges[1:], data, samples, strict=False):
        if left is None or right is None or a is None or b is None:
            return 1.0
        total += abs(a - b) * (right - left) / 2
    return total


def _marginal(part: Marginal, rows: str = "held-out data") -> Panel:
    return Panel(
        title=part.column,
        x="value (column's unit)",
        y="density (per unit)",
        y_from_zero=True,
        series=[
            histogram(rows, part.edges, part.data, DATA, filled=True),
            histogram("samples", part.edges, part.samples, SAMPLES, filled=False),
        ],
        remark=what_is_not_drawn([part.edges, part.data, part.samples]),
        alt=f"Histograms of column {part.column}: {rows} and samples.",
    )


def pairs_chart(parts: Pairs) -> Chart | None:
    """Returns a point cloud for each pair of columns, in the lower triangle of a grid."""
    columns = min(len(parts.columns), MOST_PAIRED_COLUMNS)
    cells = columns * (columns - 1) // 2
    if cells == 0 or not parts.data:
        return None
    points = MOST_POINTS // (2 * cells)
    data, samples = (
        [drawable(row[:columns]) for row in rows[:points]] for rows in (parts.data, parts.samples)
    )
    frames = [_frame([row[i] for row in data]) for i in range(columns)]
    left_out = ""
    if len(parts.columns) > columns:
        left_out = f" The page shows the first {columns} of {len(parts.columns)} columns."
    return Chart(
        name="pairs",
        title="Two columns at a time",
        caption="Axes are in the units of the columns. The two colors should mix everywhere. A "
        "patch of one color is data that the flow never samples, or samples that look like no "
        f"data.{left_out}",
        panels=[
            _pair(parts.columns, j, i, (data, samples), frames)
            for i in range(1, columns)
            for j in range(i)
        ],
        columns=columns - 1,
        small=True,
        height=None,
    )


def corner_chart(parts: Pairs, marginals: Sequence[Marginal]) -> Chart:
    """Returns each pair of columns with its correlations, and densities on the diagonal."""
    clouds = ([drawable(row) for row in parts.data], [drawable(row) for row in parts.samples])
    frames = [_frame([row[i] for row in clouds[0]]) for i in range(len(parts.columns))]
    last = len(parts.columns) - 1
    panels = []
    for i, marginal in enumerate(marginals):
        for j in range(i):
            own, sampled = (_correlation(rows, i, j) for rows in clouds)
            panel = _pair(parts.columns, j, i, clouds, frames, "data", 2.5)
            changes = {
                "title": f"r {fixed(own, 2)}, samples {fixed(sampled, 2)}",
                "place": (i + 1, j + 1),
                "x": panel.x if i == last else "",
                "y": "" if j else panel.y,
            }
            panels.append(panel.model_copy(update=changes))
        own = {"place": (i + 1, i + 1), "x_range": frames[i], "y_hidden": True}
        own |= {"x": marginal.column if i == last else "", "y": ""}
        panels.append(_marginal(marginal, "data").model_copy(update=own))
    return Chart(
        name="corner",
        title="Data against samples",
        caption="",
        panels=panels,
        columns=len(parts.columns),
        small=True,
    )


def _correlation(rows: Rows, i: int, j: int) -> float | None:
    """Returns the correlation of two columns, over the rows with both values."""
    pairs = [(row[i], row[j]) for row in rows if row[i] is not None and row[j] is not None]
    try:
        return statistics.correlation(*zip(*pairs, strict=True))
    except (TypeError, statistics.StatisticsError):  # fewer than two rows, or a constant column
        return None


def _pair(
    columns: list[str],
    j: int,
    i: int,
    clouds: tuple[Rows, Rows],
    frames: Sequence[Range],
    rows_name: str = "held-out data",
    mark_size: float = 3.2,
) -> Panel:
    """Returns column i against column j, with the frame of the data."""
    samples = clouds[1]
    outside = sum(any(_is_outside(row[c], frames[c]) for c in (j, i)) for row in samples)
    return Panel(
        title=f"{columns[i]} against {columns[j]}",
        x=columns[j],
        y=columns[i],
        x_range=frames[j],
        y_range=frames[i],
        series=[
            line(
                name,
                [r[j] for r in rows],
                [r[i] for r in rows],
                tone,
                dash="none",
                mark_size=mark_size,
            )
            for rows, name, tone in zip(
                clouds, (rows_name, "samples"), (DATA, SAMPLES), strict=True
            )
        ],
        place=(i, j + 1),
        remark=f"{outside:,} of {len(samples):,} samples outside" if outside else "",
        alt=f"Points of columns {columns[j]} and {columns[i]}: {rows_name} and samples. "
        f"{outside} of {len(samples)} samples lie outside the frame.",
    )


def _frame(values: list[float | None]) -> Range:
    """Returns the range of the data, widened on both sides for samples outside it."""
    known = [value for value in values if value is not None]
    if not known:
        return 0.0, 1.0
    pad = 0.2 * (max(known) - min(known)) or 0.5
    return min(known) - pad, max(known) + pad


def _is_outside(value: float | None, frame: Range) -> bool:
    return value is None or not frame[0] <= value <= frame[1]


def separation_chart(part: Separation, number: int) -> Chart:
    """Returns the scores of rows like the training data and of other rows."""
    return single_chart(
        f"separation-{number}",
        part.name,
        "The two shapes should overlap little, with the filled one on the right. The AUC is the "
        "chance that a row like the training data scores above another row: 0.5 is a coin toss, 1 "
        "is perfect.",
        height=300,
        x="log_prob (nats per row)",
        y="density (per nat)",
        y_from_zero=True,
        series=[
            histogram("like the training data", part.edges, part.density_in, DATA, filled=True),
            histogram("other rows", part.edges, part.density_out, SAMPLES, filled=False),
        ],
        remark=what_is_not_drawn([part.edges, part.density_in, part.density_out]),
        alt=f"Histograms of log_prob for {part.name}: {part.rows_in} rows like the training data "
        f"and {part.rows_out} other rows. AUC {fixed(part.auc, 3)}.",
    )


def latent_charts(latent: Latent, rows: str = "held-out rows") -> list[Chart]:
    """Returns the histogram of all latent coordinates, and mean and deviation of each."""
    charts = [_latent_histogram(latent, rows)] if latent.density else []
    return [*charts, _latent_coordinates(latent)] if latent.coordinates else charts


def _latent_histogram(latent: Latent, rows: str) -> Chart:
    edges = latent.edges
    middles = [(a + b) / 2 for a, b in zip(edges[:-1], edges[1:], strict=True)]
    style = {"kind": "outline", "dash": "dash", "width": 1.5}
    return single_chart(
        "latent",
        "All latent coordinates",
        "The filled histogram should fill the dashed curve and end where it ends. Shoulders, "
        "holes and long tails are structure of the data that the flow has not removed.",
        height=300,
        x="latent coordinate (standard deviations)",
        y="density (per standard deviation)",
        y_from_zero=True,
        series=[
            histogram(rows, edges, latent.density, DATA, filled=True),
            line(latent.base, middles, latent.normal, INK, **style),
        ],
        remark=what_is_not_drawn([latent.density]),
        alt=f"Histogram of all latent coordinates of {rows}, with the density of the base. "
        f"{significant(latent.beyond_four)} of them lie beyond 4 standard deviations.",
    )


def _latent_coordinates(latent: Latent) -> Chart:
    numbers = range(1, len(latent.coordinates) + 1)
    means = [mean for mean, _ in latent.coordinates]
    deviations = [deviation for _, deviation in latent.coordinates]
    points = {"dash": "none", "mark_size": 7 if len(numbers) <= 100 else 4}
    shown = [v for v in drawable([*means, *deviations]) if v is not None]
    return single_chart(
        "latent-coordinates",
        "Each latent coordinate",
        "Filled points should lie on the line at 1 and open ones on the line at 0. A coordinate "
        "far from both does not follow the base yet.",
        height=300,
        x="latent coordinate (number)",
        x_range=(0, len(numbers) + 1),
        x_whole=True,
        y="value (standard deviations)",
        y_range=(min([-0.25, *shown]) - 0.1, max([1.25, *shown]) + 0.1),
        series=[
            line("standard deviation, should be 1", numbers, deviations, DATA, **points),
            line("mean, should be 0", numbers, means, SAMPLES, mark="open diamond", **points),
        ],
        rules=[Rule(at=at, dash="dash", tone=INK) for at in (0, 1)],
        alt=f"Mean and standard deviation of each of {len(numbers)} latent coordinates.",
    )
