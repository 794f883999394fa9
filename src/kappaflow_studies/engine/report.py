"""What a study found, as plain numbers and as one page; and the page of all studies."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import polars as pl

from kappaflow.report.charts import Chart, Series, figures_of
from kappaflow.report.content import Part
from kappaflow.report.document import document
from kappaflow.report.figures import Figure
from kappaflow.report.numbers import time_in_words


class Table(Part):
    """A table of numbers.

    Attributes:
        title: A short title.
        columns: Names of the columns; the first column names the rows.
        rows: For each row the text of each column.
        caption: An explanation.
    """

    title: str
    columns: list[str]
    rows: list[list[str]]
    caption: str = ""


class Findings(Part):
    """What the raw results of a study say.

    Attributes:
        found: What was found, in sentences with numbers.
        differs: Where the result or the method differs from the source, in sentences.
        charts: The charts, the most informative one first.
        tables: The tables.
    """

    found: list[str]
    differs: list[str]
    charts: list[Chart]
    tables: list[Table] = []


class StudyReport(Part):
    """The report of a study: what is claimed, what was done, what was found.

    Attributes:
        name: Its name on the command line.
        title: A short title.
        claim: The claim of the source paper, paraphrased.
        findings: What was found.
        preset: "minutes", "full", or the name of the file of settings.
        settings: The settings as (label, value).
        seed: The random seed.
        cases: Number of cases.
        time_s: Total time of all cases, each on one thread.
        versions: Versions of Python and of the libraries.
    """

    name: str
    title: str
    claim: str
    findings: Findings
    preset: str
    settings: list[tuple[str, str]]
    seed: int
    cases: int
    time_s: float
    versions: list[tuple[str, str]]


def quantile_series(
    frame: pl.DataFrame,
    x: str,
    y: str,
    *,
    name: str,
    tone: int,
    dash: Literal["solid", "dash", "dot", "none"] = "solid",
    spread: tuple[float, float] | None = (0.25, 0.75),
) -> Series:
    """Returns the median of a column at each value of another, with two quantiles as a band.

    Args:
        frame: Raw results; rows without y are left out, and nan counts as the largest value.
        x: Column of the horizontal axis.
        y: Column of the vertical axis.
        name: Name of the series.
        tone: Number of its colour.
        dash: Style of the line.
        spread: Quantiles of the band; None for no band.

    Returns:
        The series, sorted by x.

    Example:
        >>> raw = pl.DataFrame({"depth": [1, 1, 1, 2], "loss": [3.0, 1.0, 2.0, 5.0]})
        >>> line = quantile_series(raw, "depth", "loss", name="Adam", tone=0)
        >>> line.x, line.y, line.low
        ([1.0, 2.0], [2.0, 5.0], [1.5, 5.0])
    """
    value = pl.col(y).fill_nan(float("inf"))
    levels = {"y": 0.5} | ({"low": spread[0], "high": spread[1]} if spread else {})
    found = (
        frame.drop_nulls(y)
        .group_by(x)
        .agg(*(value.quantile(level, "linear").alias(end) for end, level in levels.items()))
        .sort(x)
    )
    columns = {end: _floats(found[end]) for end in levels}
    return Series(name=name, x=_floats(found[x]), tone=tone, dash=dash, **columns)


def _floats(values: Iterable[float]) -> list[float | None]:
    return [float(value) for value in values]


TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True)
class Claim:
    """One claim of the source, on the page of all studies.

    Attributes:
        name: Name of the study.
        title: A short title.
        text: The claim, paraphrased.
        found: What was found, in sentences.
        differs: Where the result differs from the source, in sentences.
        page: Path of the page of the study, relative to the page of all studies.
        chart: The most informative chart, if there is one.
        figures: The figures of that chart.
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
    """Renders the page of a study.

    Args:
        report: Its report.

    Returns:
        One HTML document that makes no network request.
    """
    drawn = {chart.name: figures_of(chart) for chart in report.findings.charts}
    return document(
        TEMPLATES / "study.html.jinja", drawn, report=report, time_in_words=time_in_words
    )


def render_claims(claims: Sequence[Claim], *, preset: str, seed: int, time_s: float) -> str:
    """Renders the page of all studies.

    Args:
        claims: The claims, in the order of the page.
        preset: The preset of all studies.
        seed: The random seed of all studies.
        time_s: Total time.

    Returns:
        One HTML document that makes no network request.
    """
    return document(
        TEMPLATES / "claims.html.jinja",
        {claim.name: claim.figures for claim in claims},
        claims=claims,
        preset=preset,
        seed=seed,
        time=time_in_words(time_s),
    )
