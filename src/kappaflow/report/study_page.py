"""The page of an experiment, and the page of all of them: the source, claim by claim."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from kappaflow.report.charts import Chart, figures_of
from kappaflow.report.document import document
from kappaflow.report.figures import Figure
from kappaflow.report.study_content import StudyReport


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
    return document("study.html.jinja", drawn, report=report, time_in_words=time_in_words)


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
        "claims.html.jinja",
        {claim.name: claim.figures for claim in claims},
        claims=claims,
        preset=preset,
        seed=seed,
        time=time_in_words(time_s),
    )


def time_in_words(time_s: float) -> str:
    """Returns a duration.

    Example:
        >>> time_in_words(8.2), time_in_words(400.0), time_in_words(9000.0)
        ('8 seconds', '7 minutes', '2.5 hours')
    """
    if time_s < 100:
        return f"{time_s:.0f} seconds"
    if time_s < 6000:
        return f"{time_s / 60:.0f} minutes"
    return f"{time_s / 3600:.1f} hours"
