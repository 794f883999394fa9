"""The report of a study as plain numbers and as a page, and the page of all studies."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import Field

from kappaflow.report import page
from kappaflow.report.charts import Chart
from kappaflow.report.numbers import format_time
from kappaflow.results import Part


class StudyTable(Part):
    """A table of numbers as text; the first column names the rows."""

    title: str
    columns: list[str]
    rows: list[list[str]]
    caption: str = ""


class StudyFindings(Part):
    """The conclusions from the raw results of a study."""

    found: list[str]  # sentences with numbers; the first one is the verdict on the claim
    differs: list[str]  # where the result or the method differs from the source
    charts: list[Chart] = Field(default=[], exclude=True)  # the most informative one first
    tables: list[StudyTable] = []


class StudyReport(Part):
    """The report of a study: the claim, the settings and the results."""

    name: str
    title: str
    claim: str
    findings: StudyFindings
    preset: str  # or the name of the file of settings
    settings: list[tuple[str, str]]  # (label, value)
    seed: int
    cases: int
    time_s: float  # total time of all cases, each on one thread
    versions: list[tuple[str, str]]  # of Python and of the libraries


@dataclass(frozen=True)
class Reproduced:
    """The result of a study."""

    report: StudyReport  #: the numbers, sentences, charts and tables
    page: Path  #: path of the HTML page


FILES = "figures/, next to this page, has the charts as SVG and PNG."
SOURCE = (
    "F. Koehler, V. Mehta, A. Risteski, Representational aspects of depth and conditioning in "
    "normalizing flows, ICML 2021: each claim in our own words, and what we measured. The "
    "settings are ours, so no chart here should match a figure of the paper."
)


def render_study(report: StudyReport) -> str:
    """Returns the page of a study: one HTML document that makes no request."""
    text = (
        f"{report.cases:,} cases took {format_time(report.time_s)} of one thread in total, with "
        f"preset “{report.preset}” and seed {report.seed}. results.parquet, next to this page, "
        "has one row for each measurement with all of its settings. To run the study with other "
        "settings, edit config.json and pass it to the same command with --config."
    )
    return render_findings(
        report.findings,
        command=f"kappaflow reproduce {report.name}",
        title=report.title,
        intro=[page.Text(report.claim, lead="The claim.")],
        numbers="results.parquet",
        settings=(text, report.settings + report.versions),
    )


def render_findings(
    findings: StudyFindings,
    *,
    command: str,
    title: str,
    intro: Sequence[page.Text],
    numbers: str,
    settings: tuple[str, Sequence[tuple[str, str]]],
    sections: Sequence[page.Section] = (),
) -> str:
    """Returns a page of findings: sentences, charts, tables, further sections, the settings."""
    tables: list[page.Block] = []
    for table in findings.tables:
        tables += [page.Heading(table.title), page.TextTable(table.columns, table.rows)]
        tables += [page.Text(table.caption, "quiet")] if table.caption else []
    differs = [page.Text(text) for text in findings.differs]
    text, rows = settings
    described = [
        page.Text(text),
        page.TextTable(("Setting", "Value"), [list(row) for row in rows]),
    ]
    parts = [
        page.Section("charts", "Charts", [page.Charts([chart]) for chart in findings.charts]),
        page.Section("tables", "Tables", tables),
        *sections,
        page.Section("differs", "Differences from the source", differs),
        page.Section("settings", "Settings", described),
    ]
    return page.render_page(
        page.Page(
            command=command,
            title=title,
            verdict=page.ResultBox("note", "Results", findings.found),
            intro=intro,
            without_script=f"{FILES} {numbers} has the numbers.",
            files=FILES,
            sections=[part for part in parts if part.blocks],
            has_links=False,
        )
    )


def render_claims(results: Mapping[str, Reproduced], folder: Path, *, about: str) -> str:
    """Returns the page of all studies: one HTML document that makes no request."""
    return page.render_page(
        page.Page(
            command="kappaflow reproduce all",
            title="The source, claim by claim",
            intro=[page.Text(f"{SOURCE} {about}")],
            without_script="The folders of the studies have them as SVG and PNG.",
            files="Its links lead to the folders next to it.",
            sections=[_claim(result, folder) for result in results.values()],
        )
    )


def _claim(result: Reproduced, folder: Path) -> page.Section:
    report, target = result.report, result.page.relative_to(folder).as_posix()
    blocks = [
        page.Text(report.claim, lead="The claim."),
        page.ResultBox("note", "Results", report.findings.found),
        *(page.Charts([chart]) for chart in report.findings.charts[:1]),
        *(page.Text(text, "small") for text in report.findings.differs),
        page.Text(page.Link(f"The whole study {report.name}", target), "small"),
    ]
    return page.Section(report.name, report.title, blocks)
