"""What the doctor measured, drawn: each figure from one table of a diagnosis."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from kappaflow.report.figures.base import (
    DATA,
    DATA_BAND,
    INK,
    MUTED,
    SAMPLES,
    SAMPLES_BAND,
    WORST,
    Figure,
    Trace,
    axis,
    band,
    empty_note,
    filled_steps,
    label,
    layout,
    line,
    log_axis,
    note,
    nothing_to_draw,
    outlined_steps,
    vertical,
)
from kappaflow.report.numbers import (
    as_float,
    drawable,
    is_finite,
    significant,
    what_is_not_drawn,
)

Table = dict[str, list[float | int | str | None]]
Column = Sequence[float | int | str | None]

LOST = 1e-3  # share of their length by which points are missed that is an error of the doctor
CLOSE = 0.03  # of the range, below which differences are drawn in place of the values
BINS = 16
WIDTHS = 6.0  # quartile distances beyond which log_probs are counted and not drawn
MARKS = ((DATA, "circle"), (SAMPLES, "diamond-open"))


@dataclass(frozen=True)
class Way:
    """One of the ways to a number, as a figure calls it, and its values."""

    name: str
    values: Column


def far_out(table: Table) -> Figure:
    """Returns the round-trip errors of both sides over the distance from the draws of the base."""
    sigma = table["sigma"]
    places = [value or 0.0 for value in drawable(sigma)]
    traces: list[Trace] = []
    raw: list[Column] = []
    for side, name, color, fill, dash in (
        ("latent", "latent → data → latent", SAMPLES, SAMPLES_BAND, "dash"),
        ("data", "data → latent → data", DATA, DATA_BAND, "solid"),
    ):
        low, mid, high = (
            drawable(table[f"{side}_{level}"], log=True) for level in ("p05", "median", "p95")
        )
        raw += [table[f"{side}_{level}"] for level in ("p05", "median", "p95")]
        traces.append(band(places, low, high, fill))
        traces.append(line(places, mid, name, color, dash=dash) | {"mode": "lines+markers"})
        worst = line(places, drawable(table[f"{side}_max"], log=True), "the worst", color)
        traces.append(worst | {"line": {**worst["line"], "width": 1}, "showlegend": False})
        raw.append(table[f"{side}_max"])
    ends = [significant(table[f"{side}_median"][-1], 2) for side in ("latent", "data")]
    y = log_axis("error (share of the length)", [*raw, [LOST]])
    return Figure(
        name="far-out",
        title="Round trips further and further out",
        alt=f"Round-trip errors over the distance from the draws of the base; at "
        f"{significant(sigma[-1])} deviations beyond them {ends[0]} on the latent side and "
        f"{ends[1]} on the data side in the median.",
        caption="Latents are moved away from the origin, decoded, encoded and decoded again. "
        "Good: both lines stay far below the dotted one, above which digits are lost that are "
        "seen in samples. A line that climbs or ends is where the flow stops being its own "
        "inverse. Bands hold 90 % of the draws, thin lines are the worst of them.",
        traces=traces,
        layout=layout(
            axis("deviations beyond the draws of the base", dtick=2),
            y,
            shapes=[_across(LOST)],
            annotations=[_empty(raw)] if nothing_to_draw(traces) else [],
        ),
        remark=what_is_not_drawn(raw, log=True),
        height=330,
    )


def singular_values(table: Table) -> Figure:
    """Returns all singular values of the whole flow, with the spread over the points."""
    numbers = [value or 0.0 for value in drawable(table["number"])]
    raw = [table["p05"], table["median"], table["p95"]]
    low, mid, high = (drawable(values, log=True) for values in raw)
    traces = [
        band(numbers, low, high, DATA_BAND),
        line(numbers, mid, "median over the points", DATA) | {"mode": "lines+markers"},
    ]
    traces[1]["marker"] = {"color": DATA, "size": 5 if len(numbers) <= 24 else 3}
    ticks = {"dtick": 1} if len(numbers) <= 8 else {"nticks": 8}
    ends = significant(table["median"][0]), significant(table["median"][-1])
    return Figure(
        name="singular-values",
        title="All singular values of the flow",
        alt=f"Singular values of the whole flow, the largest {ends[0]} and the smallest "
        f"{ends[1]} in the median.",
        caption="By how much a small step becomes longer or shorter in each direction. Good: a "
        "slope without cliffs. A last value that falls far below the others is a direction that "
        "the flow has flattened, a first one far above them one that carries it all.",
        traces=traces,
        layout=layout(
            axis("singular value (number, the largest first)", **ticks),
            log_axis("latent per standardised unit", [*raw, [1.0]]),
            shapes=[_across(1.0)],
            annotations=[_empty(raw)] if nothing_to_draw(traces) else [],
        ),
        remark=what_is_not_drawn(raw, log=True),
        height=330,
    )


def agreement(
    name: str, title: str, right: Way, others: Sequence[Way], *, unit: str, is_found: bool
) -> Figure:
    """Returns what other ways say over what one way says: right ones lie on the diagonal.

    Args:
        name: Of the figure.
        title: Of the figure.
        right: The way that the others are held against.
        others: One or two, of the same points.
        unit: Of the values.
        is_found: Whether the doctor found that they differ: if by little, the differences are
            drawn.

    Returns:
        The figure.
    """
    x = drawable(right.values)
    ys = [drawable(other.values) for other in others]
    differences = [
        [None if a is None or b is None else b - a for a, b in zip(x, y, strict=True)] for y in ys
    ]
    gaps = [abs(d) for column in differences for d in column if d is not None]
    worst = max(gaps, default=0.0)
    most = f"up to {significant(worst, 2)} {unit}" if gaps else "an amount that is not finite"
    known = [value for value in x if value is not None]
    spread = max(known, default=0.0) - min(known, default=0.0)
    apart = is_found and worst < CLOSE * spread
    traces: list[Trace] = []
    if known and not apart:
        ends = [min(known), max(known)]
        traces.append(_plain_line(ends, ends))
    for other, values, (color, symbol) in zip(
        others, differences if apart else ys, MARKS, strict=False
    ):
        marker = {"color": color, "size": 7, "symbol": symbol, "opacity": 0.75}
        trace = line(x, values, other.name, color)
        traces.append({**trace, "mode": "markers", "marker": marker})
    raw = [right.values, *(other.values for other in others)]
    across = f"difference ({unit})" if apart else f"by the other way ({unit})"
    if len(others) == 1 and not apart:
        across = f"{others[0].name} ({unit})"
    return Figure(
        name=name,
        title=title,
        alt=f"{' and '.join(other.name for other in others)} against {right.name} at {len(x)} "
        f"points; they differ by {most}.",
        caption=f"A mark for each point. Good: all of them on the "
        f"{'line at 0' if apart else 'dotted diagonal'}. They are off it by {most}.",
        traces=traces,
        layout=layout(
            axis(f"{right.name} ({unit})"),
            axis(across),
            hovermode="closest",
            showlegend=len(others) > 1,
            shapes=[_across(0.0)] if apart else [],
            annotations=[] if gaps else [empty_note()],
        ),
        remark=what_is_not_drawn(raw),
        height=330,
    )


def log_dets(table: Table, *, is_found: bool) -> Figure:
    """Returns the log_dets of both directions against the Jacobian's, or against each other."""
    forward = Way("forward", table["forward"])
    back = Way("inverse, with its sign turned", table["inverse"])
    title = "log_det against log|det| of the Jacobian"
    if "jacobian" in table:
        right, others = Way("log|det| of the Jacobian", table["jacobian"]), [forward, back]
    else:
        right, others, title = forward, [back], "log_det of both directions"
    return agreement("log-dets", title, right, others, unit="nats", is_found=is_found)


def log_probs(table: Table) -> Figure:
    """Returns how log_prob is distributed, at the points and at samples of the flow."""
    columns = {name: _finite(table[name]) for name in ("data", "samples")}
    edges, beyond = _edges([*columns["data"], *columns["samples"]])
    density = {name: _density(values, edges) for name, values in columns.items()}
    traces = [
        filled_steps(edges, density["data"], "the points", DATA, DATA_BAND),
        outlined_steps(edges, density["samples"], "samples of the flow", SAMPLES, width=2),
    ]
    middles = [
        significant(statistics.median(values)) if values else "none" for values in columns.values()
    ]
    remarks = [what_is_not_drawn([table["data"], table["samples"]])]
    if beyond:
        remarks.append(
            f"{beyond} far away from the others {'are' if beyond > 1 else 'is'} not drawn."
        )
    return Figure(
        name="log-prob",
        title="log_prob of the points and of samples",
        alt=f"Histograms of log_prob: at the points the median is {middles[0]}, at samples of the "
        f"flow {middles[1]}.",
        caption="Good: two hills at the same place. Points far to the left of the samples are "
        "points that the flow would never draw; far to the right, spikes on them.",
        traces=traces,
        layout=layout(
            axis("log_prob (nats)"),
            axis("density (per nat)", rangemode="tozero"),
            hovermode=False,
            annotations=[empty_note()] if nothing_to_draw(traces) else [],
        ),
        remark=" ".join(remark for remark in remarks if remark),
        height=330,
    )


def integral(table: Table) -> Figure:
    """Returns the integral of the density with its error, beside 1."""
    value, error = as_float(table["integral"][0]), as_float(table["standard_error"][0])
    traces: list[Trace] = []
    if value is not None and error is not None and is_finite(value) and is_finite(error):
        bar = {"type": "data", "array": [2 * error], "color": DATA, "thickness": 2, "width": 8}
        mark = line(drawable([value]), [0.0], "integral, ± 2 standard errors", DATA)
        traces.append({
            **mark,
            "mode": "markers",
            "error_x": bar,
            "hovertemplate": "%{x:.4~g}",
        })
    y = axis("", visible=False, range=[-1, 1], fixedrange=True)
    one = vertical(1.0, "1 is right")
    if nothing_to_draw(traces):
        one["annotations"] = [empty_note()]
    reach = 1.15 * max(0.1, abs((value or 1.0) - 1) + 2 * (error or 0.0)) if traces else 1.0
    return Figure(
        name="integral",
        title="The integral of the density",
        alt=f"The density integrates to {significant(value)}, with a standard error of "
        f"{significant(error, 2)}; 1 is right.",
        caption="By importance sampling; the draws are worth "
        f"{significant(table['effective_draws'][0], 2)} draws of the density itself. Good: the "
        "bar reaches the dotted line.",
        traces=traces,
        layout=layout(
            axis("integral of the density", range=[1 - reach, 1 + reach], nticks=7),
            y,
            hovermode="closest",
            showlegend=False,
            **one,
        ),
        height=170,
    )


def any_table(name: str, table: Table) -> Figure | None:
    """Returns the columns of a table that has no figure of its own, over its first column.

    Args:
        name: Of the table.
        table: Its columns.

    Returns:
        The figure; None where no column has numbers.
    """
    columns = list(table)
    first, rest = columns[0], columns[1:]
    is_named = not any(is_finite(value) for value in table[first])
    x = list(range(1, len(table[first]) + 1)) if is_named else drawable(table[first])
    raw = [table[column] for column in rest]
    numbers = [value for values in raw for value in drawable(values) if value is not None]
    if not numbers:
        return None
    log = min(numbers) > 0 and max(numbers) > 100 * min(numbers)
    text = {"text": [label(str(value)) for value in table[first]]} if is_named else {}
    tones = (DATA, SAMPLES, INK, MUTED, WORST)
    traces = [
        line(x, drawable(values, log=log), label(_in_words(column)), tone, **text)
        for column, values, tone in zip(rest, raw, tones, strict=False)
    ]
    title = _in_words(name)
    title = title[:1].upper() + title[1:]
    drawn = ", ".join(map(_in_words, rest[: len(tones)]))
    return Figure(
        name=f"table-{name}",
        title=title,
        alt=f"{title}: {drawn} over {_in_words(first)}.",
        caption="",
        traces=traces,
        layout=layout(
            axis(label(_in_words(first)), nticks=8),
            log_axis("value", raw) if log else axis("value"),
        ),
        remark=what_is_not_drawn(raw, log=log),
        height=330,
    )


def _in_words(name: str) -> str:
    return name.replace("_", " ")


def _plain_line(x: Sequence[float], y: Sequence[float]) -> Trace:
    trace = line(x, y, "both the same", MUTED, width=1.5, dash="dot")
    return trace | {"mode": "lines", "hoverinfo": "skip", "showlegend": False}


def _across(y: float) -> dict:
    return {
        "type": "line",
        "xref": "paper",
        "x0": 0,
        "x1": 1,
        "y0": y,
        "y1": y,
        "layer": "below",
        "line": {"color": INK, "width": 1, "dash": "dot"},
    }


def _empty(raw: Sequence[Column]) -> dict:
    """Returns the annotation of a log axis without values: nothing missed, or nothing finite."""
    numbers = [as_float(value) for values in raw for value in values]
    if all(number == 0 for number in numbers):
        return note("nothing is missed at all", xref="paper", yref="paper", x=0.5, y=0.5)
    return empty_note()


def _finite(values: Column) -> list[float]:
    return [value for value in drawable(values) if value is not None]


def _edges(values: Sequence[float]) -> tuple[list[float], int]:
    """Returns edges of bins around the bulk of some values, and how many lie beyond."""
    if len(values) < 2:
        return [], 0
    low, middle, high = statistics.quantiles(values, n=4)
    reach = max(WIDTHS * (high - low), 1e-6 * (1 + abs(middle)))
    kept = [value for value in values if abs(value - middle) <= reach]
    start, end = min(kept), max(kept)
    width = max((end - start) / BINS, 1e-9 * (1 + abs(middle)))
    return [start + width * i for i in range(BINS + 1)], len(values) - len(kept)


def _density(values: Sequence[float], edges: Sequence[float]) -> list[float]:
    """Returns the share of all values in each bin by its width."""
    if not edges or not values:
        return []
    width = edges[1] - edges[0]
    counts = [0] * BINS
    for value in values:
        place = round((value - edges[0]) / width, 6)
        if 0 <= place <= BINS:
            counts[min(int(place), BINS - 1)] += 1
    return [count / (len(values) * width) for count in counts]
