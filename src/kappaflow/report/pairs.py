"""Pairs of columns on the page of a table: correlations, and point clouds of data and samples."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from kappaflow.report.charts import DATA, SAMPLES, Chart, Heat, Panel, line
from kappaflow.report.content import Correlations, Marginal, Pairs
from kappaflow.report.numbers import count, drawable, fixed, is_finite
from kappaflow.report.page import Block, Charts, Heading, Picker, Table, Text
from kappaflow.report.table_charts import marginal_panel

ALL_PAIRS = 5  # columns at most, for a point cloud of each pair
SHOWN_PAIRS = 6  # point clouds of more columns, in addition to the one that the reader selects
SHOWN_DIFFERENCES = 10
NOTABLE = 3  # standard errors
MOST_POINTS = 6000  # of a chart: each is an element of the document

Range = tuple[float, float]
Rows = list[list[float | None]]


class Difference(NamedTuple):
    """A pair of columns with its correlations, their difference and its standard error."""

    first: str
    second: str
    data: float
    samples: float
    difference: float
    error: float


def differences(parts: Correlations) -> list[Difference]:
    """Returns the pairs whose two correlations are finite, the largest difference first.

    Source:
        Fieller, Hartley, Pearson 1957: the variance of Fisher's transform of a rank correlation is
        1.06 / (n - 3).

    Example:
        >>> one = Correlations(
        ...     columns=["a", "b"], left_out=0, rows=109, data=[[], [0.0]], samples=[[], [0.6]]
        ... )
        >>> [round(number, 3) for number in differences(one)[0][4:]]
        [0.6, 0.119]
    """
    unit = math.sqrt(1.06 / max(1, parts.rows - 3))
    pairs = [
        Difference(parts.columns[j], name, a, b, b - a, unit * math.hypot(1 - a * a, 1 - b * b))
        for name, data, samples in zip(parts.columns, parts.data, parts.samples, strict=True)
        for j, (a, b) in enumerate(zip(data, samples, strict=True))
        if is_finite(a) and is_finite(b)
    ]
    return sorted(pairs, key=lambda pair: -abs(pair.difference))


def correlation_blocks(parts: Correlations) -> list[Block]:
    """Returns the largest differences as a sentence and a table, and all as heat maps."""
    pairs = differences(parts)
    if not pairs:
        return []
    worst, notable = pairs[0], sum(abs(one.difference) > NOTABLE * one.error for one in pairs)
    among = f" among the {len(parts.columns)} columns that differ most" if parts.left_out else ""
    text = (
        f"Rank correlations (Spearman) show whether samples depend on each other as the data do. "
        f"The largest difference is that of {worst.first} and {worst.second}: "
        f"{fixed(worst.data, 2)} in held-out rows, {fixed(worst.samples, 2)} in samples. "
        f"{notable:,} of {count(len(pairs), 'pair')}{among} differ by more than {NOTABLE} "
        "standard errors."
    )
    rows = [
        [
            f"{one.first} and {one.second}",
            fixed(one.data, 2),
            fixed(one.samples, 2),
            f"{fixed(one.difference, 2)} ± {fixed(one.error, 2)}",
        ]
        for one in pairs[:SHOWN_DIFFERENCES]
    ]
    columns = ("Columns", "Held-out rows", "Samples", "Difference")
    return [
        Heading("Correlations", id="correlations"),
        Text(text),
        Table(columns, rows),
        Charts([correlations_chart(parts)]),
    ]


def correlations_chart(parts: Correlations) -> Chart:
    """Returns the correlations of data and of samples as two heat maps."""
    size = len(parts.columns)
    return Chart(
        name="correlations",
        title="Rank correlations",
        caption="The two maps should look alike. The color is the rank correlation of two "
        "columns, from −1 to 1.",
        panels=[
            Panel(
                title=title,
                x="column",
                y="column",
                heat=Heat(
                    values=_square(triangle),
                    x=(0, size - 1),
                    y=(0, size - 1),
                    limit=1,
                    names=parts.columns,
                ),
            )
            for title, triangle in (("Held-out data", parts.data), ("Samples", parts.samples))
        ],
        columns=2,
    )


def _square(triangle: list[list[float]]) -> Rows:
    """Returns a symmetric matrix with an empty diagonal."""
    size = len(triangle)
    return [
        [None if i == j else triangle[max(i, j)][min(i, j)] for j in range(size)]
        for i in range(size)
    ]


def pair_blocks(parts: Pairs, known: Correlations | None) -> list[Block]:
    """Returns point clouds: of all pairs of few columns; of many, some and one to select.

    Of many columns, those pairs are drawn whose correlations differ most.
    """
    names = parts.columns
    if len(names) <= ALL_PAIRS:
        shown = [(j, i) for i in range(len(names)) for j in range(i)]
    else:
        places = {name: place for place, name in enumerate(names)}
        worst = differences(known)[:SHOWN_PAIRS] if known else []
        shown = [
            (places[one.first], places[one.second])
            for one in worst
            if one.first in places and one.second in places
        ]
    if len(names) < 2 or not parts.data:
        return []
    blocks: list[Block] = [Charts([pairs_chart(parts, shown)])] if shown else []
    return blocks if len(names) <= ALL_PAIRS else [*blocks, _picker(parts, (shown or [(0, 1)])[0])]


def pairs_chart(parts: Pairs, shown: Sequence[tuple[int, int]]) -> Chart:
    """Returns a point cloud for each given pair; of few columns, in a triangle of a grid."""
    few = len(parts.columns) <= ALL_PAIRS
    clouds = _clouds(parts, MOST_POINTS // (2 * len(shown)))
    frames = _frames(clouds)
    last = len(parts.columns)
    cells = [(j, i) if j < i else None for i in range(1, last) for j in range(last - 1)]
    cells = cells if few else shown
    return Chart(
        name="pairs",
        title="Two columns at a time",
        caption="Axes are in the units of the columns. The two colors should mix everywhere. A "
        "patch of one color is data that the flow never samples, or samples that look like no "
        "data." + ("" if few else " These are the pairs whose correlations differ most."),
        panels=[pair and _pair(parts.columns, *pair, clouds, frames) for pair in cells],
        columns=len(parts.columns) - 1 if few else 3,
        small=True,
        height=None,
    )


def _picker(parts: Pairs, first: tuple[int, int]) -> Picker:
    """Returns the point cloud of a pair that the reader selects, which is `first` at first."""
    clouds = _clouds(parts, len(parts.data))
    frames = _frames(clouds)
    panel = _pair(parts.columns, *first, clouds, frames)
    chart = Chart(
        name="any-pair",
        title="Any two columns",
        caption="Select two columns. The frame is that of the held-out data.",
        panels=[panel],
        height=None,
    )
    columns = tuple([list(column) for column in zip(*rows, strict=True)] for rows in clouds)
    return Picker(chart, parts.columns, first, frames, columns)


def _clouds(parts: Pairs, most: int) -> tuple[Rows, Rows]:
    """Returns the first rows of data and of samples."""
    data, samples = (
        [drawable(row) for row in rows[:most]] for rows in (parts.data, parts.samples)
    )
    return data, samples


def corner_chart(parts: Pairs, marginals: Sequence[Marginal], known: Correlations | None) -> Chart:
    """Returns each pair of columns with its rank correlations, and densities on the diagonal."""
    pairs = differences(known) if known else []
    titles = {
        frozenset((one.first, one.second)): f"r {fixed(one.data, 2)}, "
        f"samples {fixed(one.samples, 2)}"
        for one in pairs
    }
    clouds = _clouds(parts, len(parts.data))
    frames = _frames(clouds)
    last = len(parts.columns) - 1
    panels: list[Panel | None] = []
    for i, marginal in enumerate(marginals):
        x = marginal.column if i == last else ""
        for j in range(i):
            title = titles.get(frozenset((parts.columns[i], parts.columns[j])), "")
            panel = _pair(parts.columns, j, i, clouds, frames, "data")
            y = "" if j else panel.y
            panels.append(replace(panel, title=title, x=parts.columns[j] if x else "", y=y))
        own = replace(marginal_panel(marginal, "data"), x=x, y="", x_range=frames[i])
        panels += [own, *[None] * (last - i)]
    return Chart(
        name="corner",
        title="Data against samples",
        panels=panels,
        columns=len(parts.columns),
        small=True,
    )


def _pair(
    columns: list[str],
    j: int,
    i: int,
    clouds: tuple[Rows, Rows],
    frames: Sequence[Range],
    rows_name: str = "held-out data",
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
                kind="points",
            )
            for rows, name, tone in zip(
                clouds, (rows_name, "samples"), (DATA, SAMPLES), strict=True
            )
        ],
        remark=f"{outside:,} of {len(samples):,} samples outside" if outside else "",
    )


def _frames(clouds: tuple[Rows, Rows]) -> list[Range]:
    """Returns the frame of each column of the data."""
    return [_frame(list(column)) for column in zip(*clouds[0], strict=True)]


def _frame(values: list[float | None]) -> Range:
    """Returns the range of the data, widened on both sides for samples outside it."""
    known = [value for value in values if value is not None]
    if not known:
        return 0.0, 1.0
    pad = 0.2 * (max(known) - min(known)) or 0.5
    return min(known) - pad, max(known) + pad


def _is_outside(value: float | None, frame: Range) -> bool:
    return value is None or not frame[0] <= value <= frame[1]
