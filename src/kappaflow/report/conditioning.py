"""Builds the conditioning part of a report: charts over depth, tables and key figures."""

import math
from collections.abc import Sequence
from typing import Any

from kappaflow.conditioning import TRUSTED, ProfileQuantiles, Spectrum
from kappaflow.diagnosis.depth_gains import GainFigures
from kappaflow.report.charts import (
    DATA,
    INK,
    MUTED,
    SAMPLES,
    SQUEEZE,
    STRETCH,
    WORST,
    Chart,
    Panel,
    Rule,
    Series,
    band,
    line,
    single_chart,
)
from kappaflow.report.numbers import drawable, is_finite, significant
from kappaflow.report.page import Charts, KeyFigure, Section, Text, TextTable
from kappaflow.report.result import Conditioning

LONGEST_NAME = 30  # characters of a layer's name in a legend


def limit_of(profile: ProfileQuantiles) -> float | None:
    """Returns the condition number that leaves two digits in the flow's dtype; None if unknown."""
    eps = profile.eps
    return TRUSTED / eps if eps and math.isfinite(eps) else None


def depth_charts(profile: ProfileQuantiles) -> list[Chart]:
    """Returns the charts of singular values, condition numbers and round-trip errors."""
    return [singular_value_chart(profile), condition_chart(profile), round_trip_chart(profile)]


def singular_value_chart(profile: ProfileQuantiles) -> Chart:
    """Returns the chart of the largest and smallest singular value up to each depth."""
    series = []
    for quantity, size, tone, kind in (
        (profile.sigma_max, "largest", STRETCH, "line"),
        (profile.sigma_min, "smallest", SQUEEZE, "dashed"),
    ):
        values = [[1.0, *quantile] for quantile in quantity.band]
        labels = ["the data", *profile.layers]
        name = f"{size} singular value"
        series.append(band(name, range(len(labels)), values, tone, kind=kind, labels=labels))
    return single_chart(
        "envelope",
        "Stretching of small steps, from the data to each depth",
        "The two lines should open slowly and end at most two or three decades apart. Lines that "
        "keep moving apart mean that every layer makes the flow worse. Bands hold 90 % of the "
        "rows.",
        **depth_axis(len(profile.layers)),
        y="singular value (latent per standardized unit)",
        y_log=True,
        series=series,
    )


def condition_chart(profile: ProfileQuantiles) -> Chart:
    """Returns the chart of condition numbers, per layer and cumulative; it marks the worst."""
    total, alone = profile.condition_number, profile.layer_condition_number
    layers, worst = profile.layers, profile.worst_layer
    positions = range(1, len(layers) + 1)
    name, value = layers[worst], alone.median[worst]
    series = [
        band("all layers so far", positions, total.band, DATA, labels=layers),
        band("each layer alone", positions, alone.band, MUTED, labels=layers, kind="points"),
    ]
    mark = "its condition number is not finite"
    if drawable([value], log=True)[0] is not None:
        mark = "the diamond marks it"
        short = name if len(name) <= LONGEST_NAME else name[: LONGEST_NAME - 1] + "…"
        series.append(
            line(f"worst: {short}", [worst + 1], [value], WORST, kind="points", mark="diamond")
        )
    limit = limit_of(profile)
    text = f", {significant(limit, 1)}" if limit else ""
    return single_chart(
        "condition",
        "Condition number of each layer and of all layers so far",
        "The layers should be alike, with none far above the others. The line should stay far "
        f"below the limit of the float type{text}. Look at layer “{name}” first: {mark}.",
        **depth_axis(len(profile.layers)),
        y="condition number (pure number)",
        y_log=True,
        series=series,
        rules=_limit_rule(profile, limit),
    )


def round_trip_chart(profile: ProfileQuantiles) -> Chart:
    """Returns the chart of round-trip errors from both sides, with the predicted error."""
    labels, layers = profile.layers, len(profile.layers)
    data, latent = profile.round_trip_data, profile.round_trip_latent
    ways = ("data → latent → data", "latent → data → latent")
    series = [
        band(ways[0], range(layers), data.band, DATA, labels=labels),
        band(ways[1], range(1, layers + 1), latent.band, SAMPLES, labels=labels, kind="dashed"),
    ]
    expected = drawable([profile.predicted_round_trip.median], log=True)[0]
    if expected is not None:
        name = "predicted from the condition number"
        series.append(line(name, [0, layers], [expected] * 2, INK, kind="dotted"))
    return single_chart(
        "round-trips",
        "Round-trip error from either side",
        "Read the solid line at its left end (data to latent to data) and the dashed line at its "
        "right end (latent to data to latent). Both should end near or below the dotted "
        "prediction. An error far above it has another cause than rounding.",
        **depth_axis(len(profile.layers)),
        y="error (standardized units)",
        y_log=True,
        series=series,
    )


def gains_chart(gains: GainFigures) -> Chart:
    """Returns the chart of nats gained up to each depth, above the condition number there."""
    labels = ["the data", *gains.layers]
    steps = [2 * error for error in gains.reached_errors]
    reached = [
        [value + sign * step for value, step in zip(gains.reached, steps, strict=True)]
        for sign in (-1, 0, 1)
    ]
    depths, x = range(len(labels)), depth_axis(len(gains.layers))
    numbers = [1.0, *gains.condition_number]
    return Chart(
        name="gains",
        title="What is gained up to each depth, and the conditioning it takes",
        caption=f"The flow is cut after each layer, and a {gains.reference} is fitted to what "
        f"comes out, at {gains.rows:,} held-out rows. Where the line on the left is flat, layers "
        "gain little: they may prepare what later layers gain, or not be needed. The band is two "
        "standard errors.",
        panels=[
            Panel(
                **x,
                y=f"nats per row above a {gains.reference}",
                series=[band("gained so far", depths, reached, DATA, labels=labels)],
                rules=[Rule(at=gains.total, text="whole flow")],
            ),
            Panel(
                **x,
                y="95 % condition number so far",
                y_log=True,
                series=[line("condition number", depths, numbers, STRETCH, labels=labels)],
            ),
        ],
    )


def gains_section(gains: GainFigures | None) -> list[Section]:
    """Returns the section on what each layer gains, empty without figures."""
    if gains is None:
        return []
    found = [
        ("Not needed, since next to nothing is lost without them", gains.idle),
        ("They undo each other", [i for pair in gains.pairs for i in pair]),
        ("Copies of earlier layers", [j for _, j in gains.copies]),
    ]
    notes = [
        Text(f"{text}: {', '.join(gains.layers[i] for i in layers)}.")
        for text, layers in found
        if layers
    ]
    charts = Charts([gains_chart(gains)], wide=True)
    return [Section("gains", "What each layer gains", [charts, *notes], link="Gains")]


def spectrum_chart(spectrum: Spectrum) -> Chart:
    """Returns the chart of the singular values at both ends, with their spread over the rows."""
    top, bottom = (v.reshape(len(v), -1) for v in (spectrum.sigma_max, spectrum.sigma_min))
    dimensions = spectrum.dimensions
    largest = min(top.shape[1], (dimensions + 1) // 2)
    smallest = min(bottom.shape[1], dimensions // 2)
    levels = top.new_tensor([0.05, 0.5, 0.95])
    series = []
    for name, values, first, tone in (
        ("largest", top[:, :largest], 1, STRETCH),
        ("smallest", bottom[:, :smallest].flip(1), dimensions - smallest + 1, SQUEEZE),
    ):
        numbers = range(first, first + values.shape[1])
        kind = "line" if len(numbers) > 1 else "points"
        quantiles = values.quantile(levels, dim=0).tolist()
        series.append(band(name, numbers, quantiles, tone, kind=kind))
    return singular_values_chart(
        series,
        "Singular values",
        "stretching (latent per input unit)",
        "Bands hold 90 % of the rows.",
        x_range=(0.5, dimensions + 0.5),
    )


def singular_values_chart(
    series: Sequence[Series], title: str, y: str, caption: str, **more: Any
) -> Chart:
    """Returns a chart of singular values by their number; keywords are fields of `Panel`."""
    return single_chart(
        "singular-values",
        title,
        f"The factors that stretch a small step, one for each direction. {caption}",
        x="singular value (number, the largest first)",
        x_whole=True,
        y=y,
        y_log=True,
        series=series,
        rules=[Rule(at=1.0)],
        **more,
    )


def depth_axis(layers: int) -> dict[str, Any]:
    """Returns the fields of a panel whose horizontal axis is the depth."""
    pad = max(0.2, 0.02 * layers)
    title = "depth (number of layers from the data)"
    return {"x": title, "x_range": (-pad, layers + pad), "x_whole": True}


def _limit_rule(profile: ProfileQuantiles, limit: float | None) -> list[Rule]:
    """Returns a line at the limit of the dtype, unless it would flatten the other curves."""
    lists = (*profile.condition_number.band, *profile.layer_condition_number.band)
    values = [v for numbers in lists for v in drawable(numbers, log=True) if v is not None]
    if limit is None or not values or limit > 1e4 * max(values):
        return []
    text = "above: too few digits left in this float type"
    return [Rule(at=limit, text=text)]


def depth_section(profile: ProfileQuantiles, where: str, charts: Sequence[Chart]) -> Section:
    """Returns the section about conditioning over depth, with a table of the worst layers.

    `where` says which rows were used, such as "held-out rows". `charts` are those of the profile
    that do not appear elsewhere on the page.
    """
    limit = limit_of(profile)
    digits = "the limit of this flow's float type"
    if limit:
        digits = f"{significant(limit, 1)}, where this flow's float type has too few digits left"
    text = (
        "A flow stretches a small step away from a row in some directions and shrinks it in "
        "others. The largest and the smallest factor are its largest and smallest singular value. "
        "Their ratio is the condition number: it tells how many digits the inverse loses. It "
        f"should stay far below {digits}, and no layer should stand out."
    )
    measured = (
        f"Measured at {significant(profile.points)} {where}. Singular values: {profile.status}."
    )
    blocks = [
        Text(text),
        Text(measured, "quiet"),
        Charts(charts, wide=True),
        _worst_table(profile),
    ]
    return Section("depth", "Conditioning over depth", blocks, link="Conditioning")


def _worst_table(profile: ProfileQuantiles) -> TextTable:
    """Returns a table of the worst-conditioned layers, the worst first."""
    median = profile.layer_condition_number.median
    worst = sorted(
        range(len(median)), key=lambda i: -median[i] if is_finite(median[i]) else -math.inf
    )[:5]
    title = "The layer" if len(worst) == 1 else f"The {len(worst)} worst-conditioned layers"
    columns = ("Layer", "Condition number, median", "Condition number, 95 %")
    columns += ("Round trip, median (standardized units)",)
    p95, trips = profile.layer_condition_number.p95, profile.layer_round_trip.median
    rows = [
        [profile.layers[i], significant(median[i]), significant(p95[i]), significant(trips[i], 2)]
        for i in worst
    ]
    return TextTable(columns, rows, title=title)


def conditioning_figures(
    profile: ProfileQuantiles, reached: Conditioning | None = None
) -> list[KeyFigure]:
    """Returns the key figures at the top of a page: condition number and round-trip errors."""
    limit = limit_of(profile)
    reached = reached or Conditioning.at(profile)
    median, p95 = reached.condition_number_median, reached.condition_number_p95
    budget = reached.condition_budget
    of_budget = "" if budget is None else f" (budget {significant(budget)})"
    too_much = f", {significant(limit, 1)} is too much" if limit else ""
    note = f"95 %: {significant(p95)}{of_budget}; 1 is perfect{too_much}"
    finite = is_finite(median) and is_finite(p95)
    results = [KeyFigure("Condition number", significant(median), "median", note, finite)]
    data, latent = profile.round_trip_data, profile.round_trip_latent
    for name, middle, high in (
        ("Round trip from data", data.median[0], data.p95[0]),
        ("Round trip from latent", latent.median[-1], latent.p95[-1]),
    ):
        note = f"95 %: {significant(high, 2)}; standardized units"
        finite = is_finite(middle) and is_finite(high)
        results.append(KeyFigure(name, significant(middle, 2), "median", note, finite))
    return results
