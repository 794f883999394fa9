"""The page of a report on data of any kind: what it shows needs nothing but the figures."""

from kappaflow.report.conditioning import conditioning_figures, depth_charts, depth_section
from kappaflow.report.content import Report
from kappaflow.report.numbers import count, fixed, is_finite, with_error
from kappaflow.report.page import (
    Card,
    KeyFigure,
    Page,
    Section,
    Table,
    Text,
    findings_section,
    glossary_section,
    verdict_of,
)
from kappaflow.report.training import (
    about_section,
    curves_section,
    learning_curves,
    origin,
    settings_section,
)
from kappaflow.results import Part

TERMS = (
    "Flow",
    "Latent",
    "NLL, nat",
    "Held out",
    "Singular values",
    "Condition number",
    "Round trip",
    "Predicted error",
    "Quantile, band",
)


class GeneralCharts(Part):
    """Nothing that only the page of one kind of data draws."""


def general_page(report: Report[GeneralCharts], *, alone: bool) -> Page:  # noqa: ARG001
    """Returns the page of a report: findings, training, likelihood and conditioning."""
    result, test = report.result, report.result.test
    curves = learning_curves(report.curves, report.best_epoch)
    nll = KeyFigure(
        "Joint NLL with the padding" if result.is_joint else "Held-out NLL",
        with_error(test.nll, test.standard_error),
        "nats",
        f"mean over {count(test.rows, 'held-out example')}",
        is_finite(test.nll),
    )
    return Page(
        command="kappaflow report",
        title=report.about.title,
        verdict=verdict_of(result.ok, result.findings, result.verdict),
        key_figures=[nll, *conditioning_figures(report.profile)],
        intro=origin(report.about),
        without_script="The tables do not.",
        files="",
        sections=[
            findings_section([Card(finding) for finding in result.findings]),
            about_section(report.about, result.notes),
            curves_section(curves, report.curves, report.best_epoch, ""),
            _likelihood_section(report),
            depth_section(report.profile, f"held-out {result.kind}", depth_charts(report.profile)),
            glossary_section(TERMS),
            settings_section(report.about, result),
        ],
    )


def _likelihood_section(report: Report[GeneralCharts]) -> Section:
    test = report.result.test
    text = (
        f"The negative log-likelihood of {report.about.held_out(report.result.kind)}, in nats. ± "
        "is one standard error."
    )
    quantiles = [fixed(test.quantiles.get(key), 2) for key in ("median", "p95", "max")]
    rows = [[f"{test.rows:,}", with_error(test.nll, test.standard_error), *quantiles]]
    table = Table(("Count", "Mean", "Median", "95 % quantile", "Worst"), rows)
    return Section("likelihood", "Held-out likelihood", [Text(text), table], link="Likelihood")
