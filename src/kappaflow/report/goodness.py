"""Samples against held-out rows: the section of pages, with the worst place at its top."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from kappaflow.goodness import Deviation, Goodness, Marginal
from kappaflow.goodness.corner import Corner
from kappaflow.goodness.given import GivenDensity
from kappaflow.report.calibration import contexts_chart, coverage_chart, pit_chart, ranks_panel
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
from kappaflow.report.numbers import count, fixed, significant
from kappaflow.report.page import Block, Charts, Details, Heading, Section, Text, TextTable
from kappaflow.report.table_charts import (
    ROWS,
    given_chart,
    marginal_panel,
    marginals_chart,
    p_phrase,
)

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


FIRST = 6  # deviations that are not folded
AROUND = 4  # widths of the worst region that are shown on both sides of it


def goodness_section(
    goodness: Goodness, corner: Corner | None, given: Sequence[GivenDensity] = ()
) -> Section:
    """Returns the comparison of samples with held-out rows: the worst place, tables and charts."""
    result, calibration = goodness.two_sample, goodness.calibration
    blocks = [*_deviation_blocks(goodness, corner)]
    blocks.append(Text(" ".join(goodness.limits), style="quiet"))
    at_contexts, charts = given_chart(given), [marginals_chart(result.marginals)]
    if corner is not None and len(corner.columns) > 1:
        charts.append(corner_chart(corner))
    blocks.append(Charts(charts, wide=True))
    if calibration is not None:
        known = (coverage_chart(calibration), pit_chart(calibration), contexts_chart(calibration))
        blocks.append(Heading("Calibration", id="calibration"))
        blocks.append(Charts([chart for chart in known if chart is not None]))
    if at_contexts is not None:
        blocks.append(Charts([at_contexts], wide=True))
    return Section("samples", "Samples against held-out rows", blocks, link="Samples")


def _deviation_blocks(goodness: Goodness, corner: Corner | None) -> Iterator[Block]:
    """Yields the worst place and the worst deviations; those that do not matter are folded."""
    result, deviations = goodness.two_sample, goodness.deviations
    shown = 0 if goodness.level == "good" else FIRST
    text = (
        f"{result.rows:,} held-out rows are compared with {result.samples:,} samples, in the "
        "units of the columns."
    )
    if not shown:
        text += " No test of columns, pairs or all columns together finds a difference"
        text += " that matters." if deviations else "."
    yield Text(text)
    if shown:
        worst = _worst_chart(goodness, corner)
        yield from [Charts([worst])] if worst is not None else []
        yield _deviation_table(deviations[:shown])
    if others := deviations[shown:]:
        name = "more deviation" if shown else "negligible deviation"
        yield Details(count(len(others), name), [_deviation_table(others)])


def _deviation_table(deviations: Sequence[Deviation]) -> TextTable:
    rows = [
        [entry.sentence, entry.level, p_phrase(entry.p_value), significant(entry.nats, 2)]
        for entry in deviations
    ]
    columns = ("Where samples and rows differ", "Level", "p-value", "Nats per row")
    return TextTable(columns, rows, is_prose=True)


def _worst_chart(goodness: Goodness, corner: Corner | None) -> Chart | None:
    """Returns a picture of the most severe deviation that has one."""
    marginals = {part.column: part for part in goodness.two_sample.marginals}
    for deviation in goodness.deviations:
        panel = _picture(deviation, marginals, corner)
        if panel is not None:
            return Chart(
                name="worst",
                title=f"The worst place: {deviation.place}",
                caption=deviation.sentence,
                panels=[panel],
            )
    return None


def _picture(
    deviation: Deviation, marginals: dict[str, Marginal], corner: Corner | None
) -> Panel | None:
    box = dict(zip(deviation.columns, deviation.region, strict=True))
    if deviation.histogram:
        return ranks_panel("", deviation.histogram, deviation.rows)
    if len(box) > 1 and corner is not None:
        return worst_pair_panel(corner, box)
    part = marginals.get(next(iter(box), ""))
    return None if part is None or len(box) > 1 else _zoomed(part, *deviation.region[0])


def _zoomed(part: Marginal, low: float, high: float) -> Panel:
    """Returns the histogram of a column around a region, which is shaded."""
    edges = np.array(part.edges)
    low, high = np.clip((low, high), edges[0], edges[-1]).tolist()
    if low == high:  # a single value, or beyond the histogram: the bin that holds it
        first = min(int(np.searchsorted(edges, low, side="right")), len(edges) - 1) - 1
        low, high = edges[first : first + 2].tolist()
    reach = AROUND * (high - low)
    kept = np.flatnonzero((edges[1:] > low - reach) & (edges[:-1] < high + reach))
    bins = slice(int(kept[0]), int(kept[-1]) + 1)
    cut = replace(
        part,
        edges=part.edges[bins.start : bins.stop + 1],
        rows=part.rows[bins],
        samples=part.samples[bins],
        pulls=part.pulls[bins],
    )
    return replace(marginal_panel(cut), title="", boxes=[Box(x=(low, high))])
