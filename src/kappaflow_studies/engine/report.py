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
    """Numbers that are better read than looked at.

    Attributes:
        title: A few words.
        columns: Their names; the first one names the rows.
        rows: Words for each column, numbers written out.
        caption: What they are.
    """

    title: str
    columns: list[str]
    rows: list[list[str]]
    caption: str = ""


class Findings(Part):
    """What is read from the raw results of an experiment.

    Attributes:
        found: What was found, a sentence or two each, with its numbers.
        differs: Where that, or the way there, differs from the source, a sentence or two each.
        charts: The most telling one first.
        tables: Behind the charts.
    """

    found: list[str]
    differs: list[str]
    charts: list[Chart]
    tables: list[Table] = []


class StudyReport(Part):
    """An experiment: what is claimed, what was done, what was found.

    Attributes:
        name: What it is called on the command line.
        title: A few words.
        claim: The claim of the source, in our own words.
        findings: What was found.
        preset: "minutes", "full", or the file of the settings.
        settings: Them, (label, value).
        seed: Of all of it.
        cases: How many were measured.
        time_s: Of all of them, each on one thread.
        versions: Of what measured: Python, torch, this library, the processor.
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
        frame: Raw results; rows whose y is missing have no part, those that are nan count as
            the largest.
        x: Column of the horizontal axis.
        y: Column of the vertical axis.
        name: Of the series.
        tone: Its colour.
        dash: How the line is drawn.
        spread: Levels of the band; None for none.

    Returns:
        The series, x ascending.

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
