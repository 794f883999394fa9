"""The page of an experiment, and the page of all of them: the source, claim by claim."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from kappaflow.report.charts import Chart, figures_of
from kappaflow.report.document import document
from kappaflow.report.figures import Figure
from kappaflow.report.numbers import time_in_words
from kappaflow_studies.engine.study_content import StudyReport

TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True)
class Claim:
    """One claim of the source on the page of all.

    Attributes:
        name: Of the experiment.
        title: A few words.
        text: The claim, in our own words.
        found: What was found.
        differs: Where that differs from the source.
        page: The experiment's own page, relative to that of all.
        chart: The most telling one, if it is a chart.
        figures: What is drawn of it.
    """

    name: str
    title: str
    text: str
    found: Sequence[str]
    differs: Sequence[str]
    page: str
    chart: Chart | None = None
    figures: Sequence[Figure] = field(default=())


def render_study(report: StudyReport) -> str:
    """Returns the page of an experiment.

    Args:
        report: What it came to.

    Returns:
        One HTML document that makes no request.
    """
    drawn = {chart.name: figures_of(chart) for chart in report.findings.charts}
    return document(
        TEMPLATES / "study.html.jinja", drawn, report=report, time_in_words=time_in_words
    )


def render_claims(claims: Sequence[Claim], *, preset: str, seed: int, time_s: float) -> str:
    """Returns the page of all experiments.

    Args:
        claims: In the order of the page.
        preset: Of all.
        seed: Of all.
        time_s: Of all.

    Returns:
        One HTML document that makes no request.
    """
    return document(
        TEMPLATES / "claims.html.jinja",
        {claim.name: claim.figures for claim in claims},
        claims=claims,
        preset=preset,
        seed=seed,
        time=time_in_words(time_s),
    )
