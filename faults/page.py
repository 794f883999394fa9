"""Writes the page of the documentation from the results of long runs."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from benchmarks.lines import read_lines
from benchmarks.processes import ROOT, console
from benchmarks.tables import markdown
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from faults.outcome import Outcome

RESULTS = Path(__file__).parent / "results" / "outcomes.jsonl"
HEAD = ("fault", "tried", "survived", "lost", "longest recovery [s]")


def write_page(*, file: Path = RESULTS, docs: Path = ROOT / "docs") -> None:
    """Write docs/reliability.md from the results of long runs.

    Parameters
    ----------
    file
        File of the results.
    docs
        Folder of the page.
    """
    path = docs / "reliability.md"
    path.write_text(page(file), encoding="utf-8")
    console.print(f"Wrote {path}", markup=False, soft_wrap=True)


def page(file: Path) -> str:
    """Returns the page as Markdown, which depends only on the results."""
    lines, machines = read_lines(file)
    newest = list({(line["part"], line["fault"]): line for line in lines}.values())
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # noqa: S701  Markdown from our own numbers
    )
    return environment.get_template("reliability.md.jinja").render(
        table=outcome_table([outcome_of(line) for line in newest]),
        dates=sorted({line["date"] for line in newest}),
        machines=list(dict.fromkeys(_in_words(machine) for machine in machines)),
    )


def outcome_of(line: dict[str, Any]) -> Outcome:
    """Returns the outcome in a line of the results."""
    return Outcome(**{key: line[key] for key in Outcome.__dataclass_fields__})


def outcome_table(outcomes: Iterable[Outcome]) -> str:
    """Returns a row for each kind of fault."""
    return markdown(
        HEAD,
        [
            [
                one.fault,
                f"{one.tried:,} {one.unit}",
                f"{one.survived:,}",
                f"{one.lost:,}",
                "" if one.recovery_s is None else f"{one.recovery_s:.1f}",
            ]
            for one in outcomes
        ],
    )


def _in_words(machine: dict[str, Any]) -> str:
    versions = ", ".join(f"{name} {number}" for name, number in machine["versions"].items())
    return f"{machine['processor']}, {machine['cores']} cores; {machine['system']}; {versions}"
