"""Writes what experiments found into their pages: python docs/experiment_pages.py.

Each docs/experiments/NAME.md has a block between two markers, made of NAME/report.json and
NAME/figures, which `kappaflow reproduce NAME --preset full --out docs/experiments/NAME` writes;
the words around it are written by hand.
"""

from pathlib import Path

from kappaflow.report.numbers import time_in_words
from kappaflow_studies.engine.report import StudyReport, Table

HERE = Path(__file__).parent / "experiments"
BEGIN = "<!-- what was found: made by docs/experiment_pages.py -->"
END = "<!-- until here -->"


def pages() -> dict[Path, str]:
    """Returns the text of each page of which there are results, as it should be."""
    found = {}
    for place in sorted(HERE.glob("*/report.json")):
        page = HERE / f"{place.parent.name}.md"
        before, rest = page.read_text("utf-8").split(BEGIN)
        after = rest.split(END)[1]
        report = StudyReport.model_validate_json(place.read_bytes())
        found[page] = f"{before}{BEGIN}\n\n{block(report)}\n{END}{after}"
    return found


def block(report: StudyReport) -> str:
    """Returns what a report says, as Markdown."""
    findings = report.findings
    parts = ["**What was found.**", *(f"- {sentence}" for sentence in findings.found)]
    lines = ["\n\n".join(parts[:1]) + "\n", "\n".join(parts[1:]), ""]
    for chart in findings.charts:
        lines += [f"![{chart.title}]({report.name}/figures/{chart.name}.svg)", ""]
        lines += [f"*{chart.title}.* {chart.caption}", ""]
    for table in findings.tables:
        lines += [f"**{table.title}.** {table.caption}", "", markdown(table), ""]
    if findings.differs:
        lines += ["**What differs from the source.**", ""]
        lines += [f"{sentence}\n" for sentence in findings.differs]
    settings = "; ".join(f"{label} {value}" for label, value in report.settings)
    versions = "; ".join(value for _, value in report.versions)
    command = f"kappaflow reproduce {report.name} {_asked(report)}"
    lines += [
        f"Made by `{command}`: {report.cases:,} cases, {time_in_words(report.time_s)} of one "
        f"thread in all, seed {report.seed}. Settings: {settings}. {versions}. The raw results "
        f"are in `docs/experiments/{report.name}/results.parquet`.",
        "",
    ]
    return "\n".join(lines)


def _asked(report: StudyReport) -> str:
    """Returns the option that names the settings: a preset, or a file beside the results."""
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
