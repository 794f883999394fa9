"""The report of a study as plain numbers and as a page, and the page of all studies."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import polars as pl

from kappaflow.report import page
from kappaflow.report.charts import Chart, Series
from kappaflow.report.content import Part
from kappaflow.report.numbers import format_time


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
    """The conclusions from the raw results of a study.

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
    """The report of a study: the claim, the settings and the results.

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
        tone: Number of its color.
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
    low, high = (_floats(found[end]) if spread else None for end in ("low", "high"))
    across, up = _floats(found[x]), _floats(found["y"])
    return Series(name=name, x=across, y=up, low=low, high=high, tone=tone, dash=dash)


def _floats(values: Iterable[float]) -> list[float | None]:
    return [float(value) for value in values]


FILES = "figures/, next to this page, has the charts as SVG and PNG."
SOURCE = (
    "F. Koehler, V. Mehta, A. Risteski, Representational aspects of depth and conditioning in "
    "normalizing flows, ICML 2021: each claim in our own words, what was measured, what was "
    "found, and what differs. The settings differ from those of the paper, so no chart here "
    "should match one of its figures."
)


@dataclass(frozen=True)
class Claim:
    """One claim of the source on the page of all studies.

    Attributes:
        name: Name of the study.
        title: A few words.
        text: The claim, in our own words.
        found: The results, in sentences.
        differs: Differences from the source, in sentences.
        page: Path of the page of the study, relative to the page of all studies.
        charts: The most informative charts.
    """

    name: str
    title: str
    text: str
    found: Sequence[str]
    differs: Sequence[str]
    page: str
    charts: Sequence[Chart] = ()


def render_study(report: StudyReport) -> str:
    """Returns the page of a study.

    Args:
        report: The content of the page.

    Returns:
        One HTML document that makes no request.
    """
    findings = report.findings
    sections = [
        page.Section("charts", "Charts", [page.Panels(chart) for chart in findings.charts])
    ]
    if findings.tables:
        tables: list[page.Block] = []
        for table in findings.tables:
            tables += [page.Heading(table.title), page.Table(table.columns, table.rows)]
            tables += [page.Text(table.caption, "quiet")] if table.caption else []
        sections.append(page.Section("tables", "Tables", tables))
    if findings.differs:
        differs = [page.Text(text) for text in findings.differs]
        sections.append(page.Section("differs", "Differences from the source", differs))
    return page.render_page(
        page.Page(
            command=f"kappaflow reproduce {report.name}",
            title=report.title,
            verdict=page.Verdict("note", "Results", findings.found),
            intro=[page.Text(report.claim, lead="The claim.")],
            without_script=f"{FILES} results.parquet has the numbers.",
            files=FILES,
            sections=[*sections, _settings_section(report)],
            has_links=False,
        )
    )


def _settings_section(report: StudyReport) -> page.Section:
    text = (
        f"{report.cases:,} cases took {format_time(report.time_s)} of one thread in total, "
        f"with preset “{report.preset}” and seed {report.seed}. results.parquet, next to this "
        "page, has the raw results, one row for each measurement with all of its settings. To "
        "run the study with other settings, edit config.json and pass it to the same command "
        "with --config."
    )
    rows = [list(pair) for pair in report.settings + report.versions]
    return page.Section(
        "settings", "Settings", [page.Text(text), page.Table(("Setting", "Value"), rows)]
    )


def render_claims(claims: Sequence[Claim], *, preset: str, seed: int, time_s: float) -> str:
    """Returns the page of all studies.

    Args:
        claims: The claims, in the order of the page.
        preset: Preset of all studies.
        seed: Seed of all studies.
        time_s: Total time of all studies in seconds.

    Returns:
        One HTML document that makes no request.
    """
    about = f"{SOURCE} Preset “{preset}”, seed {seed}, {format_time(time_s)}."
    return page.render_page(
        page.Page(
            command="kappaflow reproduce all",
            title="The source, claim by claim",
            intro=[page.Text(about)],
            without_script="The folders of the studies have them as SVG and PNG.",
            files="Its links lead to the folders next to it.",
            sections=[_claim_section(claim) for claim in claims],
        )
    )


def _claim_section(claim: Claim) -> page.Section:
    return page.Section(
        claim.name,
        claim.title,
        [
            page.Text(claim.text, lead="The claim."),
            page.Verdict("note", "Results", claim.found),
            *(page.Panels(chart) for chart in claim.charts),
            *(page.Text(text, "small") for text in claim.differs),
            page.Text(page.Link(f"The whole study {claim.name}", claim.page), "small"),
        ],
    )
