"""Samples against held-out rows: the section of pages, with the worst place at its top."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from kappaflow.goodness import Deviation, Goodness, Marginal
from kappaflow.goodness.corner import Corner
from kappaflow.goodness.given import GivenDensity
from kappaflow.report.calibration import contexts_chart, coverage_chart, pit_chart, ranks_panel
from kappaflow.report.charts import Box, Chart, Panel
from kappaflow.report.numbers import count, significant
from kappaflow.report.page import Block, Charts, Details, Heading, Section, Text, TextTable
from kappaflow.report.pairs import corner_chart, worst_pair_panel
from kappaflow.report.table_charts import (
    given_chart,
    marginal_panel,
    marginals_chart,
    p_phrase,
)

FIRST = 6  # deviations that are not folded
AROUND = 4  # widths of the worst region that are shown on both sides of it


def goodness_section(
    goodness: Goodness,
    corner: Corner | None,
    given: Sequence[GivenDensity] = (),
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
