"""Charts: plain numbers and text, drawn by plotly on pages and by matplotlib in files."""

from kappaflow.report.charts.chart import (
    DATA,
    INK,
    MUTED,
    SAMPLES,
    SQUEEZE,
    STRETCH,
    WORST,
    Chart,
    Heat,
    Panel,
    Rule,
    Series,
    band,
    histogram,
    line,
    single_chart,
)
from kappaflow.report.charts.matplotlib import NO_STILLS, axes_of, write_stills
from kappaflow.report.charts.plotly import to_plotly

__all__ = [
    "DATA",
    "INK",
    "MUTED",
    "NO_STILLS",
    "SAMPLES",
    "SQUEEZE",
    "STRETCH",
    "WORST",
    "Chart",
    "Heat",
    "Panel",
    "Rule",
    "Series",
    "axes_of",
    "band",
    "histogram",
    "line",
    "single_chart",
    "to_plotly",
    "write_stills",
]
