"""Charts of the doctor's measurements, each from one table of a diagnosis."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from kappaflow.report.charts import (
    DATA,
    MUTED,
    SAMPLES,
    Chart,
    Rule,
    band,
    histogram,
    line,
    single_chart,
)
from kappaflow.report.conditioning import singular_values_chart
from kappaflow.report.numbers import NOT_FINITE, drawable, significant, what_is_not_drawn

Column = Sequence[float | int | str | None]
Table = dict[str, list[float | int | str | None]]

LOST = 1e-3  # round-trip error, as a share of the length, that the doctor reports as an error
CLOSE = 0.03  # largest difference, as a share of the range, that is drawn instead of the values
BINS = 16
WIDTHS = 6.0  # quartile distances beyond which a log_prob is counted but not drawn


class Agreement(NamedTuple):
    """Columns of a table that should be equal to another column, in nats at each row."""

    code: str
    table: str
    name: str
    title: str
    expected: tuple[str, str]  # column, and its name in the chart
    others: tuple[tuple[str, str], ...]  # one or two columns with their names


LAYERS = ("layers", "log_prob through the layers")
FORWARD = ("forward", "forward")
INVERSE = ("inverse", "inverse, with the opposite sign")
AGREEMENTS = (  # of two with one name, the first whose columns were measured is drawn
    Agreement(
        "KF203", "log_dets", "log-dets", "log_det against log|det| of the Jacobian",
        ("jacobian", "log|det| of the Jacobian"), (FORWARD, INVERSE),
    ),
    Agreement(
        "KF203", "log_dets", "log-dets", "log_det of both directions", FORWARD, (INVERSE,)
    ),
    Agreement(
        "KF205", "densities", "library", "log_prob of the library against base and layers",
        LAYERS, (("library", "log_prob of the library"),),
    ),
    Agreement(
        "KF206", "sample_densities", "with-samples", "Density returned with samples",
        ("layers", "log_prob of the sample"),
        (("with_samples", "density returned with the sample"),),
    ),
)  # fmt: skip


def far_out_chart(table: Table) -> Chart:
    """Returns round-trip errors of both sides over the distance from the samples of the base."""
    x, series = table["sigma"], []
    for side, name, tone, kind in (
        ("latent", "latent → data → latent", SAMPLES, "dashed"),
        ("data", "data → latent → data", DATA, "line"),
    ):
        quantiles = [table[f"{side}_{q}"] for q in ("p05", "median", "p95")]
        series.append(band(name, x, quantiles, tone, kind=kind))
        series.append(line("", x, table[f"{side}_max"], tone, kind="dotted"))
    return single_chart(
        "far-out",
        "Round-trip error far from the data",
        "The doctor moves latents away from the origin and measures round trips from them and "
        "from their decoded rows. Both lines should stay far below the level line: above it, the "
        "lost digits are visible in samples. Where a line climbs or ends, the flow stops being "
        "invertible in this float type. Bands hold 90 % of the samples; dotted "
        "lines show the largest error.",
        x="distance beyond the base samples (std. dev.)",
        x_whole=True,
        y="error (share of the length)",
        y_log=True,
        series=series,
        rules=[Rule(at=LOST)],
    )


def all_singular_values_chart(table: Table) -> Chart:
    """Returns all singular values of the whole flow, with their spread over the rows."""
    quantiles = [table[q] for q in ("p05", "median", "p95")]
    series = [band("median over the rows", table["number"], quantiles, DATA)]
    return singular_values_chart(
        series,
        "All singular values of the flow",
        "latent per standardized unit",
        "They should fall gradually. A last value far below the others is a direction that the "
        "flow has flattened. A first value far above the others is one direction that dominates.",
    )


def agreement_chart(agreement: Agreement, table: Table, *, is_found: bool) -> Chart:
    """Returns columns against the expected one; small differences alone if they are findings."""
    (column, expected), others = agreement.expected, agreement.others
    x, columns = _floats(table[column]), [_floats(table[other]) for other, _ in others]
    gaps = [values - x for values in columns]
    sizes = [abs(gap) for values in gaps for gap in values[np.isfinite(values)]]
    known = x[np.isfinite(x)]
    ends = [known.min(), known.max()] if len(known) else [0.0, 0.0]
    as_gaps = is_found and max(sizes, default=0.0) < CLOSE * (ends[1] - ends[0])
    most = f"{significant(max(sizes), 2)} nats" if sizes else f"an amount that is {NOT_FINITE}"
    series = [] if as_gaps or not len(known) else [line("", ends, ends, MUTED, kind="dotted")]
    looks = ((DATA, "circle"), (SAMPLES, "open diamond"))
    drawn = zip(others, gaps if as_gaps else columns, looks, strict=False)
    for (_, name), values, (tone, mark) in drawn:
        series.append(line(name, x, values, tone, kind="points", mark=mark))
    reference_line = "line at 0" if as_gaps else "dotted diagonal"
    across = others[0][1] if len(others) == 1 else "compared values"
    return single_chart(
        agreement.name,
        agreement.title,
        f"Each mark is a row. All marks should lie on the {reference_line}. The largest distance "
        f"from it is {most}.",
        x=f"{expected} (nats)",
        y=f"{'difference' if as_gaps else across} (nats)",
        series=series,
        rules=[Rule(at=0.0)] if as_gaps else [],
        remark=what_is_not_drawn([table[column]]),
    )


def log_probs_chart(table: Table) -> Chart:
    """Returns histograms of log_prob at the rows and at samples of the flow."""
    known = [
        values[np.isfinite(values)] for values in map(_floats, (table["data"], table["samples"]))
    ]
    values = np.concatenate(known)
    edges = _edges(values) if len(values) > 1 else np.zeros(1)
    beyond = int(((values < edges[0]) | (values > edges[-1])).sum())
    series = []
    for name, numbers, tone in zip(("rows", "samples"), known, (DATA, SAMPLES), strict=True):
        density = np.histogram(numbers, edges)[0] / (max(1, len(numbers)) * np.diff(edges))
        series.append(histogram(name, [*edges], [*density], tone, filled=tone == DATA))
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
        y_range=(0, None),
        series=series,
        remark=remark.strip(),
    )


def _floats(column: Column) -> np.ndarray:
    """Returns a column with nan for what cannot be drawn."""
    return np.array([np.nan if value is None else value for value in drawable(column)])


def _edges(values: np.ndarray) -> np.ndarray:
    """Returns the edges of bins around the bulk of some values."""
    low, middle, high = np.quantile(values, (0.25, 0.5, 0.75))
    reach = max(WIDTHS * (high - low), 1e-6 * (1 + abs(middle)))
    return np.histogram_bin_edges(values[abs(values - middle) <= reach], BINS)
