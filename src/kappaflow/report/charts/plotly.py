"""A chart as figures for plotly.js, one for each panel of a page, or as one figure of plotly.

A trace is plotly's word for one drawn series, and a rule is a straight reference line. Colors are
names of CSS variables; the script of the page replaces them for light and dark mode.
"""

import html
import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from kappaflow.report.charts.chart import (
    DATA,
    INK,
    SAMPLES,
    Chart,
    Heat,
    Numbers,
    Panel,
    Range,
    Rule,
    Series,
    log_scale,
)
from kappaflow.report.numbers import drawable

TONES = ("data", "samples", "stretch", "squeeze", "error", "warning", "ink", "muted")
GRID, PAPER, MUTED_LINE = "var(--grid)", "var(--paper)", "var(--muted)"
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Noto Sans', 'DejaVu Sans', sans-serif"
MOST_WHISKERS = 64  # largest number of points with whiskers and large marks
BAND_OPACITY = 0.2
STYLE = Path(__file__).parents[1] / "templates" / "page.css"
LONGEST_NAME, LONGEST_TITLE, LONGEST_SMALL_TITLE = 60, 100, 22  # characters
LONGEST_OF_MATRIX = 16  # of the name of a row or column

Trace = dict[str, Any]
Axis = dict[str, Any]


@dataclass(frozen=True)
class Figure:
    """A figure that plotly.js draws in one place of a page, where `name` is its id.

    `alt` describes it for readers who cannot see it, and `remark` is a note on what is not drawn.
    The height is in CSS pixels; None makes it square. `place` is the row and column in a grid of
    figures, from 1, or None.
    """

    name: str
    title: str
    alt: str
    traces: list[Trace]
    layout: dict[str, Any]
    remark: str = ""
    height: int | None = 330
    place: tuple[int, int] | None = None


def figures_of(chart: Chart) -> list[Figure]:
    """Returns a figure for each panel of a chart.

    A single figure has the name of the chart; several are numbered from 1.
    """
    numbered = len(chart.panels) > 1
    return [
        _figure(f"{chart.name}-{number}" if numbered else chart.name, panel, chart)
        for number, panel in enumerate(chart.panels, start=1)
    ]


def to_plotly(chart: Chart) -> Any:  # noqa: ANN401 - the import of plotly is slow
    """Returns a chart as one `plotly.graph_objects.Figure`, in the colors of a light page."""
    from plotly.subplots import make_subplots

    (rows, columns), figures, cells = chart.grid, figures_of(chart), chart.places
    titles = {cell: label(figure.title) for cell, figure in zip(cells, figures, strict=True)}
    every = [(row, column) for row in range(1, rows + 1) for column in range(1, columns + 1)]
    whole: Any = make_subplots(
        rows,
        columns,
        subplot_titles=[titles.get(cell, "") for cell in every],
        vertical_spacing=(0.3 if chart.small else 0.24) / rows,
    )
    whole.update_annotations(font_size=11 if chart.small else 13, yshift=12)
    shown: set[str] = set()
    for (row, column), figure in zip(cells, figures, strict=True):
        layout, at = _on_white(figure.layout), {"row": row, "col": column}
        for trace in _on_white(figure.traces):
            whole.add_trace(_in_legend(trace, figure, chart, shown), **at)
        axes = whole.get_subplot(row, column)
        if "scaleanchor" in layout["yaxis"]:
            layout["yaxis"]["scaleanchor"] = axes.xaxis.plotly_name.replace("axis", "")
        axes.xaxis.update(layout["xaxis"])
        axes.yaxis.update(layout["yaxis"])
        for shape in layout.get("shapes", ()):
            whole.add_shape(_in_panel(shape), **at)
        for note in layout.get("annotations", ()):
            whole.add_annotation(_in_panel(note), **at)
    common = _on_white(_frame(chart, {"title": {}}, {"title": {}}, False))
    kept = ("paper_bgcolor", "plot_bgcolor", "font", "hoverlabel", "bargap")
    whole.update_layout({name: common[name] for name in kept})
    height = (180 if chart.small else chart.height or 330) * rows + 90
    return whole.update_layout(height=height, hovermode="closest", margin={"t": 60})


def _in_legend(trace: Trace, figure: Figure, chart: Chart, shown: set[str]) -> Trace:
    """Returns a trace that is in the common legend once, or under the title of its panel."""
    if chart.legend_each:
        group = {"legendgroup": figure.name, "legendgrouptitle": {"text": label(figure.title)}}
        return trace | group
    name = trace.get("name")
    if name is None or trace.get("showlegend") is False:
        return trace
    is_new = name not in shown
    shown.add(name)
    return trace | {"showlegend": is_new}


def _in_panel(item: dict[str, Any]) -> dict[str, Any]:
    """Returns a shape or a note whose references to the paper are to the panel."""
    domains = {"xref": "x domain", "yref": "y domain"}
    return {key: domains[key] if value == "paper" else value for key, value in item.items()}


def _on_white(content: Any) -> Any:  # noqa: ANN401 - JSON
    """Returns traces or a layout with the colors of a light page for the names of variables."""
    text = re.sub(
        r"var\(--([\w-]+)\)",
        lambda match: _light_colors().get(match[1], match[0]),
        json.dumps(content),
    )
    return json.loads(text)


@cache
def _light_colors() -> dict[str, str]:
    """Returns the colors that the first rule of the style sheet sets."""
    rule = STYLE.read_text(encoding="utf-8").partition("}")[0]
    return dict(re.findall(r"--([\w-]+): ([^;]+);", rule))


def color(tone: int) -> str:
    """Returns the CSS variable of a tone.

    Example:
        >>> color(0), color(9)
        ('var(--data)', 'var(--samples)')
    """
    return f"var(--{TONES[tone % len(TONES)]})"


def label(text: str, longest: int = LONGEST_NAME) -> str:
    """Returns text that plotly shows literally: plotly reads a little HTML in every label."""
    short = text if len(text) <= longest else text[: longest - 1] + "…"
    return html.escape(short, quote=False)


def _figure(name: str, panel: Panel, chart: Chart) -> Figure:
    if panel.heat is not None:
        traces, layout = [_heat_trace(panel.heat)], _heat_layout(panel, panel.heat, chart)
    else:
        traces = [trace for one in panel.series for trace in _traces(one, panel)]
        layout = _layout(panel, chart)
    names = ", ".join(dict.fromkeys(one.name for one in panel.series))
    shown = f"{panel.y} against {panel.x}, {names}." if names else "A picture."
    title = panel.title or chart.title
    return Figure(
        name=name,
        title=title,
        alt=panel.alt or f"{chart.title}: {title}. {shown}",
        traces=traces,
        layout=layout,
        remark=panel.remarks,
        height=chart.height if panel.heat is None else None,
        place=panel.place,
    )


def _layout(panel: Panel, chart: Chart) -> dict[str, Any]:
    longest = LONGEST_SMALL_TITLE if chart.small else LONGEST_TITLE
    of_x, of_y = label(panel.x, longest), label(panel.y, longest)
    x = _axis(of_x, panel.x_range, [one.x for one in panel.series], log=panel.x_log)
    x |= {"spikecolor": MUTED_LINE, "spikethickness": 1, "spikedash": "dot"}
    y = _axis(of_y, chart.vertical_range(panel), chart.vertical(panel), log=panel.y_log)
    if panel.x_ticks is not None:
        x["tickvals"] = panel.x_ticks
    elif panel.x_whole:
        x |= _whole_ticks(panel)
    if panel.y_from_zero:
        y["rangemode"] = "tozero"
    if panel.y_hidden:
        y |= {"visible": False, "fixedrange": True}
    notes = [_rule_note(rule, panel) for rule in panel.rules if rule.text]
    if panel.is_empty:
        notes.append(_note(panel.empty, xref="paper", yref="paper", x=0.5, y=0.5))
    marks = {"shapes": [_rule(rule) for rule in panel.rules], "annotations": notes}
    return _frame(chart, x, y, _hover_mode(panel, chart)) | marks


def _frame(chart: Chart, x: Axis, y: Axis, hover: str | bool) -> dict[str, Any]:
    """Returns a layout with two axes; small multiples have narrow margins and no legend."""
    ink = color(INK)
    layout: dict[str, Any] = {
        "paper_bgcolor": PAPER,
        "plot_bgcolor": PAPER,
        "font": {"family": FONT, "size": 12, "color": ink},
        "margin": {"l": 58, "r": 10, "t": 22, "b": 46},
        "hovermode": hover,
        "hoverlabel": {"bgcolor": PAPER, "bordercolor": MUTED_LINE, "font": {"color": ink}},
        "legend": {"orientation": "h", "x": 0, "y": 1.07, "yanchor": "bottom"},
        "xaxis": x,
        "yaxis": y,
        "bargap": 0.35,
    }
    if not chart.small:
        return layout
    for axis in (x, y):
        axis.update(nticks=4, tickfont={"size": 10})
        axis["title"] |= {"font": {"size": 10.5, "color": MUTED_LINE}, "standoff": 4}
    margin = {"l": 42, "r": 8, "t": 6, "b": 36}
    return layout | {"showlegend": False, "margin": margin}


def _hover_mode(panel: Panel, chart: Chart) -> str | bool:
    if chart.small or panel.is_histogram:
        return False
    is_line = any(one.dash != "none" and one.kind == "line" for one in panel.series)
    return "x unified" if is_line and not panel.y_hidden else "closest"


def _axis(title: str, ends: Range | None, numbers: Sequence[Numbers], *, log: bool) -> Axis:
    axis: Axis = {
        "title": {"text": title, "font": {"size": 12, "color": MUTED_LINE}, "standoff": 8},
        "gridcolor": GRID,
        "linecolor": MUTED_LINE,
        "tickcolor": MUTED_LINE,
        "zeroline": False,
        "ticks": "outside",
        "ticklen": 3,
        "automargin": True,
        "nticks": 8,
    }
    if log:
        scale = log_scale(numbers)
        low, high = (math.log10(end) for end in ends) if ends else (scale.low, scale.high)
        ticks = {"tickvals": scale.ticks, "ticktext": scale.labels}
        return axis | {"type": "log", "range": [low, high]} | ticks
    return axis | {"range": list(ends)} if ends else axis


def _whole_ticks(panel: Panel) -> dict[str, Any]:
    """Returns ticks at whole numbers: all of them, if they are few."""
    places = [v for one in panel.series for v in drawable(one.x) if v is not None]
    return {"dtick": 1} if places and max(places) - min(places) <= 7 else {"nticks": 8}


def _traces(series: Series, panel: Panel) -> list[Trace]:
    x = drawable(series.x, log=panel.x_log)
    y = drawable(series.y, log=panel.y_log)
    name, tone = label(series.name), color(series.tone)
    trace: Trace = {"type": "scatter", "x": x, "y": y, "name": name, "legendgroup": name}
    if not series.in_legend:
        trace["showlegend"] = False
    if series.kind == "bars":
        hover = {"hovertemplate": "%{x}: %{y:.4~g}"}
        return [trace | {"type": "bar", "marker": {"color": tone}} | hover]
    line = {
        "color": tone,
        "width": series.width,
        "shape": "hv" if series.kind == "hold" else "linear",
    }
    line["dash"] = "solid" if series.dash == "none" else series.dash
    trace |= {"mode": _mode(series), "line": line, "marker": _mark(series, len(y), tone)}
    trace |= {"connectgaps": series.bridge_gaps, "hovertemplate": "%{y:.4~g}"}
    if series.labels is not None:
        trace["text"] = [label(text) for text in series.labels]
        trace["hovertemplate"] += " · %{text}"
    if series.kind == "area":
        trace |= {"fill": "tozeroy", "fillcolor": f"var(--{TONES[series.tone]}-band)"}
    if series.low is None or series.high is None:
        return [trace]
    if series.whiskers is not None:
        return [trace | _whiskers(series, panel, tone)]
    low, high = (drawable(end, log=panel.y_log) for end in (series.low, series.high))
    return [_band(x, low, high, tone) | {"legendgroup": name}, trace]


def _mode(series: Series) -> str:
    if series.dash == "none":
        return "markers"
    return "lines+markers" if series.is_marked else "lines"


def _mark(series: Series, points: int, tone: str) -> dict[str, Any]:
    mark: dict[str, Any] = {"color": tone, "size": series.mark_size}
    if series.mark == "diamond":
        return mark | {"symbol": "diamond", "line": {"color": color(INK), "width": 1}}
    if series.whiskers is not None and points > MOST_WHISKERS:
        mark["size"] = 3
    if series.mark_size < 7:  # a cloud of many points
        mark["opacity"] = 0.5 if points > MOST_WHISKERS else 1
    return mark | {"symbol": "diamond-open" if series.mark == "open diamond" else "circle"}


def _whiskers(series: Series, panel: Panel, tone: str) -> Trace:
    """Returns bars from low to high through each point; none if there are many points."""
    if len(series.y) > MOST_WHISKERS:
        return {}
    along_x = series.whiskers == "x"
    log = panel.x_log if along_x else panel.y_log
    middle, low, high = (
        drawable(values or [], log=log)
        for values in (series.x if along_x else series.y, series.low, series.high)
    )
    bars = {
        "type": "data",
        "symmetric": False,
        "array": [_gap(m, h) for m, h in zip(middle, high, strict=True)],
        "arrayminus": [_gap(w, m) for w, m in zip(low, middle, strict=True)],
        "color": tone,
        "thickness": 2 if along_x else 1,
        "width": 8 if along_x else 2,
    }
    return {"error_x" if along_x else "error_y": bars}


def _gap(low: float | None, high: float | None) -> float:
    return 0.0 if low is None or high is None else max(0.0, high - low)


def _band(x: Numbers, low: Numbers, high: Numbers, tone: str) -> Trace:
    """Returns the area between two lines: a polygon for each sequence of points with both."""
    xs: Numbers = []
    ys: Numbers = []
    run: list[tuple[float, float, float]] = []
    for place, bottom, top in [*zip(x, low, high, strict=True), (None, None, None)]:
        if place is not None and bottom is not None and top is not None:
            run.append((place, bottom, top))
        elif run:
            xs += [p for p, _, _ in run] + [p for p, _, _ in reversed(run)] + [None]
            ys += [b for _, b, _ in run] + [t for _, _, t in reversed(run)] + [None]
            run = []
    return {
        "type": "scatter",
        "mode": "lines",
        "x": xs[:-1],
        "y": ys[:-1],
        "fill": "toself",
        "fillcolor": tone,
        "opacity": BAND_OPACITY,
        "line": {"color": tone, "width": 1},
        "hoverinfo": "skip",
        "showlegend": False,
    }


def _rule(rule: Rule) -> dict[str, Any]:
    across, along = ("x", "y") if rule.axis == "y" else ("y", "x")
    return {
        "type": "line",
        "layer": "below",
        f"{across}ref": "paper",
        f"{across}0": 0,
        f"{across}1": 1,
        f"{along}0": rule.at,
        f"{along}1": rule.at,
        "line": {"color": color(rule.tone), "width": 1.5, "dash": rule.dash},
    }


def _rule_note(rule: Rule, panel: Panel) -> dict[str, Any]:
    """Returns the text of a reference line: above the panel, or at the right end of the line."""
    if rule.axis == "x":
        return _note(rule.text, x=rule.at, yref="paper", y=1, yanchor="bottom")
    at = math.log10(rule.at) if panel.y_log else rule.at
    return _note(rule.text, xref="paper", x=1, xanchor="right", y=at, yanchor="bottom")


def _note(text: str, **place: object) -> dict[str, Any]:
    font = {"size": 11, "color": MUTED_LINE}
    return {"text": label(text), "showarrow": False, "font": font, **place}


def _heat_trace(heat: Heat) -> Trace:
    if heat.png:
        return {
            "type": "image",
            "source": f"data:image/png;base64,{heat.png}",
            "hoverinfo": "skip",
        }
    rows = [drawable(row) for row in heat.values]
    columns = len(rows[0]) if rows else 0
    trace: Trace = {
        "type": "heatmap",
        "z": rows,
        "x0": heat.x[0],
        "dx": (heat.x[1] - heat.x[0]) / max(1, columns - 1) or 1,
        "y0": heat.y[0],
        "dy": (heat.y[1] - heat.y[0]) / max(1, len(rows) - 1) or 1,
        "showscale": False,
    }
    if heat.limit is None:
        return trace | {"colorscale": "Viridis", "hoverinfo": "skip"}
    return trace | {
        "zmin": -heat.limit,
        "zmax": heat.limit,
        "colorscale": [[0, color(SAMPLES)], [0.5, PAPER], [1, color(DATA)]],
        "hovertemplate": "row %{y}, column %{x}: %{z:.3~g}<extra></extra>",
    }


def _heat_layout(panel: Panel, heat: Heat, chart: Chart) -> dict[str, Any]:
    """Returns the layout of a picture without axes, or of a matrix with its first row on top."""
    x, y = (_axis(title, None, [], log=False) for title in (panel.x, panel.y))
    if heat.limit is None:
        for axis in (x, y):
            axis |= {"visible": False, "showgrid": False}
        y["scaleanchor"] = "x"
        margin = {"l": 2, "r": 2, "t": 2, "b": 2}
        return _frame(chart, x, y, False) | {"dragmode": False, "margin": margin}
    for axis in (x, y):
        axis |= {"showgrid": False, "mirror": True, "showline": True, "constrain": "domain"}
        if heat.names is not None:
            names = [label(name, LONGEST_OF_MATRIX) for name in heat.names]
            size = 12 if len(names) <= 12 else 9 if len(names) <= 24 else 7
            axis |= {"tickvals": list(range(len(names))), "ticktext": names}
            axis["tickfont"] = {"size": size}
            x["tickangle"] = 90
        else:
            axis |= {"tick0": 0, "dtick": 1} if len(heat.values) <= 6 else {"nticks": 5}
    y |= {"autorange": "reversed", "scaleanchor": "x"}
    layout = _frame(chart, x, y, "closest")
    return layout if chart.small else layout | {"margin": {"l": 46, "r": 8, "t": 6, "b": 40}}
