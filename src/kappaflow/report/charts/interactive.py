"""A chart as figures of a page: one for each panel."""

from kappaflow.report.charts.chart import Chart, Heat, Panel, Series
from kappaflow.report.charts.tones import variable
from kappaflow.report.figures.base import (
    Axis,
    Figure,
    Trace,
    axis,
    band,
    empty_note,
    label,
    layout,
    line,
    log_axis,
    nothing_to_draw,
    small_layout,
)
from kappaflow.report.numbers import drawable, what_is_not_drawn

MARKED = 12  # points of a line up to which each is marked
INVISIBLE = {"visible": False, "showgrid": False, "zeroline": False}


def figures_of(chart: Chart) -> list[Figure]:
    """Returns a figure for each panel, named after the chart and numbered from 1.

    Args:
        chart: What is drawn.

    Returns:
        The figures; the caption of the chart stands beside all of them, not in each.
    """
    found = []
    for number, panel in enumerate(chart.panels, start=1):
        name = f"{chart.name}-{number}"
        if panel.heat is not None:
            found.append(_picture(name, panel, panel.heat))
        else:
            found.append(_lines(name, panel, chart))
    return found


def _lines(name: str, panel: Panel, chart: Chart) -> Figure:
    traces: list[Trace] = []
    for series in panel.series:
        traces += _traces(series, panel)
    empty = {"annotations": [empty_note()]} if nothing_to_draw(traces) else {}
    across = _axis(panel.x, panel.x_log, [series.x for series in panel.series])
    return Figure(
        name=name,
        title=panel.title or chart.title,
        alt=f"{chart.title}: {panel.title}. {panel.y} against {panel.x}, "
        f"{', '.join(dict.fromkeys(series.name for series in panel.series))}.",
        caption="",
        traces=traces,
        layout=layout(across, _axis(panel.y, panel.y_log, chart.vertical(panel)), **empty),
        remark=what_is_not_drawn([series.y for series in panel.series], log=panel.y_log),
        height=380 if chart.wide else 330,
    )


def _traces(series: Series, panel: Panel) -> list[Trace]:
    color = variable(series.tone)
    x = drawable(series.x, log=panel.x_log)
    y = drawable(series.y, log=panel.y_log)
    name = label(series.name)
    if series.dash == "none":
        trace = {**line(x, y, name, color), "mode": "markers"}
    else:
        trace = line(x, y, name, color, dash=series.dash)
        if len(y) <= MARKED:
            trace["mode"] = "lines+markers"
    trace["legendgroup"] = trace["name"]
    if series.low is None or series.high is None:
        return [trace]
    low, high = (drawable(end, log=panel.y_log) for end in (series.low, series.high))
    places = [0.0 if place is None else place for place in x]
    area = {**band(places, low, high, color), "opacity": 0.18, "legendgroup": trace["name"]}
    return [area, trace]


def _axis(title: str, is_log: bool, series: list) -> Axis:
    return log_axis(title, series) if is_log else axis(title, nticks=8)


def _picture(name: str, panel: Panel, heat: Heat) -> Figure:
    rows = [drawable(row) for row in heat.values]
    trace: Trace = {
        "type": "heatmap",
        "z": rows,
        "x0": heat.x[0],
        "dx": (heat.x[1] - heat.x[0]) / max(1, len(rows[0]) - 1),
        "y0": heat.y[0],
        "dy": (heat.y[1] - heat.y[0]) / max(1, len(rows) - 1),
        "colorscale": "Viridis",
        "showscale": False,
        "hoverinfo": "skip",
    }
    return Figure(
        name=name,
        title=panel.title,
        alt=f"A picture: {panel.title}.",
        caption="",
        traces=[trace],
        layout=small_layout(
            axis("", **INVISIBLE), axis("", **INVISIBLE, scaleanchor="x"), dragmode=False
        )
        | {"margin": {"l": 2, "r": 2, "t": 2, "b": 2}},
        height=None,
    )
