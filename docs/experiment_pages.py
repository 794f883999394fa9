"""Writes the results of experiments into their pages: python docs/experiment_pages.py.

`kappaflow reproduce NAME --preset full --out docs/experiments/NAME` writes the folder NAME. From
its settings and measurements (config.json, results.parquet) this script writes the findings
(report.json, figures, tables as CSV), and the block between two markers of NAME.md. The text
around the block is written by hand.
"""

import csv
import io
import re
from collections.abc import Iterable
from pathlib import Path

import polars as pl

from kappaflow.report.charts.matplotlib import write_stills
from kappaflow.report.numbers import format_time
from kappaflow_studies.catalog import STUDIES
from kappaflow_studies.engine.presets import settings_of
from kappaflow_studies.engine.report import StudyReport, StudyTable

HERE = Path(__file__).parent / "experiments"
BEGIN = "<!-- results: made by docs/experiment_pages.py -->"
END = "<!-- end of the results -->"


def reports() -> dict[Path, StudyReport]:
    """Returns the report of each folder, with the findings of its measurements."""
    result = {}
    for study in STUDIES.values():
        folder = HERE / study.name
        report = StudyReport.model_validate_json((folder / "report.json").read_bytes())
        settings = settings_of(study, "full", folder / "config.json")
        findings = study.findings(pl.read_parquet(folder / "results.parquet"), settings)
        about = {"title": study.title, "claim": study.claim, "findings": findings}
        result[folder] = report.model_copy(update=about)
    return result


def pages(reports: dict[Path, StudyReport]) -> dict[Path, str]:
    """Returns the text of each report.json, of each page with results, and of each CSV file."""
    texts = {}
    for folder, report in reports.items():
        page = HERE / f"{folder.name}.md"
        before, rest = page.read_text("utf-8").split(BEGIN)
        texts[page] = f"{before}{BEGIN}\n\n{block(report)}\n{END}{rest.split(END)[1]}"
        texts[folder / "report.json"] = report.model_dump_json() + "\n"
        for table in report.findings.tables:
            texts[folder / csv_name(table)] = as_csv(table)
    return texts


def csv_name(table: StudyTable) -> str:
    """Returns the name of the CSV file of a table, made from its title."""
    return "-".join(re.findall(r"[a-z0-9]+", table.title.lower())) + ".csv"


def as_csv(table: StudyTable) -> str:
    """Returns a table as CSV."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([table.columns, *table.rows])
    return text.getvalue()


def block(report: StudyReport) -> str:
    """Returns the results of a report, as Markdown: verdict, claim, one figure, numbers."""
    findings, name = report.findings, report.name
    verdict, *numbers = findings.found
    chart, *more = findings.charts
    names = [chart.name for chart in more]
    figures = _links((stem.replace("-", " "), f"{name}/figures/{stem}.svg") for stem in names)
    tables = _links((table.title, f"{name}/{csv_name(table)}") for table in findings.tables)
    parts = [
        f"**Verdict.** {verdict}",
        f"**The source claims:** {report.claim}",
        f"![{chart.title}]({name}/figures/{chart.name}.svg)",
        f"*{chart.title}.* {chart.caption}",
        "\n".join(f"- {sentence}" for sentence in numbers),
        *([f"**More figures:** {figures}."] if more else []),
        f"**Tables:** {tables}.",
        f"**Differences from the source.** {' '.join(findings.differs)}",
        f"Made by `kappaflow reproduce {name} {_options(report)}`: {report.cases:,} cases, "
        f"{format_time(report.time_s)} on one thread ([settings]({name}/report.json), "
        f"[measurements]({name}/results.parquet)).\n",
    ]
    return "\n\n".join(parts)


def _links(named: Iterable[tuple[str, str]]) -> str:
    return ", ".join(f"[{title}]({target})" for title, target in named)


def _options(report: StudyReport) -> str:
    """Returns the option that names the settings: a preset, or a file next to the results."""
    if report.preset in ("minutes", "full"):
        return f"--preset {report.preset}"
    return f"--config docs/experiments/{report.name}/{report.preset}"


if __name__ == "__main__":
    all_reports = reports()
    for path, text in pages(all_reports).items():
        path.write_text(text, "utf-8")
        print(f"Wrote {path}")
    for folder, report in all_reports.items():
        for chart in report.findings.charts:
            write_stills(chart, folder / "figures")
