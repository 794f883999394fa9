"""Charts: what is drawn, in numbers and words; on a page with plotly, as files with matplotlib."""

from kappaflow.report.charts.chart import Chart, Heat, Panel, Series
from kappaflow.report.charts.interactive import figures_of
from kappaflow.report.charts.still import NO_STILLS, write_stills

__all__ = ["NO_STILLS", "Chart", "Heat", "Panel", "Series", "figures_of", "write_stills"]
