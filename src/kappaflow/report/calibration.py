"""Charts of calibration: coverage, ranks, and coverage by context."""

import math
from collections.abc import Sequence

import numpy as np
from scipy.special import ndtri

from kappaflow.goodness import Calibration, ContextBin
from kappaflow.goodness.calibration import CONFIDENCE, HIGHEST, RANDOM
from kappaflow.goodness.deviation import FAMILY
from kappaflow.report.charts import (
    DATA,
    INK,
    MUTED,
    SAMPLES,
    SQUEEZE,
    STRETCH,
    WORST,
    Chart,
    Panel,
    Rule,
    Series,
    band,
    histogram,
    line,
    single_chart,
)
from kappaflow.report.table_charts import LONGEST

MOST_COLUMNS, MOST_CONTEXTS = 5, 6
TONES = (DATA, SAMPLES, STRETCH, SQUEEZE, WORST)
RIGHT = "right flows (99 %)"


def coverage_chart(result: Calibration) -> Chart:
    """Returns the share of the rows in intervals and regions, against their nominal level."""
    shown = [*_columns(result), *(name for name in (HIGHEST, RANDOM) if name in result.covered)]
    nominal = result.coverages
    half = math.sqrt(math.log(2 * len(shown) / FAMILY) / (2 * _rows(result)))
    lists = [[level + k * half for level in nominal] for k in (-1, 0, 1)]
    series = [band(RIGHT, nominal, lists, MUTED, kind="dotted")]
    looks = [(f"central, {name[:LONGEST]}", tone, "line") for name, tone in _toned(result)]
    looks += [("highest density", INK, "line")] if HIGHEST in shown else []
    looks += [("random references (TARP)", INK, "dashed")]
    for name, (text, tone, kind) in zip(shown, looks, strict=True):
        series.append(line(text, nominal, result.covered[name], tone, kind=kind))
    return single_chart(
        "coverage",
        "Coverage",
        "Share of held-out rows inside of intervals and regions that should hold a given share. "
        "Lines above the band belong to predictions that are too wide, lines below it to those "
        "that are too narrow.",
        x="nominal share",
        y="share of held-out rows",
        x_range=(0, 1),
        y_range=(0, 1),
        series=series,
    )


def pit_chart(result: Calibration) -> Chart:
    """Returns the ranks of rows among samples at their contexts, as histograms with bands."""
    shown = [*_columns(result), *(name for name in (HIGHEST, RANDOM) if name in result.covered)]
    panels = [
        ranks_panel(name, result.histograms[name], _rows(result), len(shown)) for name in shown
    ]
    others = len(result.columns) - len(_columns(result))
    left_out = f" {others} more columns, which deviate less, are left out." if others else ""
    return Chart(
        name="pit",
        title="Ranks of held-out rows among samples (PIT)",
        caption="The share of the samples below each row, flat inside of the band if predictions "
        "are right. A hump in the middle means too wide predictions, high ends too narrow ones, a "
        "slope a wrong center. Ranks by density and by distance from random references are those "
        f"of all columns together.{left_out}",
        panels=panels,
        small=True,
        height=150,
    )


def ranks_panel(title: str, shares: Sequence[float], rows: float, panels: int = 1) -> Panel:
    """Returns a histogram of ranks; right flows are inside of the band in all panels."""
    edges, density = np.linspace(0, 1, len(shares) + 1), len(shares) * np.array(shares)
    half = _error(1 / len(shares), rows, panels * len(shares)) * len(shares)
    return Panel(
        title=title[:LONGEST],
        x="rank",
        y="density",
        x_range=(0, 1),
        y_range=(0, max(2.0, 1.05 * float(density.max()))),
        series=[
            band(RIGHT, (0, 1), [[1 - half] * 2, [1, 1], [1 + half] * 2], MUTED, kind="dotted"),
            histogram("held-out rows", [*edges], [*density], DATA, filled=True),
        ],
    )


def contexts_chart(result: Calibration) -> Chart | None:
    """Returns the coverage of the central half by context; None without a context."""
    contexts = list(dict.fromkeys(part.context for part in result.contexts))[:MOST_CONTEXTS]
    if not contexts:
        return None
    return Chart(
        name="contexts",
        title="Coverage of the central half by context",
        caption="Share of held-out rows in the central half of what is predicted for them, in "
        "bins of the context with equal numbers of rows. Above the band predictions are too wide "
        "there, below it too narrow.",
        panels=[_context_panel(result, name, len(contexts)) for name in contexts],
        columns=2,
        height=260,
    )


def _context_panel(result: Calibration, context: str, panels: int) -> Panel:
    series: list[Series] = []
    for name, tone in _toned(result):
        bins = [p for p in result.contexts if (p.context, p.column) == (context, name)]
        x = [(part.low + part.high) / 2 for part in bins]
        if not series:
            series.append(_half_band(bins, x, panels * len(_columns(result))))
        series.append(line(name[:LONGEST], x, [part.central_half for part in bins], tone))
    return Panel(
        title=context,
        x=context,
        y="share in the central half",
        y_range=(0, 1),
        series=series,
        rules=[Rule(at=0.5)],
    )


def _half_band(bins: Sequence[ContextBin], x: Sequence[float], lines: int) -> Series:
    halves = [_error(0.5, part.rows, lines * len(bins)) for part in bins]
    lists = [[0.5 + k * half for half in halves] for k in (-1, 0, 1)]
    return band(RIGHT, x, lists, MUTED, kind="dotted")


def _columns(result: Calibration) -> list[str]:
    """Returns the columns that are drawn: those that deviate most, in their order."""
    worst = sorted(result.columns, key=lambda name: result.p_values[name])[:MOST_COLUMNS]
    return [name for name in result.columns if name in worst]


def _toned(result: Calibration) -> list[tuple[str, int]]:
    return [*zip(_columns(result), TONES, strict=False)]


def _rows(result: Calibration) -> float:
    """Returns the number of rows without weights that would have the band of the result."""
    return math.log(2 / CONFIDENCE) / (2 * result.band**2)


def _error(share: float, rows: float, tests: int) -> float:
    """Returns the largest error of a share by chance in 99 % of right flows, among many."""
    return -float(ndtri(FAMILY / (2 * tests))) * math.sqrt(share * (1 - share) / rows)
