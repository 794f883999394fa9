"""The folder of a study: its checks, its settings as text, and the files of its results."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from kappaflow.errors import ArgumentError
from kappaflow.report.charts import Chart
from kappaflow.report.charts.matplotlib import NO_STILLS, write_stills
from kappaflow.report.content import Part
from kappaflow.storage import make_directory, write_bytes

NUMBERS, PAGE, FIGURES = "report.json", "index.html", "figures"


def checked_folder(out: str | Path) -> Path:
    """Returns the path of a folder, which may be new."""
    folder = Path(out)
    if folder.exists() and not folder.is_dir():
        raise ArgumentError(f"'out' should be a folder, {folder} is a file.")
    return folder


def as_text(value: Any) -> str:
    """Returns a setting as text."""
    if isinstance(value, list | tuple):
        return ", ".join(map(as_text, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def write_results(
    folder: Path,
    report: Part,
    page: str,
    charts: Sequence[Chart],
    say: Callable[[str], None],
    *,
    indent: int | None = None,
) -> Path:
    """Returns the path of the page, after writing the numbers, the page and the charts."""
    figures = make_directory(folder / FIGURES)
    files = [path for chart in charts for path in write_stills(chart, figures)]
    if charts and not files:
        say(NO_STILLS)
    write_bytes(folder / NUMBERS, (report.model_dump_json(indent=indent) + "\n").encode())
    write_bytes(folder / PAGE, page.encode())
    return folder / PAGE
