"""Pairs of columns: a corner plot of held-out rows and samples, and the worst pair."""

import math
from collections.abc import Sequence
from dataclasses import replace

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
from kappaflow.report.numbers import fixed
from kappaflow.report.table_charts import ROWS

NOTABLE_SHARE = 0.02  # of the samples outside of a frame
Rows = Sequence[Sequence[float]]


def corner_chart(corner: Corner, rows: str = ROWS) -> Chart:
    """Returns each pair of columns with its rank correlations, and densities on the diagonal."""
    columns, panels = range(len(corner.columns)), list[Panel | None]()
    for i in columns:
        panels += [_pair_panel(corner, j, i, rows) for j in columns[:i]]
        panels += [_diagonal(corner, i, rows), *[None for _ in columns[i + 1 :]]]
    return Chart(
        name="corner",
        title="Two columns at a time",
        caption="Points are held-out rows. Lines contain 50, 90 and 99 % of the samples. r is the "
        "rank correlation (Spearman) of rows, and of samples.",
        panels=panels,
        columns=len(columns),
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
    boxes = [Box(x=_widened(ends[0]), y=_widened(ends[1]))]
    return replace(panel, title="", series=[*panel.series, samples], contour=None, boxes=boxes)


def _widened(ends: tuple[float, float]) -> tuple[float, float]:
    """Returns ends that can be seen in a chart: those of a step around a single value."""
    return (ends[0] - 0.5, ends[1] + 0.5) if ends[0] == ends[1] else ends


def _points(name: str, points: Rows, j: int, i: int, tone: int) -> Series:
    return line(name, [p[j] for p in points], [p[i] for p in points], tone, kind="points")


def _pair_panel(corner: Corner, j: int, i: int, rows: str = ROWS) -> Panel:
    """Returns points of rows and a contour of samples: column i against column j."""
    pair = i * (i - 1) // 2 + j
    shares, correlations = np.array(corner.densities[pair]), corner.correlations[pair]
    cells, outside = math.isqrt(len(shares)), 1 - float(shares.sum())
    x_ends, y_ends = corner.frames[j], corner.frames[i]
    density = shares.reshape(cells, cells).tolist()
    note = f"{100 * outside:.0f} % of the samples outside" if outside > NOTABLE_SHARE else ""
    return Panel(
        title=f"r {fixed(correlations[0], 2)}, {fixed(correlations[1], 2)}",
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
