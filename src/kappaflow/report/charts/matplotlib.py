"""Draws charts by matplotlib on white paper, as SVG and PNG files or as axes."""

import io
import math
import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from kappaflow.errors import ArgumentError
from kappaflow.report.charts import (
    DATA,
    MANY_POINTS,
    MUTED,
    SAMPLES,
    TEMPLATES,
    TONES,
    WARNING,
    Chart,
    Contour,
    Heat,
    Panel,
    Rule,
    Series,
    light_colors,
    log_ticks,
)
from kappaflow.report.numbers import drawable
from kappaflow.storage import write_bytes

NO_STILLS = 'no SVG and PNG files: they need matplotlib, pip install "kappaflow[figures]"'
NEEDS_MATPLOTLIB = (
    'plots need matplotlib: pip install "kappaflow[figures]", or pass interactive=True.'
)
STYLE = TEMPLATES / "plots.mplstyle"
ALONE, AMONG, SMALL, PICTURE = (6.0, 3.8), (3.6, 2.8), (1.9, 1.8), (1.7, 2.05)  # inches
MOST_NAMES = 4  # in a legend on a panel among others
LINES = {"dashed": "--", "dotted": ":", "points": ""}


def write_stills(chart: Chart, folder: Path, kinds: Sequence[str] = ("svg", "png")) -> list[Path]:
    """Returns the files NAME.svg and NAME.png of a chart; none if matplotlib is missing."""
    try:
        from matplotlib import rc_context
        from matplotlib.figure import Figure
    except ImportError:
        return []
    files = {kind: folder / f"{chart.name}.{kind}" for kind in kinds}
    with rc_context(fname=STYLE):
        figure = Figure(layout="constrained")
        _draw_chart(figure, chart, common_legend=True)
        for kind, path in files.items():
            buffer = io.BytesIO()
            metadata = {"Date": None} if kind == "svg" else {"Software": None}
            figure.savefig(buffer, format=kind, metadata=metadata)
            write_bytes(path, buffer.getvalue())
    return [*files.values()]


def axes_of(chart: Chart, ax: Any = None) -> Any:  # matplotlib is optional
    """Returns the axes of a chart, of a new figure; a single panel can be drawn on `ax`."""
    try:
        import matplotlib.pyplot as plt
        from matplotlib import rc_context
    except ImportError:
        raise ArgumentError(NEEDS_MATPLOTLIB) from None
    if ax is not None:
        with rc_context(fname=STYLE):
            _draw_panel(ax, chart.placed[0][2], chart)
            ax.legend()
            return ax
    # Not in rc_context: the first figure of a notebook sets that new figures are displayed.
    figure = plt.figure(layout="constrained")
    with rc_context(fname=STYLE):
        cells = _draw_chart(figure, chart, common_legend=chart.small)
        return cells if cells.size > 1 else cells[0, 0]


def _draw_chart(figure: Any, chart: Chart, *, common_legend: bool) -> Any:
    """Returns the axes (rows, columns) of a chart on a figure; those without a panel are off."""
    chart = chart.unstacked
    rows, columns = chart.grid
    size = ALONE if len(chart.panels) == 1 else SMALL if chart.small else AMONG
    width, height = PICTURE if chart.is_pictures else size
    figure.set_size_inches(max(columns * width, 4.0), rows * height)
    cells = figure.subplots(rows, columns, squeeze=False, height_ratios=chart.ratios or None)
    is_alike = len({(row, panel.y) for row, _, panel in chart.placed}) == rows
    for row, column, panel in chart.placed:
        _draw_panel(cells[row - 1, column - 1], panel, chart)
        if is_alike and column > 1:
            cells[row - 1, column - 1].set_ylabel("")
    for cell in cells.flat:
        cell.axison = cell.axison and cell.has_data()
    named = [(cell, *cell.get_legend_handles_labels()) for cell in figure.axes]
    entries = {text: handle for _, *pair in named for handle, text in zip(*pair, strict=True)}
    if len(named) > 1 and max(len(handles) for _, handles, _ in named) > MOST_NAMES:
        common_legend = True
    if common_legend and entries:
        figure.set_size_inches(max(columns * width, 4.0), rows * height + 0.1 * len(entries))
        placement = {"loc": "outside lower center", "ncols": min(4, columns + 1), "frameon": False}
        figure.legend([*entries.values()], [*entries], **placement)
    for cell, handles, _ in () if common_legend else named:
        cell.legend() if handles else None
    return cells


def _draw_panel(ax: Any, panel: Panel, chart: Chart) -> None:
    """Draws a panel of a chart on axes; the chart sets the range of shared axes."""
    is_alone = len(chart.panels) == 1
    longest = 70 if is_alone else 24 if chart.small or chart.is_pictures else 40
    ax.set_title(textwrap.fill(panel.title or (chart.title if is_alone else ""), longest))
    ax.set(xlabel=panel.x, ylabel=panel.y)
    if panel.heat is not None:
        _draw_heat(ax, panel.heat)
        return
    ax.set(xscale="log" if panel.x_log else "linear", yscale="log" if panel.y_log else "linear")
    ax.grid(axis="y")
    for series in panel.series:
        _draw_series(ax, series, panel)
    if panel.contour is not None:
        _draw_contour(ax, panel.contour)
    for rule in panel.rules:
        _draw_rule(ax, rule)
    for box in panel.boxes:
        low, high = box.y or (0, 1)
        across = ax.transData if box.y else ax.get_xaxis_transform()
        look = {"color": _color(WARNING), "alpha": 0.18, "linewidth": 0, "transform": across}
        ax.fill_between(box.x, low, high, **look)
    ax.text(0.5, 0.5, panel.empty, ha="center", va="center", transform=ax.transAxes)
    x_ends, y_ends = chart.x_ends(panel), chart.y_ends(panel)
    ax.set(xlim=x_ends, ylim=y_ends)
    for axis, ends, log in ((ax.xaxis, x_ends, panel.x_log), (ax.yaxis, y_ends, panel.y_log)):
        if log:
            axis.set_ticks([*log_ticks(ends)], log_ticks(ends).values())
            axis.set_ticks([], minor=True)
    ax.tick_params(labelbottom=panel.x != "", labelleft=panel.y != "")
    if panel.x_whole and not panel.x_log:
        ax.xaxis.get_major_locator().set_params(integer=True)


def _draw_series(ax: Any, series: Series, panel: Panel) -> None:
    color, name = _color(series.tone), series.name
    x, y = _numbers(series.x, log=panel.x_log), _numbers(series.y, log=panel.y_log)
    if series.kind == "bars":
        ax.bar(x, y, width=0.65, color=color, label=name)
        return
    if series.kind == "area":
        ax.fill_between(x, y, step="post", color=color, alpha=0.22, linewidth=0, label=name)
        return
    low, high = (_numbers(ends or [], log=panel.y_log) for ends in (series.low, series.high))
    if low and series.kind == "points":
        ax.vlines(x, low, high, color=color, linewidth=0.8)
    elif low:
        ax.fill_between(x, low, high, color=color, alpha=0.18, linewidth=0)
    many = len(y) > MANY_POINTS
    ax.plot(
        x,
        y,
        color=color,
        linestyle=LINES.get(series.kind, "-"),
        drawstyle="steps-post" if series.kind == "steps" else "default",
        marker="" if not series.is_marked else "o" if series.mark == "circle" else "D",
        markersize=8 if series.mark == "diamond" else 2 if many else 3.5,
        markerfacecolor="none" if series.mark == "open diamond" else color,
        markeredgewidth=0 if many else None,
        alpha=0.45 if many and series.kind == "points" else None,
        label=name,
    )


def _draw_rule(ax: Any, rule: Rule) -> None:
    draw, at, transform, side = ax.axhline, (1, rule.at), ax.get_yaxis_transform(), "right"
    if rule.axis == "x":
        draw, at, transform, side = ax.axvline, (rule.at, 1), ax.get_xaxis_transform(), "center"
    draw(rule.at, color=_color(MUTED), linewidth=1, linestyle=":", zorder=1)
    look = {"ha": side, "va": "bottom", "size": 7, "color": _color(MUTED), "xycoords": transform}
    ax.annotate(rule.text, at, **look)


def _draw_contour(ax: Any, contour: Contour) -> None:
    color = _color(contour.tone)
    ax.contour(*contour.centers, contour.heights, levels=[1, 2, 3], colors=color, linewidths=1)
    ax.plot([], [], color=color, label=contour.name)


def _draw_heat(ax: Any, heat: Heat) -> None:
    from matplotlib.colors import LinearSegmentedColormap

    if heat.limit is None:
        ax.set_axis_off()
        pixels = [_numbers(row) for row in heat.values]
        ax.imshow(pixels, origin="lower", extent=(*heat.x, *heat.y))
        return
    colors = LinearSegmentedColormap.from_list("", [_color(SAMPLES), "white", _color(DATA)])
    (left, right), (top, bottom), (across, up) = heat.x, heat.y, heat.steps
    edges = (left - across / 2, right + across / 2, bottom + up / 2, top - up / 2)
    look = {"extent": edges, "cmap": colors, "vmin": -heat.limit, "vmax": heat.limit}
    ax.imshow([_numbers(row) for row in heat.values], **look)
    for axis in (ax.xaxis, ax.yaxis):
        axis.get_major_locator().set_params(integer=True)


def _color(tone: int) -> str:
    return light_colors()[TONES[tone % len(TONES)]]


def _numbers(values: Iterable[object], *, log: bool = False) -> list[float]:
    """Returns values with nan for what an axis cannot show."""
    return [math.nan if v is None else v for v in drawable(values, log=log)]
