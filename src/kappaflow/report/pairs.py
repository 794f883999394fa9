"""Pairs of columns: a corner plot of held-out rows and samples, and their correlations."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from kappaflow.goodness.corner import Corner
from kappaflow.report.charts import (
    DATA,
    SAMPLES,
    Box,
    Chart,
    Contour,
    Panel,
    Series,
    histogram,
    line,
)
from kappaflow.report.content import Correlations
from kappaflow.report.numbers import fixed, is_finite
from kappaflow.report.page import Details, TextTable
from kappaflow.report.table_charts import ROWS

SHOWN_DIFFERENCES = 10
NOTABLE_SHARE = 0.02  # of the samples outside of a frame
Rows = Sequence[Sequence[float]]


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


def correlation_details(parts: Correlations) -> Details:
    """Returns the largest differences as a folded table."""
    rows = [
        [
            f"{pair.first} and {pair.second}",
            fixed(pair.data, 2),
            fixed(pair.samples, 2),
            f"{fixed(pair.difference, 2)} ± {fixed(pair.error, 2)}",
        ]
        for pair in differences(parts)[:SHOWN_DIFFERENCES]
    ]
    columns = ("Columns", "Held-out rows", "Samples", "Difference")
    summary = "Rank correlations (Spearman) of the pairs that differ most"
    return Details(summary, [TextTable(columns, rows)])


def corner_chart(corner: Corner, known: Correlations | None, rows: str = ROWS) -> Chart:
    """Returns each pair of columns with its rank correlations, and densities on the diagonal."""
    titles = {
        frozenset((pair.first, pair.second)): f"r {fixed(pair.data, 2)}, {fixed(pair.samples, 2)}"
        for pair in (differences(known) if known else [])
    }
    names, panels = corner.columns, list[Panel | None]()
    for i, name in enumerate(names):
        for j in range(i):
            title = titles.get(frozenset((names[j], name)), "")
            panels.append(replace(_pair_panel(corner, j, i, rows), title=title))
        panels += [_diagonal(corner, i, rows), *[None] * (len(names) - 1 - i)]
    caption = "Points are held-out rows. Lines contain 50, 90 and 99 % of the samples. "
    caption += "r is the rank correlation in rows, and in samples." if titles else ""
    return Chart(
        name="corner",
        title="Two columns at a time",
        caption=caption,
        panels=panels,
        columns=len(names),
        small=True,
        height=None,
    )


def worst_pair_panel(corner: Corner, box: dict[str, tuple[float, float]]) -> Panel | None:
    """Returns rows and samples of the two first columns of a box; None if they are not known."""
    known = sorted(corner.columns.index(name) for name in box if name in corner.columns)
    if len(known) < 2:
        return None
    j, i = known[:2]
    ends = [
        (max(box[corner.columns[k]][0], low), min(box[corner.columns[k]][1], high))
        for k, (low, high) in ((j, corner.frames[j]), (i, corner.frames[i]))
    ]
    panel = _pair_panel(corner, j, i)
    samples = _points("samples", corner.samples, j, i, SAMPLES)
    boxes = [Box(x=ends[0], y=ends[1])]
    return replace(panel, series=[*panel.series, samples], contour=None, boxes=boxes)


def _points(name: str, points: Rows, j: int, i: int, tone: int) -> Series:
    return line(name, [p[j] for p in points], [p[i] for p in points], tone, kind="points")


def _pair_panel(corner: Corner, j: int, i: int, rows: str = ROWS) -> Panel:
    """Returns points of rows and a contour of samples: column i against column j."""
    shares = np.array(corner.densities[i * (i - 1) // 2 + j])
    cells, outside = math.isqrt(len(shares)), 1 - float(shares.sum())
    x_ends, y_ends = corner.frames[j], corner.frames[i]
    density = shares.reshape(cells, cells).tolist()
    note = f"{100 * outside:.0f} % of the samples outside" if outside > NOTABLE_SHARE else ""
    return Panel(
        x=corner.columns[j],
        y=corner.columns[i],
        x_range=x_ends,
        y_range=y_ends,
        series=[_points(rows, corner.rows, j, i, DATA)],
        contour=Contour(name="samples", density=density, x=x_ends, y=y_ends),
        remark=note,
    )


def _diagonal(corner: Corner, i: int, rows: str) -> Panel:
    low, high = corner.frames[i]
    edges = np.linspace(low, high, len(corner.row_shares[i]) + 1).tolist()
    width = edges[1] - edges[0]
    parts = ((rows, corner.row_shares[i], DATA), ("samples", corner.sample_shares[i], SAMPLES))
    return Panel(
        title=corner.columns[i],
        x=corner.columns[i],
        y="density",
        x_range=(low, high),
        y_range=(0, None),
        series=[
            histogram(name, edges, [share / width for share in shares], tone, filled=tone == DATA)
            for name, shares, tone in parts
        ],
    )
