"""Draws charts by plotly: a figure for each panel of a page, or one figure in a notebook.

A trace is plotly's word for a drawn series. What all figures share is in templates/plotly.json.
Colors are names of CSS variables; the script of a page replaces them for light and dark mode.
"""

import json
import math
import re
from functools import cache
from itertools import groupby
from typing import Any

from kappaflow.report.charts import (
    DATA,
    INK,
    MANY_POINTS,
    SAMPLES,
    TEMPLATES,
    WARNING,
    Box,
    Chart,
    Contour,
    Ends,
    Heat,
    Numbers,
    Panel,
    Rule,
    Series,
    color,
    label,
    light_colors,
    log_ticks,
)
from kappaflow.report.numbers import drawable

LONGEST_TITLE, LONGEST_SMALL = 100, 22  # characters
DASHES = {"dashed": "dash", "dotted": "dot"}

Content = dict[str, Any]  # of a trace or a layout


def draw(panel: Panel, chart: Chart) -> Content:
    """Returns the traces and the layout of a panel, and its height; None makes it square."""
    layout = _layout(panel, chart)
    if panel.heat is not None:
        _adapt_to_heat(layout, panel.heat)
        return {"data": [_heat_trace(panel.heat)], "layout": layout, "height": None}
    traces = [trace for series in panel.series for trace in _traces(series, panel)]
    if panel.contour is not None:
        traces.append(_contour_trace(panel.contour))
    if panel.below is not None:
        _add_below(traces, layout, draw(panel.below, chart))
    return {"data": traces, "layout": layout, "height": chart.height}


def _add_below(traces: list[Content], layout: Content, lower: Content) -> None:
    """Adds a lower panel to a figure, with its own vertical axis."""
    axes = lower["layout"]
    traces += [trace | {"yaxis": "y2", "showlegend": False} for trace in lower["data"]]
    layout["yaxis"]["domain"], layout["xaxis"] = [0.4, 1], axes["xaxis"] | {"anchor": "y2"}
    layout["yaxis2"] = axes["yaxis"] | {"domain": [0, 0.3], "nticks": 4}
    layout["shapes"] += [shape | {"yref": "y2"} for shape in axes["shapes"]]


def to_plotly(chart: Chart) -> Any:  # the import of plotly is slow
    """Returns a chart as one `plotly.graph_objects.Figure`, in the colors of a light page."""
    from plotly.subplots import make_subplots

    chart = chart.unstacked
    rows, columns = chart.grid
    titles = [label(panel.title or chart.title) if panel else "" for panel in chart.panels]
    space = (0.3 if chart.small else 0.24) / rows
    heights = [*chart.ratios] or None
    figure: Any = make_subplots(
        rows, columns, subplot_titles=titles, vertical_spacing=space, row_heights=heights
    )
    figure.update_annotations(font_size=11 if chart.small else 13, yshift=12)
    shown: set[str] = set()  # names in the legend
    for row, column, panel in chart.placed:
        drawn, axes = _on_white(draw(panel, chart)), figure.get_subplot(row, column)
        for trace in drawn["data"]:
            if name := trace.get("name"):
                trace["showlegend"] = name not in shown
                shown.add(name)
            figure.add_trace(trace, row=row, col=column)
        axes.xaxis.update(drawn["layout"]["xaxis"])
        axes.yaxis.update(drawn["layout"]["yaxis"])
        if axes.yaxis.scaleanchor:
            axes.yaxis.scaleanchor = axes.yaxis.anchor
        for shape in drawn["layout"]["shapes"]:
            figure.add_shape(shape, row=row, col=column)
    height = (180 if chart.small else chart.height or 330) * rows + 90
    return figure.update_layout(template=_on_white(template()), height=height, margin_t=60)


def _on_white(content: Content) -> Content:
    """Returns the content with the colors of a light page for the names of variables."""
    colors, variable = light_colors(), r"var\(--([\w-]+)\)"
    return json.loads(re.sub(variable, lambda m: colors.get(m[1], m[0]), json.dumps(content)))


@cache
def template() -> Content:
    """Returns the template of all figures."""
    return json.loads((TEMPLATES / "plotly.json").read_text(encoding="utf-8"))


def _layout(panel: Panel, chart: Chart) -> Content:
    """Returns the axes and what else differs from the template."""
    x = _axis(panel.x, chart.x_ends(panel), log=panel.x_log, small=chart.small)
    y = _axis(panel.y, chart.y_ends(panel), log=panel.y_log, small=chart.small)
    x_values = [v for series in panel.series for v in drawable(series.x) if v is not None]
    if panel.x_whole and x_values and max(x_values) - min(x_values) <= 7:
        x["dtick"] = 1
    shapes = [*map(_shaded, panel.boxes), *map(_rule, panel.rules)]
    layout: Content = {"xaxis": x, "yaxis": y, "shapes": shapes}
    if panel.empty:
        box = {"xref": "x domain", "yref": "y domain", "x0": 0, "x1": 1, "y0": 0, "y1": 1}
        text = {"text": panel.empty, "textposition": "middle center"}
        layout["shapes"].append(box | {"line": {"width": 0}, "label": text})
    kinds = {series.kind for series in panel.series}
    if chart.small:
        layout |= {"showlegend": False, "margin": {"l": 42, "r": 8, "t": 6, "b": 36}}
    is_plain = chart.small or "area" in kinds
    layout["hovermode"] = False if is_plain else "x unified" if "line" in kinds else "closest"
    return layout


def _axis(title: str, ends: Ends, *, log: bool, small: bool) -> Content:
    text = label(title, LONGEST_SMALL if small else LONGEST_TITLE)
    axis: Content = {"title": {"text": text}, "showticklabels": title != ""}
    if log:
        ticks = log_ticks(ends)
        axis |= {"type": "log", "tickvals": [*ticks], "ticktext": [*ticks.values()]}
        ends = ends[0] and math.log10(ends[0]), ends[1] and math.log10(ends[1])
    if ends != (None, None):
        axis["range"] = [*ends]
    if small:
        axis |= {"nticks": 4, "tickfont": {"size": 10}}
        axis["title"] |= {"font": {"size": 10.5}, "standoff": 4}
    return axis


def _rule(rule: Rule) -> Content:
    across, along = ("x", "y") if rule.axis == "y" else ("y", "x")
    shape = {f"{across}ref": f"{across} domain", f"{across}0": 0, f"{across}1": 1, "type": "line"}
    xanchor, yanchor = ("right", "top") if rule.axis == "y" else ("center", "bottom")
    text = {"text": label(rule.text), "xanchor": xanchor, "yanchor": yanchor}
    return shape | {f"{along}0": rule.at, f"{along}1": rule.at, "label": text}


def _shaded(box: Box) -> Content:
    """Returns a box as a shape; without ends it covers all of the vertical axis."""
    low, high = box.y or (0, 1)
    shape = {"type": "rect", "x0": box.x[0], "x1": box.x[1], "y0": low, "y1": high}
    look = {"fillcolor": color(WARNING), "opacity": 0.18, "line": {"width": 0}}
    return shape | look | ({} if box.y else {"yref": "y domain"})


def _contour_trace(contour: Contour) -> Content:
    x, y = contour.centers
    name = label(contour.name)
    trace: Content = {"type": "contour", "x": x, "y": y, "z": contour.heights, "name": name}
    trace |= {"contours": {"start": 1, "end": 3, "size": 1, "coloring": "none"}}
    trace |= {"line": {"color": color(contour.tone), "width": 1.5}, "hoverinfo": "skip"}
    return trace | {"showscale": False, "legendgroup": name, "showlegend": name != ""}


def _traces(series: Series, panel: Panel) -> list[Content]:
    x, y = drawable(series.x, log=panel.x_log), drawable(series.y, log=panel.y_log)
    name, tone, kind = label(series.name), color(series.tone), series.kind
    trace: Content = {"x": x, "y": y, "name": name, "legendgroup": name, "showlegend": name != ""}
    if kind == "bars":
        return [trace | {"type": "bar", "marker": {"color": tone}}]
    mode = "markers" if kind == "points" else "lines+markers" if series.is_marked else "lines"
    trace |= {"type": "scatter", "mode": mode, "marker": _mark(series, tone)}
    shape = "hv" if kind in ("steps", "area") else "linear"
    trace["line"] = {"color": tone, "dash": DASHES.get(kind, "solid"), "shape": shape}
    if kind == "area":
        trace |= {"fill": "tozeroy", "fillcolor": tone.replace(")", "-band)")}
    if series.labels is not None:
        trace |= {"text": [*map(label, series.labels)], "hovertemplate": "%{y:.4~g} · %{text}"}
    if series.low is None or series.high is None:
        return [trace]
    low, high = (drawable(values, log=panel.y_log) for values in (series.low, series.high))
    return [_spread(kind, x, low, high, tone) | {"legendgroup": name}, trace]


def _mark(series: Series, tone: str) -> Content:
    if series.mark == "diamond":
        edge = {"color": color(INK), "width": 1}
        return {"color": tone, "symbol": "diamond", "size": 13, "line": edge}
    look = {"size": 3.2, "opacity": 0.5} if len(series.y) > MANY_POINTS else {"size": 7}
    return look | {"color": tone, "symbol": "-".join(reversed(series.mark.split()))}


def _spread(kind: str, x: Numbers, low: Numbers, high: Numbers, tone: str) -> Content:
    """Returns a whisker through each point, or a polygon for each sequence of known points."""
    xs, ys = [], []
    points = [*zip(x, low, high, strict=True)]
    runs = [[*run] for known, run in groupby(points, lambda point: None not in point) if known]
    if kind == "points":
        runs = [[point] for point in points if None not in point]
    for positions, bottoms, tops in (zip(*run, strict=True) for run in runs):
        xs += [*positions, *reversed(positions), None]
        ys += [*bottoms, *reversed(tops), None]
    trace = {"type": "scatter", "mode": "lines", "x": xs[:-1], "y": ys[:-1], "hoverinfo": "skip"}
    trace |= {"showlegend": False, "line": {"color": tone, "width": 1}, "opacity": 0.2}
    return trace | ({"opacity": 1} if kind == "points" else {"fill": "toself", "fillcolor": tone})


def _heat_trace(heat: Heat) -> Content:
    across, up = heat.steps
    trace: Content = {"type": "heatmap", "z": [drawable(row) for row in heat.values]}
    trace |= {"x0": heat.x[0], "dx": across, "y0": heat.y[0], "dy": up}
    if heat.limit is None:
        return trace | {"colorscale": "Viridis", "hoverinfo": "skip"}
    colors = [[0, color(SAMPLES)], [0.5, "var(--paper)"], [1, color(DATA)]]
    return trace | {"zmin": -heat.limit, "zmax": heat.limit, "colorscale": colors}


def _adapt_to_heat(layout: Content, heat: Heat) -> None:
    """Makes a layout that of a picture without axes, or of a matrix with its first row on top."""
    axes = layout["xaxis"], layout["yaxis"]
    axes[1]["scaleanchor"] = "x"
    if heat.limit is None:
        layout |= {"dragmode": False, "hovermode": False, "margin": dict.fromkeys("lrtb", 2)}
        for axis in axes:
            axis["visible"] = False
        return
    axes[1]["autorange"] = "reversed"
    for axis in axes:
        axis |= {"showgrid": False, "constrain": "domain"}
