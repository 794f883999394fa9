"""What all figures share: the figure itself, its axes, its lines, bands and steps.

Colours are the names of the page's CSS variables; its script fills them in, for light and dark.
"""

import html
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from kappaflow.report.numbers import NOT_FINITE, drawable, power_of_ten

INK, MUTED, GRID, PAPER = "var(--ink)", "var(--muted)", "var(--grid)", "var(--paper)"
DATA, DATA_BAND = "var(--data)", "var(--data-band)"
SAMPLES, SAMPLES_BAND = "var(--samples)", "var(--samples-band)"
STRETCH, STRETCH_BAND = "var(--stretch)", "var(--stretch-band)"
SQUEEZE, SQUEEZE_BAND = "var(--squeeze)", "var(--squeeze-band)"
WORST = "var(--error)"
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Noto Sans', 'DejaVu Sans', sans-serif"

Trace = dict[str, Any]
Axis = dict[str, Any]


@dataclass(frozen=True)
class Figure:
    """A figure of the page.

    Attributes:
        name: Its id on the page.
        title: A few words, set above it.
        alt: What it shows, with its main numbers, for those who cannot see it.
        caption: What a good one looks like, in one or two sentences.
        traces: Plotly's traces.
        layout: Plotly's layout.
        remark: What could not be drawn, or nothing.
        height: In CSS pixels; None makes it a square.
        place: Row and column in a grid of figures, from 1, where it has one.
    """

    name: str
    title: str
    alt: str
    caption: str
    traces: list[Trace]
    layout: dict[str, Any]
    remark: str = ""
    height: int | None = 320
    place: tuple[int, int] | None = None


def label(text: str, longest: int = 60) -> str:
    """Returns text as plotly shows it literally: plotly reads a little HTML in every label."""
    short = text if len(text) <= longest else text[: longest - 1] + "…"
    return html.escape(short, quote=False)


def layout(x: Axis, y: Axis, **more: object) -> dict[str, Any]:
    """Returns the layout that all figures share, with two axes and what else a figure asks for."""
    return {
        "paper_bgcolor": PAPER,
        "plot_bgcolor": PAPER,
        "font": {"family": FONT, "size": 12, "color": INK},
        "margin": {"l": 58, "r": 10, "t": 22, "b": 46},
        "hovermode": "x unified",
        "hoverlabel": {"bgcolor": PAPER, "bordercolor": MUTED, "font": {"color": INK}},
        "legend": {"orientation": "h", "x": 0, "y": 1.07, "yanchor": "bottom"},
        "xaxis": {**x, "spikecolor": MUTED, "spikethickness": 1, "spikedash": "dot"},
        "yaxis": y,
        **more,
    }


def small_layout(x: Axis, y: Axis, **more: object) -> dict[str, Any]:
    """Returns the layout of a small figure among others: no legend, nothing to hover over."""
    for axis in (x, y):
        axis.update(nticks=4, tickfont={"size": 10})
        axis["title"] = {**axis["title"], "font": {"size": 10.5, "color": MUTED}, "standoff": 4}
    return layout(
        x,
        y,
        showlegend=False,
        hovermode=False,
        margin={"l": 42, "r": 8, "t": 6, "b": 36},
        **more,
    )


def axis(title: str, **more: object) -> Axis:
    """Returns a linear axis."""
    return {
        "title": {"text": title, "font": {"size": 12, "color": MUTED}, "standoff": 8},
        "gridcolor": GRID,
        "linecolor": MUTED,
        "tickcolor": MUTED,
        "zeroline": False,
        "ticks": "outside",
        "ticklen": 3,
        "automargin": True,
        **more,
    }


def log_axis(title: str, series: Iterable[Iterable[object]], **more: object) -> Axis:
    """Returns a log axis that shows all drawable values, and never less than a decade."""
    values = [v for line in series for v in drawable(line, log=True) if v is not None]
    low, high = (math.log10(min(values)), math.log10(max(values))) if values else (0.0, 1.0)
    pad = max(0.0, 1 - (high - low)) / 2 + 0.05 * max(1.0, high - low)
    low, high = low - pad, high + pad
    ticks = _log_ticks(low, high)
    return axis(
        title,
        type="log",
        range=[low, high],
        tickvals=ticks,
        ticktext=[_tick(value) for value in ticks],
        **more,
    )


def _log_ticks(low: float, high: float) -> list[float]:
    """Returns decades, with 2 and 5 between few of them, and only some of many."""
    step = max(1, math.ceil((high - low) / 8))
    first = math.ceil(math.floor(low) / step) * step
    decades = range(first, math.floor(high) + 1, step)
    narrow, plain = high - low < 1.3, low > -2.1 and high < 4.3  # "5 × 10⁻⁷" takes much room
    mantissas = (1, 2, 5) if narrow or (plain and high - low < 2.3) else (1,)
    ticks = [mantissa * 10.0**decade for decade in decades for mantissa in mantissas]
    return [tick for tick in ticks if low <= math.log10(tick) <= high]


def _tick(value: float) -> str:
    if 0.009 < value < 20_000:
        return f"{value:,.6g}"
    exponent = math.floor(math.log10(value) + 1e-9)
    mantissa = round(value / 10.0**exponent)
    power = power_of_ten(exponent)
    return power if mantissa == 1 else f"{mantissa} × {power}"


def line(
    x: Sequence[float | None], y: Sequence[float | None], name: str, color: str, **more: object
) -> Trace:
    """Returns a line with gaps where there is no value; a few points get markers too."""
    lonely = sum(value is not None for value in y) <= 3
    style = {"color": color, "width": more.pop("width", 2), "dash": more.pop("dash", "solid")}
    names = " · %{text}" if "text" in more else ""
    style["shape"] = more.pop("shape", "linear")
    return {
        "type": "scatter",
        "mode": "lines+markers" if lonely else "lines",
        "x": list(x),
        "y": list(y),
        "name": name,
        "line": style,
        "marker": {"color": color, "size": 7},
        "hovertemplate": "%{y:.4~g}" + names,
        **more,
    }


def band(
    x: Sequence[float], low: Sequence[float | None], high: Sequence[float | None], color: str
) -> Trace:
    """Returns the area between two lines, one polygon for each run of points that have both."""
    xs: list[float | None] = []
    ys: list[float | None] = []
    run: list[tuple[float, float, float]] = []
    for point in [*zip(x, low, high, strict=True), (0.0, None, None)]:
        place, bottom, top = point
        if bottom is not None and top is not None:
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
        "fillcolor": color,
        "line": {"color": color, "width": 1},
        "hoverinfo": "skip",
        "showlegend": False,
    }


def steps(edges: Sequence[object], density: Sequence[object]) -> tuple[list, list]:
    """Returns the corners of a histogram as x and y, down to zero at both ends."""
    xs, ys = drawable(edges), drawable(density)
    pairs = list(zip(xs[:-1], xs[1:], ys, strict=False))
    kept = [(a, b, y) for a, b, y in pairs if a is not None and b is not None and y is not None]
    if not kept:
        return [], []
    x = [kept[0][0]] + [corner for a, b, _ in kept for corner in (a, b)] + [kept[-1][1]]
    y = [0.0] + [height for _, _, height in kept for _ in (0, 1)] + [0.0]
    return x, y


def filled_steps(
    edges: Sequence[object], density: Sequence[object], name: str, color: str, fill: str
) -> Trace:
    """Returns a histogram as a filled area."""
    x, y = steps(edges, density)
    trace = line(x, y, name, color, width=1, hoverinfo="skip")
    return {**trace, "mode": "lines", "fill": "tozeroy", "fillcolor": fill}


def outlined_steps(
    edges: Sequence[object], density: Sequence[object], name: str, color: str, **more: object
) -> Trace:
    """Returns a histogram as an outline."""
    x, y = steps(edges, density)
    return {**line(x, y, name, color, hoverinfo="skip", **more), "mode": "lines"}


def diamond(x: object, y: object, name: str) -> Trace:
    """Returns a mark that stands out, with an entry of the legend."""
    marker = {"symbol": "diamond", "size": 13, "color": WORST, "line": {"color": INK, "width": 1}}
    return {
        "type": "scatter",
        "mode": "markers",
        "x": [x],
        "y": [y],
        "name": name,
        "marker": marker,
        "hoverinfo": "skip",
    }


def note(text: str, **place: object) -> dict[str, Any]:
    """Returns an annotation without an arrow."""
    return {
        "text": text,
        "showarrow": False,
        "font": {"size": 11, "color": MUTED},
        **place,
    }


def vertical(x: float, text: str, color: str = MUTED) -> dict[str, Any]:
    """Returns a dotted vertical line with a word above it, as a part of a layout."""
    shape = {
        "type": "line",
        "x0": x,
        "x1": x,
        "yref": "paper",
        "y0": 0,
        "y1": 1,
        "line": {"color": color, "width": 1.5, "dash": "dot"},
    }
    word = note(text, x=x, yref="paper", y=1, yanchor="bottom")
    return {"shapes": [shape], "annotations": [word]}


def nothing_to_draw(traces: Iterable[Trace]) -> bool:
    """Returns whether no trace has a single value."""
    return all(value is None for trace in traces for value in trace["y"])


def empty_note() -> dict[str, Any]:
    """Returns the annotation of a figure that has nothing to draw."""
    return note(NOT_FINITE, xref="paper", yref="paper", x=0.5, y=0.5)
