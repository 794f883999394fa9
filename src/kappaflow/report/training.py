"""The training on a page: data, learning curves, and the settings of model and training."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from kappaflow.report.charts import (
    DATA,
    MUTED,
    SAMPLES,
    Chart,
    Ends,
    Rule,
    Series,
    line,
    single_chart,
)
from kappaflow.report.content import About
from kappaflow.report.numbers import count, drawable, format_date, plain_text, significant
from kappaflow.report.page import (
    Block,
    Charts,
    Details,
    FactTable,
    Heading,
    Items,
    Section,
    Text,
    TextTable,
)
from kappaflow.report.result import Result, figures_of

Curves = Sequence[Mapping[str, float | int | str | None]]


class CurveChart(NamedTuple):
    """The figures of the epochs that a chart shows."""

    name: str
    title: str
    y: str  # title of the vertical axis
    caption: str
    lines: Sequence[tuple[str, str, int, str]]  # name in the legend, key, tone, kind
    log: bool = True


def _likelihood(title: str, y: str, key: str) -> CurveChart:
    caption = (
        "Both lines should fall and flatten together. A validation line that rises while the "
        "training line still falls is overfitting. The report uses the weights of the best epoch."
    )
    lines = [("training", f"train_{key}", MUTED, "line")]
    lines.append(("validation", f"validation_{key}", DATA, "line"))
    return CurveChart("curve-nll", f"{title} over the epochs", y, caption, lines, log=False)


ROW_NLL = "NLL (nats, standardized)"
OF_PIXELS = (_likelihood("Bits per dimension", "bits per dimension", "bits_per_dimension"),)
OF_ROWS = (  # or of an energy, which has no likelihood
    _likelihood("Likelihood", ROW_NLL, "nll_standardized"),
    CurveChart(
        "curve-tail",
        "Least likely rows over the epochs",
        ROW_NLL,
        "Both lines should fall with the mean. If they rise while the mean falls, the flow is "
        "making a few rows nearly impossible.",
        [
            ("95 % quantile", "validation_nll_p95", DATA, "line"),
            ("99 % quantile", "validation_nll_p99", DATA, "dashed"),
        ],
        log=False,
    ),
    CurveChart(
        "curve-energy",
        "Free energy over the intervals",
        "free energy (nats)",
        "The line should fall to minus the logarithm of the normalizing constant.",
        [("free energy", "free_energy", DATA, "line")],
        log=False,
    ),
    CurveChart(
        "curve-effective",
        "Effective share of the samples",
        "effective sample size (share of 1)",
        "The line should rise towards 1.",
        [("effective sample size", "effective_sample_size", DATA, "line")],
        log=False,
    ),
)
OF_ALL = (
    CurveChart(
        "curve-condition",
        "Condition number over the epochs",
        "condition number (pure number)",
        "The lines should rise at first and then level off. If a line still climbs steadily at "
        "the end, longer training will cost the flow its inverse.",
        [
            ("median", "condition_number_median", DATA, "line"),
            ("95 % quantile", "condition_number_p95", DATA, "dashed"),
        ],
    ),
    CurveChart(
        "curve-round-trip",
        "Round-trip error over the epochs",
        "error (standardized units)",
        "Both lines should stay flat and small, near 10⁻⁶ in single precision. Densities need the "
        "first, samples the second, and one can fail while the other looks fine.",
        [
            ("data → latent → data", "round_trip_data", DATA, "line"),
            ("latent → data → latent", "round_trip_latent", SAMPLES, "dashed"),
        ],
    ),
    CurveChart(
        "curve-rate",
        "Learning rate",
        "learning rate (pure number)",
        "Sudden changes in the other curves often coincide with a drop here.",
        [("learning rate", "learning_rate", MUTED, "steps")],
    ),
)


def learning_curves(curves: Curves, best_epoch: int) -> list[Chart]:
    """Returns the charts over the epochs, for figures with values."""
    pixels, rows, others = (
        [chart for what in charts if (chart := _curve_chart(what, curves, best_epoch)) is not None]
        for charts in (OF_PIXELS, OF_ROWS, OF_ALL)
    )
    return [*(pixels or rows), *others]


def _curve_chart(what: CurveChart, curves: Curves, best_epoch: int) -> Chart | None:
    """Returns a chart over the epochs, or None if none of its figures was measured."""
    series = []
    for name, key, tone, kind in what.lines:
        points = [(row.get("epoch"), row[key]) for row in curves if row.get(key) is not None]
        if points:
            epochs, values = zip(*points, strict=True)
            series.append(line(name, epochs, values, tone, kind=kind))
    if not series:
        return None
    drawn = (epoch for trace in series for epoch in drawable(trace.x))
    epochs = [epoch for epoch in drawn if epoch is not None] or [0.0]
    pad = max(0.5, 0.03 * (max(epochs) - min(epochs)))
    return single_chart(
        what.name,
        what.title,
        what.caption,
        x="epoch",
        x_range=(min(epochs) - pad, max(epochs) + pad),
        x_whole=True,
        y=what.y,
        y_log=what.log,
        y_range=(None, None) if what.log else _usual_range(series),
        series=series,
        rules=[Rule(at=best_epoch, axis="x", text="best")],
    )


def _usual_range(series: Sequence[Series]) -> Ends:
    """Returns an axis range that ignores the high values of the first epochs."""
    values = [value for trace in series for value in drawable(trace.y) if value is not None]
    if not values:
        return None, None
    low, high = min(values), max(values)
    usual = sorted(values)[int(0.9 * (len(values) - 1))]
    if high - low > 3 * (usual - low) > 0:
        high = usual + (usual - low)
    pad = 0.06 * (high - low) or 0.5
    return low - pad, high + pad


def curves_section(charts: Sequence[Chart], curves: Curves, best_epoch: int, note: str) -> Section:
    """Returns the section with the learning curves; `note` on their likelihood may be empty."""
    if not charts:
        return Section("curves", "Learning curves", [Text("No epoch was recorded.")])
    text = (
        "The training, epoch by epoch. The dotted line marks the epoch whose weights were kept: "
        f"epoch {best_epoch}."
    )
    counts = (row.get("skipped_steps") for row in curves)  # each since the start
    skipped = max((number for number in counts if isinstance(number, int)), default=0)
    if skipped:
        were = "was" if skipped == 1 else "were"
        steps = count(skipped, "training step")
        text += f" {steps} {were} skipped because a gradient was not finite."
    return Section("curves", "Learning curves", [Text(f"{text} {note}"), Charts(charts)])


SHOWN_DIGITS = 12  # of the SHA-256 of the data


def origin(about: About) -> list[Text]:
    """Returns when and how the flow was trained, and the fingerprint of the data, if known."""
    known = [
        ("Trained:", format_date(about.finished_at)),
        ("Command:", about.command),
        ("SHA-256 of the data:", about.fingerprint[:SHOWN_DIGITS]),
    ]
    return [Text(value, style="small", lead=name) for name, value in known if value]


def about_section(about: About, notes: Sequence[str]) -> Section:
    """Returns the section about the data."""
    blocks: list[Block] = [FactTable(about.data)]
    if notes:
        blocks += [Heading("Notes on the data"), Items(notes)]
    return Section("about", "Data", blocks)


def settings_section(about: About, result: Result) -> Section:
    """Returns the section with the settings of model and training, and all figures, folded."""
    tables = [FactTable(about.model, "Model"), FactTable(about.training, "Training")]
    blocks = [Details("Model and training", tables)]
    if about.trials:
        blocks.append(Details("Model search", [_trials_table(about)]))
    figures = [
        (name, significant(value, 6) if isinstance(value, float) else plain_text(value))
        for name, value in figures_of(result)
    ]
    blocks.append(Details("All figures", [FactTable(figures)]))
    return Section("settings", "Settings", blocks)


def _trials_table(about: About) -> TextTable:
    rows = []
    for name, rounds, steps, nll, behind, error in about.trials:
        difference = f"{behind:.3f} ± {error:.3f}" if rows else "chosen"
        rows.append([name, str(rounds), f"{steps:,}", f"{nll:.3f}", difference])
    columns = ("Model", "Rounds", "Steps", "Validation NLL (nats)", "Difference from the best")
    return TextTable(columns, rows)
