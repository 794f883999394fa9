"""The page of a report on a table."""

import math
from collections.abc import Sequence

from kappaflow.goodness import Goodness
from kappaflow.report.conditioning import conditioning_figures, gains_section
from kappaflow.report.content import Latent, Report, TableCharts, WorstRows
from kappaflow.report.general import NO_LIKELIHOOD, joint_note, report_page
from kappaflow.report.goodness import goodness_section
from kappaflow.report.numbers import count, fixed, is_finite, plain_text, significant, with_error
from kappaflow.report.page import Block, Charts, Heading, KeyFigure, Page, Section, Text, TextTable
from kappaflow.report.result import AddedPadding, MixedLikelihood, Result
from kappaflow.report.table_charts import latent_charts, separation_chart

TableReport = Report[TableCharts]


def table_page(report: TableReport, *, alone: bool) -> Page:
    """Returns the page of a report on a table; values that are not finite are named as such."""
    result = report.result
    padding = ", with their padding" if result.padding else ""
    return report_page(
        report,
        alone=alone,
        figures=key_figures(report),
        likelihood=_likelihood_section(report),
        where=f"held-out rows, from the standardized columns on{padding}",
        first=[_samples_section(report.charts)],
        last=[*gains_section(report.charts.gains), _latent_section(report.charts.latent)],
        note=_curves_note(result),
        terms=("AUC",) if result.separations else (),
    )


def key_figures(report: TableReport) -> list[KeyFigure]:
    """Returns four to seven numbers: likelihood, conditioning, round trips, separation."""
    return [
        *_likelihood_figures(report.result),
        *conditioning_figures(report.profile, report.result),
        *_separation_figures(report.result),
    ]


def _likelihood_figures(result: Result) -> list[KeyFigure]:
    test = result.test
    name = "Held-out NLL" if result.padding is None else "Bound on the held-out NLL"
    name += f" of the numbers{_given(result.mixed)}" if result.mixed else ""
    note = f"{fixed(gaussian_of(result), 2)} for a Gaussian; lower is better"
    if result.is_joint:
        name, note = "Joint NLL with the padding", NO_LIKELIHOOD
    return [
        *_mixed_figures(result.mixed),
        KeyFigure(
            f"{name}, standardized",
            with_error(test.nll_standardized, test.standard_error),
            "nats per row",
            note,
            is_finite(test.nll_standardized),
        ),
        *_weighted_figures(result.padding),
        KeyFigure(
            f"{name}, input units",
            with_error(test.nll, test.standard_error),
            "nats per row",
            f"{count(test.rows, 'row')} of “{test.name}”",
            is_finite(test.nll),
        ),
    ]


def gaussian_of(result: Result) -> float:
    """Returns the standardized NLL of the Gaussian that the flow is compared with, or nan."""
    gaussians = (entry for entry in result.references if entry.kind == "Gaussian")
    return next((gaussian.nll_standardized for gaussian in gaussians), math.nan)


def _weighted_figures(padding: AddedPadding | None) -> list[KeyFigure]:
    """Returns the importance-weighted likelihood; empty if there is none."""
    if padding is None or padding.weighted is None:
        return []
    result = padding.weighted
    error = significant(result.monte_carlo_error, 2)
    return [
        KeyFigure(
            "Held-out NLL, importance-weighted",
            with_error(result.nll_standardized, result.standard_error),
            "nats per row",
            f"standardized; {result.draws} samples per row, Monte Carlo error {error}",
            is_finite(result.nll_standardized),
        )
    ]


def _mixed_figures(mixed: MixedLikelihood | None) -> list[KeyFigure]:
    """Returns the likelihood of all columns; empty for a table of numbers alone."""
    if mixed is None:
        return []
    p = mixed.labels_p_value
    parts = [f"Monte Carlo error {significant(mixed.monte_carlo_error, 2)}"]
    if mixed.has_labels:
        parts.insert(0, f"labels {fixed(mixed.labels_nll, 2)}, numbers given them the rest")
    if p is not None:
        parts.append(f"sampled labels against those of held-out rows: p = {significant(p, 2)}")
    return [
        KeyFigure(
            f"Held-out NLL of all columns{' given the context' if mixed.given else ''}",
            with_error(mixed.nll, mixed.standard_error),
            "nats per row",
            "; ".join(parts),
            is_finite(mixed.nll),
        )
    ]


def _given(mixed: MixedLikelihood) -> str:
    """Returns a clause on what the numbers of a table of mixed columns are given."""
    what = ["context"] * bool(mixed.given) + ["labels"] * mixed.has_labels
    return f" given the {' and '.join(what)}" if what else ""


def _separation_figures(result: Result) -> list[KeyFigure]:
    if not result.separations:
        return []
    first = result.separations[0]
    return [
        KeyFigure(
            "Separation (AUC)",
            f"{fixed(first.auc, 3)} ± {fixed(first.auc_standard_error, 3)}",
            "",
            f"{first.name}; 0.5 is a coin toss, 1 is perfect",
            is_finite(first.auc),
        )
    ]


def _curves_note(result: Result) -> str:
    if result.padding and not result.is_joint:
        return "The NLL in these charts is a bound, with one sample of the padding per row."
    return joint_note(result, "a row")


def _likelihood_section(report: TableReport) -> Section:
    result, charts = report.result, report.charts
    blocks: list[Block] = [
        *map(Text, _likelihood_texts(report)),
        _likelihood_table(result),
        Text(
            "Median, quantiles and worst row are on standardized columns. ± is one standard "
            "error.",
            style="quiet",
        ),
    ]
    if charts.worst_rows and charts.worst_rows.rows:
        blocks += _worst_rows(charts.worst_rows, is_joint=result.is_joint)
    if result.separations:
        parts = zip(result.separations, charts.scores, strict=True)
        blocks.append(Charts([separation_chart(*each, i) for i, each in enumerate(parts)]))
    return Section("likelihood", "Held-out likelihood", blocks, link="Likelihood")


def _likelihood_texts(report: TableReport) -> list[str]:
    padding = report.result.padding
    if padding is not None and report.result.is_joint:
        return [
            f"This flow has no likelihood: {_padding_text(padding)} Such padding has no density. "
            "The NLL on this page is minus the logarithm of the joint density of a row and its "
            "padding. A flow can lower it without bound by squeezing the padding, so do not "
            "compare it with any other number. Judge this flow by its samples and its "
            "conditioning."
        ]
    compared = [
        f"Compared row by row with {density.name}, the flow is "
        f"{fixed(abs(density.difference), 2)} ± {fixed(density.standard_error, 2)} nats per row "
        f"{'better' if density.difference < 0 else 'worse'} ({count(density.rows, 'row')})."
        for density in report.result.references
    ]
    rows = report.about.held_out("rows")
    first = f"The negative log-likelihood (NLL) of {rows}, in nats per row. Lower is better."
    texts = [" ".join([first, *compared])]
    if padding is not None:
        texts.append(
            f"{_padding_text(padding)} The NLL in the table is therefore the mean of an upper "
            "bound, with one sample of the padding per row."
        )
    if padding is not None and padding.weighted is not None:
        weighted = padding.weighted
        texts.append(
            f"Importance weights of {weighted.draws} samples of the padding are closer: the NLL "
            f"is {with_error(weighted.nll, weighted.standard_error)} in input units. The samples "
            f"add a Monte Carlo error of {significant(weighted.monte_carlo_error, 2)}."
        )
    return texts


def _padding_text(padding: AddedPadding) -> str:
    features = count(padding.features, "feature")
    were = "was" if padding.features == 1 else "were"
    return f"{features}, {padding.description}, {were} added to each row."


def _likelihood_table(result: Result) -> TextTable:
    rows: list[list[str | None]] = []
    for part in (result.test, *result.parts):
        quantiles = [fixed(part.quantiles.get(key), 2) for key in ("median", "p95", "p99", "max")]
        rows.append([
            part.name,
            f"{part.rows:,}",
            with_error(part.nll_standardized, part.standard_error),
            with_error(part.nll, part.standard_error),
            *quantiles,
        ])
    for name, number, standardized, nll in _references(result):
        means = [fixed(standardized, 2), fixed(nll, 2)]
        rows.append([name, f"{number:,}", *means, *[None] * 4])
    columns = (
        "Rows", "Count", "Mean, standardized", "Mean, input units", "Median", "95 % quantile",
        "99 % quantile", "Worst row",
    )  # fmt: skip
    return TextTable(columns, rows)


def _references(result: Result) -> list[tuple[str, int, float, float]]:
    """Returns name, number of rows, and both NLLs of each density that is compared."""
    where = f", on “{result.test.name}”" if result.parts else ""
    shown = [d for d in result.references if d.components > 1 or d.kind == "Gaussian"]
    return [
        (f"for comparison: {d.name}{where}", d.rows, d.nll_standardized, d.nll)
        for d in shown
        if not result.is_joint
    ]


def _worst_rows(rows: WorstRows, *, is_joint: bool) -> list[Block]:
    joint = " of a row and its padding" if is_joint else ""
    note = (
        f"log_prob{joint} is in nats, in input units. Line 1 of a file is its header; rows are "
        "counted from 1."
    )
    if rows.left_out:
        verb = "is" if rows.left_out == 1 else "are"
        note += f" {count(rows.left_out, 'more column')} {verb} not shown."
    if any(row.unusual for row in rows.rows):
        note += (
            " The most unusual value of a row is the one farthest from the mean of the training "
            "rows, in standard deviations (sd)."
        )
    cells = [
        [
            row.name,
            fixed(row.log_prob, 2),
            row.unusual and _unusual(*row.unusual),
            *map(_value, row.values),
        ]
        for row in rows.rows
    ]
    return [
        Heading("Test rows with the lowest density", id="worst-rows"),
        TextTable(["Row", "log_prob", "Most unusual value", *rows.columns], cells, scrolls=True),
        Text(note, style="quiet"),
    ]


def _unusual(column: str, value: float, deviations: float) -> str:
    return f"{column} = {_value(value)}, {significant(deviations, 2)} sd"


def _value(value: float) -> str:
    """Returns a value of the data with six significant digits, whole numbers without a point."""
    is_plain = is_finite(value) and (value == 0 or 1e-4 <= abs(value) < 1e9)
    return plain_text(float(f"{value:.6g}")) if is_plain else significant(value, 6)


def _samples_section(charts: TableCharts) -> Section:
    if charts.two_sample is None:
        text = Text("Samples were not compared with held-out rows.")
        return Section("samples", "Samples against held-out rows", [text], link="Samples")
    goodness = Goodness(charts.two_sample, charts.calibration)
    return goodness_section(goodness, charts.corner, charts.given)


def _latent_section(latent: Latent) -> Section:
    share = significant(latent.beyond_four, 2)
    base = latent.base
    what = "a standard normal distribution" if base == "N(0, 1)" else f"its base, a {base}"
    text = (
        f"The flow should turn held-out rows into samples of {what}. The share of their "
        f"coordinates beyond 4 standard deviations is {share}; for the base it is "
        f"{significant(latent.base_beyond_four, 2)}."
    )
    charts = latent_charts(latent)
    blocks: Sequence[Block] = [Text(text), Charts(charts)] if charts else [Text(text)]
    return Section("latent-section", "Latent", blocks)
