"""Charts of the doctor's measurements, each from one table of a diagnosis."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from kappaflow.report.charts import (
    DATA,
    INK,
    MUTED,
    SAMPLES,
    WORST,
    Chart,
    Rule,
    Series,
    band,
    histogram,
    line,
    single_chart,
)
from kappaflow.report.numbers import (
    NOT_FINITE,
    as_float,
    count,
    drawable,
    is_finite,
    significant,
    what_is_not_drawn,
)

Column = Sequence[float | int | str | None]
Table = dict[str, list[float | int | str | None]]

LOST = 1e-3  # round-trip error, as a share of the length, that the doctor reports as an error
CLOSE = 0.03  # largest difference, as a share of the range, that is drawn instead of the values
BINS = 16
WIDTHS = 6.0  # quartile distances beyond which a log_prob is counted but not drawn


@dataclass(frozen=True)
class Values:
    """One way to compute a number: its name in a chart, and its value in nats at each row."""

    name: str
    values: Column


def far_out_chart(table: Table) -> Chart:
    """Returns round-trip errors of both sides over the distance from the samples of the base."""
    x, series, ends = table["sigma"], [], []
    for side, name, tone, dash in (
        ("latent", "latent → data → latent", SAMPLES, "dash"),
        ("data", "data → latent → data", DATA, "solid"),
    ):
        quantiles = [table[f"{side}_{q}"] for q in ("p05", "median", "p95")]
        thin = {"kind": "outline", "width": 1, "in_legend": False}
        series.append(band(name, x, quantiles, tone, dash=dash))
        series.append(line("largest", x, table[f"{side}_max"], tone, **thin))
        ends.append(significant(table[f"{side}_median"][-1], 2))
    return single_chart(
        "far-out",
        "Round-trip error far from the data",
        "The doctor moves latents away from the origin and measures round trips from them and "
        "from their decoded rows. Both lines should stay far below the dotted line: above it, the "
        "lost digits are visible in samples. Where a line climbs or ends, the flow stops being "
        "invertible in this float type. Bands hold 90 % of the samples; thin lines show the "
        "largest error.",
        x="distance beyond the base samples (std. dev.)",
        x_whole=True,
        y="error (share of the length)",
        y_log=True,
        series=series,
        rules=[Rule(at=LOST)],
        empty=_empty_text(series),
        alt="Round-trip errors over the distance from the samples of the base. "
        f"{significant(x[-1])} standard deviations beyond them, the median is {ends[0]} on the "
        f"latent side and {ends[1]} on the data side.",
    )


def all_singular_values_chart(table: Table) -> Chart:
    """Returns all singular values of the whole flow, with their spread over the rows."""
    quantiles = [table[q] for q in ("p05", "median", "p95")]
    series = [band("median over the rows", table["number"], quantiles, DATA, mark_size=5)]
    ends = significant(table["median"][0]), significant(table["median"][-1])
    return single_chart(
        "singular-values",
        "All singular values of the flow",
        "The factors by which the flow stretches a small step, one for each direction. They "
        "should fall gradually. A last value far below the others is a direction that the flow "
        "has flattened. A first value far above the others is one direction that dominates.",
        x="singular value (number, the largest first)",
        x_whole=True,
        y="latent per standardized unit",
        y_log=True,
        series=series,
        rules=[Rule(at=1.0)],
        empty=_empty_text(series),
        alt=f"Singular values of the whole flow. The median of the largest is {ends[0]}, that of "
        f"the smallest is {ends[1]}.",
    )


def agreement_chart(
    name: str, title: str, expected: Values, others: Sequence[Values], *, is_found: bool
) -> Chart:
    """Returns other ways to compute a number against the expected one: equal ones on a diagonal.

    There are one or two other ways, at the same rows. If the doctor found a small difference, the
    differences are drawn.
    """
    x, columns = drawable(expected.values), [drawable(other.values) for other in others]
    gaps = [
        [None if a is None or b is None else b - a for a, b in zip(x, y, strict=True)]
        for y in columns
    ]
    sizes = [abs(gap) for column in gaps for gap in column if gap is not None]
    known = [value for value in x if value is not None]
    ends = [min(known, default=0.0), max(known, default=0.0)]
    as_gaps = is_found and max(sizes, default=0.0) < CLOSE * (ends[1] - ends[0])
    most = f"{significant(max(sizes), 2)} nats" if sizes else f"an amount that is {NOT_FINITE}"
    diagonal = {"dash": "dot", "kind": "outline", "width": 1.5, "in_legend": False}
    series = [] if as_gaps or not known else [line("equal", ends, ends, MUTED, **diagonal)]
    for other, values, tone, mark in zip(
        others, gaps if as_gaps else columns, (DATA, SAMPLES), ("circle", "open diamond"),
        strict=False,
    ):  # fmt: skip
        named = {"mark": mark, "in_legend": len(others) > 1}
        series.append(line(other.name, x, values, tone, dash="none", **named))
    place = "line at 0" if as_gaps else "dotted diagonal"
    across = others[0].name if len(others) == 1 else "compared values"
    return single_chart(
        name,
        title,
        f"Each mark is a row. All marks should lie on the {place}. The largest distance from it "
        f"is {most}.",
        x=f"{expected.name} (nats)",
        y=f"{'difference' if as_gaps else across} (nats)",
        series=series,
        rules=[Rule(at=0.0)] if as_gaps else [],
        remark=what_is_not_drawn([expected.values, *(other.values for other in others)]),
        alt=f"{' and '.join(other.name for other in others)} against {expected.name} at {len(x)} "
        f"rows. The largest difference is {most}.",
    )


def log_dets_chart(table: Table, *, is_found: bool) -> Chart:
    """Returns the log_dets of both directions against the Jacobian's, or against each other."""
    forward = Values("forward", table["forward"])
    inverse = Values("inverse, with the opposite sign", table["inverse"])
    expected, others, title = forward, [inverse], "log_det of both directions"
    if "jacobian" in table:
        title = "log_det against log|det| of the Jacobian"
        expected = Values("log|det| of the Jacobian", table["jacobian"])
        others = [forward, inverse]
    return agreement_chart("log-dets", title, expected, others, is_found=is_found)


def log_probs_chart(table: Table) -> Chart:
    """Returns histograms of log_prob at the rows and at samples of the flow."""
    rows, samples = ([v for v in drawable(table[n]) if v is not None] for n in ("data", "samples"))
    edges, beyond = _edges([*rows, *samples])
    medians = [significant(statistics.median(v)) if v else "missing" for v in (rows, samples)]
    remark = what_is_not_drawn([table["data"], table["samples"]])
    if beyond:
        remark += f" {beyond} far from the others {'are' if beyond > 1 else 'is'} left out."
    return single_chart(
        "log-prob",
        "log_prob of rows and of samples",
        "The two shapes should lie at the same place. Rows far to the left of the samples are "
        "rows that the flow would never sample. Rows far to the right have spikes of density on "
        "them.",
        x="log_prob (nats)",
        y="density (per nat)",
        y_from_zero=True,
        series=[
            histogram("rows", edges, _density(rows, edges), DATA, filled=True),
            histogram("samples", edges, _density(samples, edges), SAMPLES, filled=False),
        ],
        remark=remark.strip(),
        alt=f"Histograms of log_prob. The median is {medians[0]} at the rows and {medians[1]} at "
        "samples of the flow.",
    )


def integral_chart(table: Table) -> Chart:
    """Returns the integral of the density with its error, compared with 1."""
    value, error = as_float(table["integral"][0]), as_float(table["standard_error"][0])
    series, reach = [], 1.0
    if value is not None and error is not None and is_finite(value) and is_finite(error):
        reach = 1.15 * max(0.1, abs(value - 1) + 2 * error)
        ends = {"low": [value - 2 * error], "high": [value + 2 * error], "whiskers": "x"}
        name = "integral, ± 2 standard errors"
        series = [line(name, [value], [0.0], DATA, dash="none", in_legend=False, **ends)]
    return single_chart(
        "integral",
        "Integral of the density",
        "An estimate by importance sampling, with ± 2 standard errors. Its samples are worth "
        f"{significant(table['effective_draws'][0], 2)} samples of the density itself. The bar "
        "should reach the dotted line.",
        x="integral of the density",
        x_range=(1 - reach, 1 + reach),
        y="one estimate",
        y_range=(-1, 1),
        y_hidden=True,
        series=series,
        rules=[Rule(at=1.0, axis="x", text="1 is correct")],
        alt=f"The density integrates to {significant(value)}, with a standard error of "
        f"{significant(error, 2)}. 1 is correct.",
    )


def table_chart(name: str, table: Table) -> Chart | None:
    """Returns a chart of any table over its first column; None if no column has numbers."""
    first, *rest = table
    is_named = not any(is_finite(value) for value in table[first])
    x = range(1, len(table[first]) + 1) if is_named else table[first]
    numbers = [value for column in rest for value in drawable(table[column]) if value is not None]
    if not numbers:
        return None
    labels = [str(value) for value in table[first]] if is_named else None
    tones = (DATA, SAMPLES, INK, MUTED, WORST)
    left_out = len(rest) - len(tones)
    series = [
        line(_spaced(column), x, table[column], tone, labels=labels)
        for column, tone in zip(rest, tones, strict=False)
    ]
    title = _spaced(name)[:1].upper() + _spaced(name)[1:]
    return single_chart(
        f"table-{name}",
        title,
        "",
        x=_spaced(first),
        y="value",
        y_log=min(numbers) > 0 and max(numbers) > 100 * min(numbers),
        series=series,
        remark=f"{count(left_out, 'more column')} not drawn." if left_out > 0 else "",
        alt=f"{title}: {', '.join(one.name for one in series)} over {_spaced(first)}.",
    )


def _spaced(name: str) -> str:
    return name.replace("_", " ")


def _empty_text(series: Sequence[Series]) -> str:
    """Returns the text of a log axis without values: all are zero, or none is finite."""
    numbers = [value for one in series for values in one.bounds for value in values]
    return "no error at all" if all(number == 0 for number in numbers) else NOT_FINITE


def _edges(values: Sequence[float]) -> tuple[list[float], int]:
    """Returns edges of bins around the bulk of some values, and the number of values outside."""
    if len(values) < 2:
        return [], 0
    low, middle, high = statistics.quantiles(values, n=4)
    reach = max(WIDTHS * (high - low), 1e-6 * (1 + abs(middle)))
    kept = [value for value in values if abs(value - middle) <= reach]
    start, end = min(kept), max(kept)
    width = max((end - start) / BINS, 1e-9 * (1 + abs(middle)))
    return [start + width * i for i in range(BINS + 1)], len(values) - len(kept)


def _density(values: Sequence[float], edges: Sequence[float]) -> list[float]:
    """Returns the share of all values in each bin, divided by its width."""
    if not edges or not values:
        return []
    width = edges[1] - edges[0]
    counts = [0] * BINS
    for value in values:
        place = round((value - edges[0]) / width, 6)
        if 0 <= place <= BINS:
            counts[min(int(place), BINS - 1)] += 1
    return [number / (len(values) * width) for number in counts]
