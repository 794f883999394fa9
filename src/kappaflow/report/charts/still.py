"""A chart as files, SVG and PNG, on white paper."""

import io
import textwrap
from pathlib import Path
from typing import Any

from kappaflow.report.charts.chart import Chart, Panel, Series
from kappaflow.report.charts.tones import on_white
from kappaflow.report.figures.base import Axis, log_axis
from kappaflow.report.numbers import drawable
from kappaflow.storage import write_bytes

NO_STILLS = 'no SVG and PNG files: they need matplotlib, pip install "kappaflow[figures]"'
DOTS_PER_INCH = 150
WIDTH, HEIGHT, SIDE = 3.3, 2.7, 1.7  # inches of a panel, and of a picture
STYLES = {"solid": "-", "dash": "--", "dot": ":", "none": ""}
LONGEST_TITLE, LONGEST_OF_PICTURE = 34, 20
MARKED = 12  # points of a line up to which each is marked
LOOK: dict[Any, Any] = {
    "svg.hashsalt": "kappaflow",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "figure.facecolor": "white",
}


def write_stills(chart: Chart, folder: Path) -> list[Path]:
    """Writes NAME.svg and NAME.png of a chart, the same bytes for the same chart.

    Args:
        chart: What is drawn.
        folder: Where; it is there.

    Returns:
        The files; none where matplotlib is not installed (`pip install "kappaflow[figures]"`).

    Raises:
        FileError: A file cannot be written.
    """
    try:
        import matplotlib as mpl
    except ImportError:
        return []
    with mpl.rc_context(LOOK):
        figure = _drawn(chart)
        written = []
        for kind in ("svg", "png"):
            buffer = io.BytesIO()
            metadata = {"Date": None} if kind == "svg" else {"Software": None}
            figure.savefig(buffer, format=kind, dpi=DOTS_PER_INCH, metadata=metadata)
            path = folder / f"{chart.name}.{kind}"
            write_bytes(path, buffer.getvalue())
            written.append(path)
    return written


def _drawn(chart: Chart) -> Any:  # noqa: ANN401
    from matplotlib.figure import Figure

    columns = min(chart.columns, len(chart.panels))
    rows = -(-len(chart.panels) // columns)
    width, height = (SIDE, SIDE + 0.35) if chart.is_pictures else (WIDTH, HEIGHT)
    legend = _legend_rows(chart)
    figure = Figure(
        figsize=(max(columns * width, 4.0), rows * height + 0.22 * legend), layout="constrained"
    )
    cells = figure.subplots(rows, columns, squeeze=False).flat
    one_label = len({panel.y for panel in chart.panels}) == 1
    for number, (cell, panel) in enumerate(zip(cells, chart.panels, strict=False)):
        _draw_panel(cell, panel, chart)
        if one_label and number % columns:
            cell.set_ylabel("")
    for cell in list(figure.axes)[len(chart.panels) :]:
        cell.axis("off")
    if legend:
        handles = {
            name: handle
            for cell in figure.axes
            for handle, name in zip(*cell.get_legend_handles_labels(), strict=True)
        }
        figure.legend(
            list(handles.values()),
            list(handles),
            loc="outside lower center",
            ncols=_columns_of_legend(columns),
            frameon=False,
            fontsize=8,
        )
    return figure


def _names(chart: Chart) -> list[str]:
    return list(dict.fromkeys(s.name for panel in chart.panels for s in panel.series))


def _columns_of_legend(columns: int) -> int:
    return max(1, min(4, columns + 1))


def _legend_rows(chart: Chart) -> int:
    columns = _columns_of_legend(min(chart.columns, len(chart.panels)))
    return -(-len(_names(chart)) // columns)


def _draw_panel(cell: Any, panel: Panel, chart: Chart) -> None:  # noqa: ANN401
    cell.set_title(textwrap.fill(panel.title, LONGEST_TITLE), fontsize=9)
    if panel.heat is not None:
        heat = panel.heat
        cell.imshow(
            [[float("nan") if v is None else v for v in drawable(row)] for row in heat.values],
            origin="lower",
            extent=(*heat.x, *heat.y),
            aspect="equal",
            cmap="viridis",
            interpolation="nearest",
        )
        cell.axis("off")
        cell.set_title(textwrap.fill(panel.title, LONGEST_OF_PICTURE), fontsize=8)
        return
    for series in panel.series:
        _draw_series(cell, series, panel)
    cell.set(xlabel=panel.x, ylabel=panel.y)
    if panel.x_log:
        cell.set_xscale("log")
        _as_on_page(cell.xaxis, log_axis("", [series.x for series in panel.series]))
    if panel.y_log:
        cell.set_yscale("log")
        _as_on_page(cell.yaxis, log_axis("", chart.vertical(panel)))
    elif chart.share_y:
        shown = [v for ys in chart.vertical(panel) for v in drawable(ys) if v is not None]
        low, high = min(shown, default=0.0), max(shown, default=1.0)
        margin = 0.05 * (high - low or 1.0)
        cell.set_ylim(low - margin, high + margin)
    cell.grid(axis="y", color="#dddddd", linewidth=0.6)


def _as_on_page(of_cell: Any, like: Axis) -> None:  # noqa: ANN401
    """Gives a logarithmic axis the range and the ticks of the page's."""
    low, high = like["range"]
    of_cell.set_view_interval(10**low, 10**high, ignore=True)
    of_cell.set_ticks(like["tickvals"], like["ticktext"])
    of_cell.set_ticks([], minor=True)


def _draw_series(cell: Any, series: Series, panel: Panel) -> None:  # noqa: ANN401
    colour = on_white(series.tone)
    x, y = (
        [float("nan") if value is None else value for value in drawable(values, log=is_log)]
        for values, is_log in ((series.x, panel.x_log), (series.y, panel.y_log))
    )
    if series.low is not None and series.high is not None:
        low, high = (
            [float("nan") if value is None else value for value in drawable(end, log=panel.y_log)]
            for end in (series.low, series.high)
        )
        cell.fill_between(x, low, high, color=colour, alpha=0.18, linewidth=0)
    marks = "o" if series.dash == "none" or len(y) <= MARKED else ""
    cell.plot(
        x,
        y,
        linestyle=STYLES[series.dash],
        marker=marks,
        markersize=3,
        linewidth=1.4,
        color=colour,
        label=series.name,
    )
