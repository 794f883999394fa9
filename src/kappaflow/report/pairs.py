"""Pairs of columns on the page of a table: correlations, and point clouds of data and samples."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from kappaflow.report.charts import DATA, SAMPLES, Chart, Numbers, Panel, line
from kappaflow.report.content import Correlations, Marginal, Pairs
from kappaflow.report.numbers import count, drawable, fixed, is_finite
from kappaflow.report.page import Block, Charts, Heading, Text, TextTable
from kappaflow.report.table_charts import marginal_panel

ALL_PAIRS = 5  # columns at most, for a point cloud of each pair
SHOWN_PAIRS = 6  # point clouds of more columns
SHOWN_DIFFERENCES = 10
NOTABLE = 3  # standard errors
MOST_POINTS = 6000  # of a chart: each is an element of the document


class PairDifference(NamedTuple):
    """A pair of columns with its correlations, their difference and its standard error."""

    first: str
    second: str
    data: float
    samples: float
    difference: float
    error: float


def differences(parts: Correlations) -> list[PairDifference]:
    """Returns the pairs whose two correlations are finite, the largest difference first.

    The variance of Fisher's transform of a rank correlation is 1.06 / (n - 3), by Fieller, Hartley
    and Pearson 1957.
    """
    unit, names = math.sqrt(1.06 / max(1, parts.rows - 3)), parts.columns
    pairs = [
        PairDifference(names[j], name, a, b, b - a, unit * math.hypot(1 - a * a, 1 - b * b))
        for name, data, samples in zip(names, parts.data, parts.samples, strict=True)
        for j, (a, b) in enumerate(zip(data, samples, strict=True))
        if is_finite(a) and is_finite(b)
    ]
    return sorted(pairs, key=lambda pair: -abs(pair.difference))


def correlation_blocks(parts: Correlations) -> list[Block]:
    """Returns the largest differences as a sentence and a table."""
    pairs = differences(parts)
    if not pairs:
        return []
    worst, notable = pairs[0], sum(abs(pair.difference) > NOTABLE * pair.error for pair in pairs)
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
            f"{pair.first} and {pair.second}",
            fixed(pair.data, 2),
            fixed(pair.samples, 2),
            f"{fixed(pair.difference, 2)} ± {fixed(pair.error, 2)}",
        ]
        for pair in pairs[:SHOWN_DIFFERENCES]
    ]
    columns = ("Columns", "Held-out rows", "Samples", "Difference")
    return [
        Heading("Correlations", id="correlations"),
        Text(text),
        TextTable(columns, rows),
    ]


def pair_blocks(parts: Pairs, known: Correlations | None) -> list[Block]:
    """Returns point clouds of all pairs of few columns; of many, of those that differ most."""
    names = parts.columns
    if len(names) < 2 or not parts.data:
        return []
    if len(names) <= ALL_PAIRS:
        last = len(names) - 1
        cells = [(j, i) if j < i else None for i in range(1, len(names)) for j in range(last)]
        return [Charts([_pairs_chart(parts, cells, columns=last)])]
    pairs = [(pair.first, pair.second) for pair in (differences(known) if known else [])]
    shown = [(names.index(a), names.index(b)) for a, b in pairs if {a, b} <= {*names}]
    shown = shown[:SHOWN_PAIRS] or [(0, 1)]
    note = "These are the pairs whose correlations differ most."
    return [Charts([_pairs_chart(parts, shown, columns=3, note=note)])]


def _pairs_chart(
    parts: Pairs, cells: Sequence[tuple[int, int] | None], *, columns: int, note: str = ""
) -> Chart:
    """Returns a point cloud for each pair, and an empty place for None."""
    count = sum(pair is not None for pair in cells)
    clouds = Clouds(parts, MOST_POINTS // (2 * count))
    return Chart(
        name="pairs",
        title="Two columns at a time",
        caption="Axes are in the units of the columns. The two colors should mix everywhere. A "
        "patch of one color is data that the flow never samples, or samples that look like no "
        f"data. {note}",
        panels=[pair and clouds.panel(*pair) for pair in cells],
        columns=columns,
        small=True,
        height=None,
    )


def corner_chart(parts: Pairs, marginals: Sequence[Marginal], known: Correlations | None) -> Chart:
    """Returns each pair of columns with its rank correlations, and densities on the diagonal."""
    titles = {
        (pair.first, pair.second): f"r {fixed(pair.data, 2)}, samples {fixed(pair.samples, 2)}"
        for pair in (differences(known) if known else [])
    }
    clouds, names = Clouds(parts), parts.columns
    panels: list[Panel | None] = []
    for i, marginal in enumerate(marginals):
        is_last = i == len(names) - 1
        for j in range(i):
            title = titles.get((names[j], names[i]), titles.get((names[i], names[j]), ""))
            shown = {"x": names[j] if is_last else "", "y": "" if j else names[i]}
            panels.append(replace(clouds.panel(j, i, "data"), title=title, **shown))
        diagonal = marginal_panel(marginal, "data")
        x = marginal.column if is_last else ""
        panels.append(replace(diagonal, x=x, y="", x_range=clouds.frames[i]))
        panels += [None] * (len(names) - 1 - i)
    return Chart(
        name="corner",
        title="Data against samples",
        panels=panels,
        columns=len(names),
        small=True,
    )


class Clouds:
    """The first rows of data and of samples by columns, in the frames of the data."""

    def __init__(self, parts: Pairs, most: int | None = None) -> None:
        self.columns = parts.columns
        self.data, self.samples = (
            [drawable(column) for column in zip(*rows[:most], strict=True)]
            for rows in (parts.data, parts.samples)
        )
        self.frames = [_frame(column) for column in self.data]

    def panel(self, j: int, i: int, rows: str = "held-out data") -> Panel:
        """Returns column i against column j."""
        count = len(self.samples[0])
        inside = sum(
            all(_is_inside(self.samples[c][row], self.frames[c]) for c in (j, i))
            for row in range(count)
        )
        return Panel(
            title=f"{self.columns[i]} against {self.columns[j]}",
            x=self.columns[j],
            y=self.columns[i],
            x_range=self.frames[j],
            y_range=self.frames[i],
            series=[
                line(rows, self.data[j], self.data[i], DATA, kind="points"),
                line("samples", self.samples[j], self.samples[i], SAMPLES, kind="points"),
            ],
            remark=f"{count - inside:,} of {count:,} samples outside" if inside < count else "",
        )


def _frame(values: Numbers) -> tuple[float, float]:
    """Returns the range of the data, widened on both sides for samples outside it."""
    known = [value for value in values if value is not None] or [0.0, 1.0]
    pad = 0.2 * (max(known) - min(known)) or 0.5
    return min(known) - pad, max(known) + pad


def _is_inside(value: float | None, frame: tuple[float, float]) -> bool:
    return value is not None and frame[0] <= value <= frame[1]
