"""Conditioning over depth: singular values, condition numbers and round trips, layer by layer."""

import math
from dataclasses import dataclass
from typing import Any

from kappaflow.report.content import ProfileView
from kappaflow.report.figures.base import (
    DATA,
    DATA_BAND,
    INK,
    MUTED,
    SAMPLES,
    SAMPLES_BAND,
    SQUEEZE,
    SQUEEZE_BAND,
    STRETCH,
    STRETCH_BAND,
    Figure,
    Trace,
    axis,
    band,
    diamond,
    empty_note,
    label,
    layout,
    line,
    log_axis,
    note,
    nothing_to_draw,
)
from kappaflow.report.numbers import (
    drawable,
    is_finite,
    significant,
    what_is_not_drawn,
)

# eps * condition number above this is an error of the doctor: `kappaflow.conditioning.TRUSTED`,
# which is not imported, since reports know nothing of what measures.
TRUSTED_LOSS = 1e-2


@dataclass(frozen=True)
class Depth:
    """The profile of a report, as its figures see it."""

    profile: ProfileView

    @property
    def layers(self) -> list[str]:
        """Names of the layers, data side first."""
        return self.profile.layers

    @property
    def worst(self) -> int:
        """The layer with the largest condition number of its own."""
        return self.profile.worst_layer

    @property
    def limit(self) -> float | None:
        """The condition number at which the flow's float type keeps two digits, if known."""
        eps = self.profile.eps
        return TRUSTED_LOSS / eps if eps and math.isfinite(eps) else None

    @property
    def places(self) -> list[int]:
        """Depth behind each layer: 1 is behind the first."""
        return list(range(1, len(self.layers) + 1))

    @property
    def hover(self) -> list[str]:
        """Names of the layers as plotly shows them."""
        return [label(name) for name in self.layers]


def envelope(depth: Depth) -> Figure:
    """Returns the largest and smallest cumulative singular value over depth, with bands."""
    places, names = [0, *depth.places], ["the data", *depth.hover]
    traces: list[Trace] = []
    raw: list[list[float]] = []
    largest, smallest = depth.profile.sigma_max, depth.profile.sigma_min
    for quantity, name, color, fill, dash in (
        (largest, "largest stretch", STRETCH, STRETCH_BAND, "solid"),
        (smallest, "smallest stretch", SQUEEZE, SQUEEZE_BAND, "dash"),
    ):
        raw += quantity.band
        low, mid, high = ([1.0, *values] for values in quantity.band)
        traces.append(band(places, drawable(low, log=True), drawable(high, log=True), fill))
        traces.append(line(places, drawable(mid, log=True), name, color, text=names, dash=dash))
    last = significant(largest.median[-1]), significant(smallest.median[-1])
    return Figure(
        name="envelope",
        title="How far small steps are stretched, from the data to each depth",
        alt="Largest and smallest cumulative singular value over depth; behind the last layer "
        f"{last[0]} and {last[1]} in the median.",
        caption="Good: two lines that open slowly, at most two or three decades apart at "
        "the right edge. Bands hold 90 % of the points; lines that run apart steadily are a flow "
        "that gets worse with every layer.",
        traces=traces,
        layout=layout(
            _depth_axis(depth),
            log_axis("singular value (latent per standardised unit)", [[1.0], *raw]),
            annotations=[empty_note()] if nothing_to_draw(traces) else [],
        ),
        remark=what_is_not_drawn(raw, log=True),
        height=360,
    )


def condition(depth: Depth) -> Figure:
    """Returns the condition number of each layer and of all up to it, the worst layer marked."""
    total, own = depth.profile.condition_number, depth.profile.layer_condition_number
    raw = [*total.band, *own.band]
    low, mid, high = (drawable(values, log=True) for values in total.band)
    traces = [
        band(depth.places, low, high, DATA_BAND),
        line(depth.places, mid, "all layers so far", DATA, text=depth.hover),
        _own_condition(depth),
    ]
    name, value = depth.layers[depth.worst], own.median[depth.worst]
    mark = "marked by a diamond"
    if drawable([value], log=True)[0] is None:
        mark = "whose condition number is not finite"
    else:
        name = f"worst: {label(depth.layers[depth.worst], 30)}"
        traces.append(diamond(depth.worst + 1, value, name))
    limit = _limit_in_sight(depth, raw)
    marks = {} if limit is None else _limit_line(limit)
    if nothing_to_draw(traces):
        marks["annotations"] = [empty_note()]
    limit_in_words = f", {significant(depth.limit, 1)}" if depth.limit else ""
    return Figure(
        name="condition",
        title="Condition number, each layer and all so far",
        alt=f"Condition numbers over {len(depth.layers)} layers; the whole flow has "
        f"{significant(total.median[-1])} in the median, the worst layer is {name} with "
        f"{significant(value)}.",
        caption="Good: layers alike, none far above the others, and a line that stays far "
        f"below the limit of the float type{limit_in_words}. The layer to look at first is "
        f"“{name}”, {mark}.",
        traces=traces,
        layout=layout(
            _depth_axis(depth),
            log_axis("condition number (pure number)", [*raw, [limit]]),
            **marks,
        ),
        remark=what_is_not_drawn(raw, log=True),
        height=400,
    )


def round_trips(depth: Depth) -> Figure:
    """Returns the round-trip errors over depth on both sides, beside the predicted one."""
    count = len(depth.layers)
    traces: list[Trace] = []
    raw: list[list[float]] = []
    data, latent = depth.profile.round_trip_data, depth.profile.round_trip_latent
    for quantity, name, color, fill, dash, first in (
        (data, "data → latent → data", DATA, DATA_BAND, "solid", 0),
        (latent, "latent → data → latent", SAMPLES, SAMPLES_BAND, "dash", 1),
    ):
        places = list(range(first, count + first))
        low, mid, high = quantity.band
        raw += quantity.band
        traces.append(band(places, drawable(low, log=True), drawable(high, log=True), fill))
        traces.append(
            line(places, drawable(mid, log=True), name, color, text=depth.hover, dash=dash)
        )
    expected = drawable([depth.profile.predicted_round_trip.median], log=True)[0]
    if expected is not None:
        traces.append(
            line([0, count], [expected] * 2, "predicted from the condition number", INK)
            | {"mode": "lines", "line": {"color": INK, "width": 1.5, "dash": "dot"}}
        )
    ends = significant(data.median[0]), significant(latent.median[-1])
    return Figure(
        name="round-trips",
        title="Round trips: what is lost there and back",
        alt=f"Round-trip errors over depth; {ends[0]} from data back to data and {ends[1]} from "
        f"latent back to latent in the median, {significant(expected)} predicted.",
        caption="Read the solid line at its left end (data, there and back) and the dashed one at "
        "its right end (latent, there and back). Good: both end near or below the dotted "
        "prediction; far above it, something other than rounding is at work.",
        traces=traces,
        layout=layout(
            _depth_axis(depth),
            log_axis("error (standardised units)", [*raw, [expected]]),
            annotations=[empty_note()] if nothing_to_draw(traces) else [],
        ),
        remark=what_is_not_drawn(raw, log=True),
        height=360,
    )


def _own_condition(depth: Depth) -> Trace:
    """Returns a point for each layer, with whiskers where there is room for them."""
    own = depth.profile.layer_condition_number
    low, mid, high = (drawable(values, log=True) for values in own.band)
    trace = line(depth.places, mid, "each layer alone", MUTED, text=depth.hover)
    size = 7 if len(mid) <= 64 else 3
    trace |= {"mode": "markers", "marker": {"color": MUTED, "size": size}}
    if len(mid) <= 64:
        trace["error_y"] = {
            "type": "data",
            "symmetric": False,
            "array": [max(0.0, h - m) if h and m else 0 for h, m in zip(high, mid, strict=True)],
            "arrayminus": [
                max(0.0, m - w) if w and m else 0 for w, m in zip(low, mid, strict=True)
            ],
            "color": MUTED,
            "thickness": 1,
            "width": 2,
        }
    return trace


def _limit_in_sight(depth: Depth, raw: list[list[float]]) -> float | None:
    """Returns the limit of the float type if drawing it does not flatten all the rest."""
    values = [v for line_ in raw for v in drawable(line_, log=True) if v is not None]
    if depth.limit is None or not values:
        return None
    return depth.limit if depth.limit <= 1e4 * max(values) else None


def _depth_axis(depth: Depth) -> dict[str, Any]:
    count = len(depth.layers)
    pad = max(0.2, 0.02 * count)
    ticks = {"dtick": 1} if count <= 5 else {"nticks": 10}
    return axis("depth (number of layers from the data)", range=[-pad, count + pad], **ticks)


def _limit_line(y: float) -> dict[str, Any]:
    """Returns a dashed line across the figure with its meaning, as a part of a layout."""
    word = note(
        "above: too few digits left in this float type",
        xref="paper",
        x=1,
        xanchor="right",
        y=math.log10(y),
        yanchor="bottom",
    )
    across = {"type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": y, "y1": y}
    style = {"line": {"color": INK, "width": 1, "dash": "dash"}}
    return {"shapes": [across | style], "annotations": [word]}


def worst_layers(depth: Depth, most: int = 5) -> list[tuple[str, float, float, float]]:
    """Returns the layers worst alone: name, condition number (median, 95 %), round trip."""
    own, alone = depth.profile.layer_condition_number, depth.profile.layer_round_trip
    order = sorted(
        range(len(depth.layers)),
        key=lambda i: -own.median[i] if is_finite(own.median[i]) else float("-inf"),
    )
    return [(depth.layers[i], own.median[i], own.p95[i], alone.median[i]) for i in order[:most]]
