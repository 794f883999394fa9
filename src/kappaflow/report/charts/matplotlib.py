"""A chart drawn by matplotlib on white paper, as SVG and PNG files or as axes."""

import base64
import io
import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from kappaflow.errors import ArgumentError
from kappaflow.report.charts.chart import Chart, Heat, LogScale, Panel, Rule, Series, log_scale
from kappaflow.report.numbers import drawable
from kappaflow.storage import write_bytes

NO_STILLS = 'no SVG and PNG files: they need matplotlib, pip install "kappaflow[figures]"'
NEEDS_MATPLOTLIB = (
    'plots need matplotlib: pip install "kappaflow[figures]", or pass interactive=True.'
)
DOTS_PER_INCH = 150
WIDTH, HEIGHT, SIDE = 3.3, 2.7, 1.7  # inches of a panel, and of a picture
ALONE, AMONG, SMALL = (6.0, 3.8), (3.9, 3.0), (1.9, 1.8)  # inches of a panel of axes
ON_WHITE = (
    "#0072b2", "#c2500a", "#00795a", "#8b3f86", "#a8201a", "#7a5200", "#1d2126", "#5b636d",
)  # fmt: skip
STYLES = {"solid": "-", "dash": "--", "dot": ":", "none": ""}
MARKS = {"circle": "o", "open diamond": "D", "diamond": "D"}
LONGEST_ALONE, LONGEST_TITLE, LONGEST_OF_SMALL, LONGEST_OF_PICTURE = 70, 34, 24, 20  # of a line
MANY_POINTS = 64  # above this number, small marks are transparent
LOOK: dict[Any, Any] = {
    "svg.hashsalt": "kappaflow",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "figure.facecolor": "white",
    "text.parse_math": False,  # a "$" in a name is a "$"
}


def write_stills(chart: Chart, folder: Path, kinds: Sequence[str] = ("svg", "png")) -> list[Path]:
    """Writes NAME.svg and NAME.png of a chart to a folder, the same bytes for the same chart.

    Returns:
        The files; none if matplotlib is not installed (`pip install "kappaflow[figures]"`).

    Raises:
        FileError: A file cannot be written.
    """
    try:
        figure = to_matplotlib(chart)
    except ImportError:
        return []
    import matplotlib as mpl

    written = []
    with mpl.rc_context(LOOK):
        for kind in kinds:
            buffer = io.BytesIO()
            metadata = {"Date": None} if kind == "svg" else {"Software": None}
            figure.savefig(buffer, format=kind, dpi=DOTS_PER_INCH, metadata=metadata)
            path = folder / f"{chart.name}.{kind}"
            write_bytes(path, buffer.getvalue())
            written.append(path)
    return written


def to_matplotlib(chart: Chart) -> Any:  # noqa: ANN401 - matplotlib is optional
    """Returns a `matplotlib.figure.Figure` of a chart, with a legend below its panels.

    Raises:
        ImportError: matplotlib is not installed.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context(LOOK):
        size = (SIDE, SIDE + 0.35) if chart.is_pictures else (WIDTH, HEIGHT)
        figure = Figure(layout="constrained")
        _draw_chart(figure, chart, size)
        return figure


def axes_of(chart: Chart, ax: Any = None) -> Any:  # noqa: ANN401 - matplotlib is optional
    """Returns the `matplotlib.axes.Axes` of a chart with one panel, or an array of axes.

    The axes belong to a new figure of pyplot. A chart with one panel can be drawn on `ax` instead.

    Raises:
        ArgumentError: matplotlib is not installed.
    """
    try:
        import matplotlib as mpl
        import matplotlib.pyplot as plt
    except ImportError:
        raise ArgumentError(NEEDS_MATPLOTLIB) from None
    if ax is not None:
        with mpl.rc_context(LOOK):
            _draw_panel(ax, chart.panels[0], chart)
            ax.set_title(textwrap.fill(chart.title, LONGEST_ALONE))
            ax.legend(frameon=False, fontsize=8)
            return ax
    # Not in rc_context: the first figure of a notebook sets that new figures are displayed.
    figure = plt.figure(layout="constrained", facecolor=LOOK["figure.facecolor"])
    with mpl.rc_context(LOOK):
        size = ALONE if len(chart.panels) == 1 else SMALL if chart.small else AMONG
        size = (WIDTH, HEIGHT) if any(panel.heat for panel in chart.panels) else size
        cells = _draw_chart(figure, chart, size)
        if len(chart.panels) > 1:
            return cells
        cells[0, 0].set_title(textwrap.fill(chart.title, LONGEST_ALONE), fontsize=10)
        return cells[0, 0]


def _draw_chart(figure: Any, chart: Chart, size: tuple[float, float]) -> Any:  # noqa: ANN401
    """Returns the axes (rows, columns) of a chart on a figure; `size` is that of a panel."""
    rows, columns = chart.grid
    of_legend = max(1, min(4, columns + 1))
    legend = 0 if chart.legend_each else -(-len(chart.entries) // of_legend)
    figure.set_size_inches(max(columns * size[0], 4.0), rows * size[1] + 0.22 * legend)
    cells = figure.subplots(rows, columns, squeeze=False)
    _fill(cells, chart)
    if legend:
        _add_legend(figure, of_legend)
    for cell in figure.axes if chart.legend_each else ():
        if cell.get_legend_handles_labels()[0]:
            cell.legend(fontsize=8, framealpha=0.7, edgecolor="none")
    return cells


def _draw_panel(cell: Any, panel: Panel, chart: Chart) -> None:  # noqa: ANN401
    """Draws a panel of a chart on matplotlib's axes; the chart sets the range of shared axes."""
    longest = LONGEST_OF_SMALL if chart.small else LONGEST_TITLE
    longest = LONGEST_OF_PICTURE if chart.is_pictures else longest
    cell.set_title(textwrap.fill(panel.title, longest), fontsize=9 if longest > 30 else 8)
    if panel.heat is not None:
        _draw_heat(cell, panel, panel.heat)
        return
    for series in panel.series:
        _draw_series(cell, series, panel)
    for rule in panel.rules:
        _draw_rule(cell, rule)
    if panel.is_empty:
        cell.text(0.5, 0.5, panel.empty, ha="center", va="center", transform=cell.transAxes)
    cell.set(xlabel=panel.x, ylabel=panel.y)
    _scale_axes(cell, panel, chart)
    cell.grid(axis="y", color="#dddddd", linewidth=0.6)
    cell.set_axisbelow(True)


def _fill(cells: Any, chart: Chart) -> None:  # noqa: ANN401
    """Draws each panel in its cell; cells without a panel stay empty."""
    one_label = len({panel.y for panel in chart.panels}) == 1
    empty = set(cells.flat)
    for panel, (row, column) in zip(chart.panels, chart.places, strict=True):
        cell = cells[row - 1, column - 1]
        empty.discard(cell)
        _draw_panel(cell, panel, chart)
        if one_label and column > 1:
            cell.set_ylabel("")
    for cell in empty:
        cell.axis("off")


def _add_legend(figure: Any, columns: int) -> None:  # noqa: ANN401
    handles = {
        name: handle
        for cell in figure.axes
        for handle, name in zip(*cell.get_legend_handles_labels(), strict=True)
    }
    figure.legend(
        list(handles.values()),
        list(handles),
        loc="outside lower center",
        ncols=columns,
        frameon=False,
        fontsize=8,
    )


def _scale_axes(cell: Any, panel: Panel, chart: Chart) -> None:  # noqa: ANN401
    """Sets the range and the ticks of both axes, as on a page."""
    if panel.x_log:
        cell.set_xscale("log")
        _set_log_axis(cell.xaxis, log_scale([series.x for series in panel.series]))
    if panel.y_log:
        cell.set_yscale("log")
        _set_log_axis(cell.yaxis, log_scale(chart.vertical(panel)))
    y_range = chart.vertical_range(panel)
    if y_range is not None:
        cell.set_ylim(*y_range)
    elif panel.y_from_zero:
        cell.set_ylim(bottom=0)
    if panel.x_range is not None:
        cell.set_xlim(*panel.x_range)
    if panel.x_ticks is not None:
        labels = [f"{tick:g}" for tick in panel.x_ticks] if panel.x_log else None
        cell.set_xticks(panel.x_ticks, labels)
    elif panel.x_whole and not panel.x_log:
        cell.xaxis.get_major_locator().set_params(integer=True)
    if panel.y_hidden:
        cell.yaxis.set_visible(False)


def _set_log_axis(axis: Any, scale: LogScale) -> None:  # noqa: ANN401
    axis.axes.set(**{f"{axis.axis_name}lim": (10**scale.low, 10**scale.high)})
    axis.set_ticks(scale.ticks, scale.labels)
    axis.set_ticks([], minor=True)


def _draw_series(cell: Any, series: Series, panel: Panel) -> None:  # noqa: ANN401
    tone = ON_WHITE[series.tone % len(ON_WHITE)]
    x, y = (_numbers(series.x, log=panel.x_log), _numbers(series.y, log=panel.y_log))
    name = series.name if series.in_legend else None
    if series.kind == "bars":
        cell.bar(x, y, width=0.65, color=tone, label=name)
        return
    if series.low is not None and series.high is not None:
        log = panel.x_log if series.whiskers == "x" else panel.y_log
        low, high = (_numbers(end, log=log) for end in (series.low, series.high))
        if series.whiskers is None:
            cell.fill_between(x, low, high, color=tone, alpha=0.18, linewidth=0)
        elif series.whiskers == "x":
            cell.hlines(y, low, high, color=tone, linewidth=1.4)
        else:
            cell.vlines(x, low, high, color=tone, linewidth=0.8)
    if series.kind == "area":
        cell.fill_between(x, y, color=tone, alpha=0.22, linewidth=0, label=name)
        return
    cell.plot(
        x,
        y,
        linestyle=STYLES[series.dash],
        marker=MARKS[series.mark] if series.is_marked else "",
        markersize=3 if series.mark_size == 7 else 0.6 * series.mark_size,
        markerfacecolor="none" if series.mark == "open diamond" else tone,
        drawstyle="steps-post" if series.kind == "hold" else "default",
        linewidth=0.7 * series.width,
        color=tone,
        alpha=0.45 if series.mark_size < 7 and len(y) > MANY_POINTS else None,
        markeredgewidth=0 if series.mark_size < 7 else None,
        label=name,
    )


def _draw_rule(cell: Any, rule: Rule) -> None:  # noqa: ANN401
    across = cell.axvline if rule.axis == "x" else cell.axhline
    tone = ON_WHITE[rule.tone % len(ON_WHITE)]
    across(rule.at, color=tone, linewidth=1, linestyle=STYLES[rule.dash], zorder=1)
    if rule.text and rule.axis == "x":
        cell.annotate(
            rule.text, (rule.at, 1), xycoords=cell.get_xaxis_transform(), ha="center",
            va="bottom", fontsize=7, color=tone,
        )  # fmt: skip
    elif rule.text:
        cell.annotate(
            rule.text, (1, rule.at), xycoords=cell.get_yaxis_transform(), ha="right",
            va="bottom", fontsize=7, color=tone,
        )  # fmt: skip


def _draw_heat(cell: Any, panel: Panel, heat: Heat) -> None:  # noqa: ANN401
    rows = [_numbers(row) for row in heat.values]
    if heat.png:
        from matplotlib.image import imread

        pixels = imread(io.BytesIO(base64.b64decode(heat.png)))
        cell.imshow(pixels, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        cell.axis("off")
        return
    if heat.limit is None:
        cell.imshow(
            rows, origin="lower", extent=(*heat.x, *heat.y), aspect="equal", cmap="viridis",
            interpolation="nearest",
        )  # fmt: skip
        cell.axis("off")
        return
    from matplotlib.colors import LinearSegmentedColormap

    colors = LinearSegmentedColormap.from_list("", [ON_WHITE[1], "white", ON_WHITE[0]])
    half = 0.5 * (heat.x[1] - heat.x[0]) / max(1, len(rows) - 1) or 0.5
    left, right, top, bottom = (
        heat.x[0] - half,
        heat.x[1] + half,
        heat.y[0] - half,
        heat.y[1] + half,
    )
    cell.imshow(
        rows, extent=(left, right, bottom, top), cmap=colors, vmin=-heat.limit, vmax=heat.limit,
        interpolation="nearest",
    )  # fmt: skip
    cell.set(xlabel=panel.x, ylabel=panel.y)
    for axis in (cell.xaxis, cell.yaxis):
        axis.get_major_locator().set_params(integer=True)


def _numbers(values: Iterable[object], *, log: bool = False) -> list[float]:
    """Returns values with nan for what an axis cannot show."""
    return [float("nan") if v is None else v for v in drawable(values, log=log)]
