"""Writes the results of experiments into their pages: python docs/experiment_pages.py.

Each docs/experiments/NAME.md has a block between two markers, made from NAME/report.json and
NAME/figures, which `kappaflow reproduce NAME --preset full --out docs/experiments/NAME` writes.
The text around the block is written by hand. A large table becomes a CSV file that the page links.
"""

import csv
import io
import re
from pathlib import Path

from kappaflow.report.numbers import format_time
from kappaflow_studies.engine.report import StudyReport, Table

HERE = Path(__file__).parent / "experiments"
BEGIN = "<!-- results: made by docs/experiment_pages.py -->"
END = "<!-- end of the results -->"
LARGEST = 40  # cells of a table that a page shows


def pages() -> dict[Path, str]:
    """Returns what each page with results, and each CSV file of a large table, should hold."""
    found = {}
    for place in sorted(HERE.glob("*/report.json")):
        page = HERE / f"{place.parent.name}.md"
        before, rest = page.read_text("utf-8").split(BEGIN)
        after = rest.split(END)[1]
        report = StudyReport.model_validate_json(place.read_bytes())
        found[page] = f"{before}{BEGIN}\n\n{block(report)}\n{END}{after}"
        for table in report.findings.tables:
            if is_large(table):
                found[place.parent / csv_name(table)] = as_csv(table)
    return found


def is_large(table: Table) -> bool:
    """Returns whether a table is better read as a file than on a page."""
    return len(table.rows) * len(table.columns) > LARGEST


def csv_name(table: Table) -> str:
    """Returns the name of the CSV file of a table, made from its title."""
    return "-".join(re.findall(r"[a-z0-9]+", table.title.lower())) + ".csv"


def as_csv(table: Table) -> str:
    """Returns a table as CSV."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([table.columns, *table.rows])
    return text.getvalue()


def block(report: StudyReport) -> str:
    """Returns the results of a report, as Markdown."""
    findings = report.findings
    parts = ["**Results.**", *(f"- {sentence}" for sentence in findings.found)]
    lines = ["\n\n".join(parts[:1]) + "\n", "\n".join(parts[1:]), ""]
    shown = set()  # a caption that several charts or tables share appears once
    for chart in findings.charts:
        lines += [f"![{chart.title}]({report.name}/figures/{chart.name}.svg)", ""]
        lines += [f"*{chart.title}.* {_once(chart.caption, shown)}".rstrip(), ""]
    for table in findings.tables:
        if not is_large(table):
            lines += [f"**{table.title}.** {_once(table.caption, shown)}".rstrip(), ""]
            lines += [markdown(table), ""]
    large = [table for table in findings.tables if is_large(table)]
    if large:
        lines += ["**Tables as CSV.**", ""]
        lines += [
            f"- [{table.title}]({report.name}/{csv_name(table)}), {len(table.rows)} rows. "
            f"{_once(table.caption, shown)}".rstrip()
            for table in large
        ]
        lines += [""]
    if findings.differs:
        lines += ["**Differences from the source.**", ""]
        lines += [f"{sentence}\n" for sentence in findings.differs]
    lines += [
        f"Made by `kappaflow reproduce {report.name} {_options(report)}`: {report.cases:,} cases, "
        f"{format_time(report.time_s)} on one thread, seed {report.seed}. Settings and versions "
        f"are in [report.json]({report.name}/report.json), all measurements in "
        f"[results.parquet]({report.name}/results.parquet).",
        "",
    ]
    return "\n".join(lines)


def _once(caption: str, shown: set[str]) -> str:
    """Returns a caption the first time, and an empty text after that."""
    if caption in shown:
        return ""
    shown.add(caption)
    return caption


def _options(report: StudyReport) -> str:
    """Returns the option that names the settings: a preset, or a file next to the results."""
    if report.preset in ("minutes", "full"):
        return f"--preset {report.preset}"
    return f"--config docs/experiments/{report.name}/{report.preset}"


def markdown(table: Table) -> str:
    """Returns a table as Markdown, its first column to the left."""
    rules = ["---", *["---:"] * (len(table.columns) - 1)]
    rows = [table.columns, rules, *table.rows]
    return "\n".join(
        "| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows
    )


if __name__ == "__main__":
    for path, text in pages().items():
        path.write_text(text, "utf-8")
        print(f"Wrote {path}")
