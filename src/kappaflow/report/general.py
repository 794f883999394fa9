"""What all pages of reports have in common, and the page of a kind of data that has no own."""

from collections.abc import Sequence
from typing import Any

from kappaflow.report.conditioning import conditioning_figures, depth_charts, depth_section
from kappaflow.report.content import Report
from kappaflow.report.numbers import count, fixed, is_finite, with_error
from kappaflow.report.page import (
    Card,
    KeyFigure,
    Page,
    Section,
    Text,
    TextTable,
    findings_section,
    glossary_section,
    verdict_of,
)
from kappaflow.report.result import Result
from kappaflow.report.training import (
    about_section,
    curves_section,
    learning_curves,
    origin,
    settings_section,
)
from kappaflow.results import Part

FILES = "report.json, next to this page, has all of its numbers."
NO_LIKELIHOOD = "the padding has no density: this is not a likelihood, so do not compare it"
TERMS = (
    "Flow",
    "Latent",
    "NLL, nat",
    "Held out",
    "Standardized",
    "Singular values",
    "Condition number",
    "Round trip",
    "Predicted error",
    "Quantile, band",
)


def report_page(
    report: Report[Any],
    *,
    alone: bool,
    figures: Sequence[KeyFigure],
    likelihood: Section,
    where: str,
    first: Sequence[Section] = (),
    last: Sequence[Section] = (),
    note: str = "",
    terms: Sequence[str] = (),
) -> Page:
    """Returns the page of a report, with the sections of its kind of data in their places.

    `where` says which examples the conditioning was measured at, `note` is on the learning curves.
    """
    result, profile = report.result, report.profile
    curves = learning_curves(report.curves, report.best_epoch)
    files = "" if alone else FILES
    findings = findings_section([Card(finding) for finding in result.findings])
    return Page(
        command="kappaflow report",
        title=report.about.title,
        verdict=verdict_of(result.level, result.findings, result.verdict),
        key_figures=figures,
        intro=origin(report.about),
        without_script=files or "The tables do not.",
        files=files,
        sections=[
            *([*first, findings] if result.ok else [findings, *first]),
            about_section(report.about, result.notes),
            curves_section(curves, report.curves, report.best_epoch, note),
            likelihood,
            depth_section(profile, where, depth_charts(profile)),
            *last,
            glossary_section((*TERMS, *terms)),
            settings_section(report.about, result),
        ],
    )


def nll_figure(result: Result, noun: str) -> KeyFigure:
    """Returns the mean NLL of held-out examples, each of which is a `noun`."""
    test = result.test
    mean = f"mean over {count(test.rows, f'held-out {noun}')}"
    return KeyFigure(
        "Joint NLL with the padding" if result.is_joint else "Held-out NLL",
        with_error(test.nll, test.standard_error),
        f"nats per {noun}",
        NO_LIKELIHOOD if result.is_joint else mean,
        is_finite(test.nll),
    )


def joint_note(result: Result, noun: str) -> str:
    """Returns a note on learning curves that show no likelihood; empty if they show one."""
    if not result.is_joint:
        return ""
    return (
        f"The NLL in these charts belongs to the joint density of {noun} and its padding. It is "
        f"not a likelihood of the {noun.split()[-1]}."
    )


class GeneralCharts(Part):
    """Nothing that only the page of one kind of data draws."""


def general_page(report: Report[GeneralCharts], *, alone: bool) -> Page:
    """Returns the page of a report: findings, training, likelihood and conditioning."""
    return report_page(
        report,
        alone=alone,
        figures=[nll_figure(report.result, "example"), *conditioning_figures(report.profile)],
        likelihood=_likelihood_section(report),
        where=f"held-out {report.result.kind}",
    )


def _likelihood_section(report: Report[GeneralCharts]) -> Section:
    test = report.result.test
    text = (
        f"The negative log-likelihood of {report.about.held_out(report.result.kind)}, in nats. ± "
        "is one standard error."
    )
    quantiles = [fixed(test.quantiles.get(key), 2) for key in ("median", "p95", "max")]
    rows = [[f"{test.rows:,}", with_error(test.nll, test.standard_error), *quantiles]]
    table = TextTable(("Count", "Mean", "Median", "95 % quantile", "Worst"), rows)
    return Section("likelihood", "Held-out likelihood", [Text(text), table], link="Likelihood")
