"""Learning curves: likelihood, learning rate and conditioning over the epochs."""

from typing import Any

from kappaflow.report.content import Report
from kappaflow.report.figures.base import (
    DATA,
    MUTED,
    SAMPLES,
    Figure,
    Trace,
    axis,
    empty_note,
    layout,
    line,
    log_axis,
    nothing_to_draw,
    vertical,
)
from kappaflow.report.image_content import ImageReport
from kappaflow.report.numbers import drawable, quantile, significant, what_is_not_drawn

LIKELIHOOD_CAPTION = (
    "Good: both fall and flatten together. A validation line that turns upwards while training "
    "still falls is overfitting; the weights of the best epoch were kept."
)
AnyReport = Report | ImageReport


def learning_curves(report: Report) -> list[Figure]:
    """Returns the figures over epochs for which there are values."""
    made = (_nll(report), _tail(report), _condition(report), _round_trip(report), _rate(report))
    return [figure for figure in made if figure is not None]


def image_learning_curves(report: ImageReport) -> list[Figure]:
    """Returns the same of a flow of images, whose likelihood is in bits per dimension."""
    likelihood = _bits(report) or _image_nll(report)
    made = (likelihood, _condition(report), _round_trip(report), _rate(report))
    return [figure for figure in made if figure is not None]


def _bits(report: ImageReport) -> Figure | None:
    best = _at_best(report, "validation_bits_per_dimension")
    return _over_epochs(
        report,
        {
            "training": ("train_bits_per_dimension", MUTED, "solid"),
            "validation": ("validation_bits_per_dimension", DATA, "solid"),
        },
        log=False,
        name="curve-bits",
        title="Bits per dimension over the epochs",
        axis_title="bits per dimension",
        alt=f"Training and validation bits per dimension over {len(report.curves)} epochs; best "
        f"epoch {report.best_epoch} with {significant(best)} on validation images.",
        caption=LIKELIHOOD_CAPTION,
    )


def _image_nll(report: ImageReport) -> Figure | None:
    best = _at_best(report, "validation_nll")
    return _over_epochs(
        report,
        {
            "training": ("train_nll", MUTED, "solid"),
            "validation": ("validation_nll", DATA, "solid"),
        },
        log=False,
        name="curve-nll",
        title="Likelihood over the epochs",
        axis_title="NLL (nats an image)",
        alt=f"Training and validation NLL over {len(report.curves)} epochs; best epoch "
        f"{report.best_epoch} with {significant(best)} nats an image on validation images.",
        caption=LIKELIHOOD_CAPTION,
    )


def _nll(report: Report) -> Figure | None:
    lines = {
        "training": ("train_nll_standardised", MUTED, "solid"),
        "validation": ("validation_nll_standardised", DATA, "solid"),
    }
    best = _at_best(report, "validation_nll_standardised")
    return _over_epochs(
        report,
        lines,
        log=False,
        name="curve-nll",
        title="Likelihood over the epochs",
        axis_title="NLL (nats a row, standardised)",
        alt=f"Training and validation NLL over {len(report.curves)} epochs; best epoch "
        f"{report.best_epoch} with a validation NLL of {significant(best)} nats a row.",
        caption=LIKELIHOOD_CAPTION,
    )


def _tail(report: Report) -> Figure | None:
    lines = {
        "95 % of the rows lie below": ("validation_nll_p95", DATA, "solid"),
        "99 % of the rows lie below": ("validation_nll_p99", DATA, "dash"),
    }
    return _over_epochs(
        report,
        lines,
        log=False,
        name="curve-tail",
        title="The worst rows over the epochs",
        axis_title="NLL (nats a row, standardised)",
        alt="The 95 % and 99 % quantiles of the NLL of validation rows over the epochs.",
        caption="Good: both lines fall with the mean. Tails that grow while the mean falls say "
        "that a few rows are becoming impossible under the flow.",
    )


def _condition(report: AnyReport) -> Figure | None:
    lines = {
        "median": ("condition_number_median", DATA, "solid"),
        "95 % of the points lie below": ("condition_number_p95", DATA, "dash"),
    }
    return _over_epochs(
        report,
        lines,
        log=True,
        name="curve-condition",
        title="Condition number over the epochs",
        axis_title="condition number (pure number)",
        alt="Median and 95 % quantile of the flow's condition number over the epochs.",
        caption="Good: a rise at first, then a plateau. A line that is still climbing steadily at "
        "the end will one day lose the inverse.",
    )


def _round_trip(report: AnyReport) -> Figure | None:
    lines = {
        "data → latent → data": ("round_trip_data", DATA, "solid"),
        "latent → data → latent": ("round_trip_latent", SAMPLES, "dash"),
    }
    return _over_epochs(
        report,
        lines,
        log=True,
        name="curve-round-trip",
        title="Round trips over the epochs",
        axis_title="error (standardised units)",
        alt="Round-trip errors from the data and from the latent over the epochs.",
        caption="Good: both stay flat and small, near 10⁻⁶ in single precision. One side can fail "
        "while the other looks fine: scores need the first, samples the second.",
    )


def _rate(report: AnyReport) -> Figure | None:
    return _over_epochs(
        report,
        {"learning rate": ("learning_rate", MUTED, "solid")},
        log=True,
        name="curve-rate",
        title="Learning rate",
        axis_title="step (pure number)",
        height=200,
        shape="hv",
        alt="The learning rate over the epochs.",
        caption="For reading the other curves: their kinks often stand where this one drops.",
    )


def _over_epochs(
    report: AnyReport,
    lines: dict[str, tuple[str, str, str]],
    *,
    log: bool,
    axis_title: str,
    height: int = 280,
    shape: str = "linear",
    **words: str,
) -> Figure | None:
    """Returns the figure of some keys of the curves, or None if none of them was measured."""
    epochs = drawable(row.get("epoch") for row in report.curves)
    raw = {key: [row.get(key) for row in report.curves] for key, _, _ in lines.values()}
    if all(value is None for series in raw.values() for value in series):
        return None
    traces: list[Trace] = [
        line(
            epochs,
            drawable(raw[key], log=log),
            name,
            color,
            dash=dash,
            shape=shape,
            connectgaps=True,
        )
        for name, (key, color, dash) in lines.items()
        if any(value is not None for value in raw[key])
    ]
    y = log_axis(axis_title, raw.values()) if log else _linear(axis_title, traces)
    marks: dict[str, Any] = vertical(report.best_epoch, "best")
    if nothing_to_draw(traces):
        marks["annotations"].append(empty_note())
    return Figure(
        traces=traces,
        layout=layout(_epochs_axis(epochs), y, **marks),
        remark=what_is_not_drawn(raw.values(), log=log),
        height=height,
        **words,  # type: ignore[arg-type]
    )


def _epochs_axis(epochs: list[float | None]) -> dict[str, Any]:
    known = [epoch for epoch in epochs if epoch is not None] or [0.0]
    pad = max(0.5, 0.03 * (max(known) - min(known)))
    whole = {"dtick": 1} if max(known) - min(known) < 5 else {"nticks": 8}
    return axis("epoch", range=[min(known) - pad, max(known) + pad], **whole)


def _linear(title: str, traces: list[Trace]) -> dict[str, Any]:
    """Returns an axis that the first, high epochs do not squash; the rest can be scrolled into."""
    values = [value for trace in traces for value in trace["y"] if value is not None]
    if not values:
        return axis(title)
    low, high, usual = min(values), max(values), quantile(values, 0.9)
    if high - low > 3 * (usual - low) > 0:
        high = usual + (usual - low)
    pad = 0.06 * (high - low) or 0.5
    return axis(title, range=[low - pad, high + pad])


def _at_best(report: AnyReport, key: str) -> object:
    rows = [row for row in report.curves if row.get("epoch") == report.best_epoch]
    return rows[0].get(key) if rows else None
