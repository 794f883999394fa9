"""Reports on disk: report.json has the numbers, report.html is the page made from them."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from kappaflow.data.dataset import kinds, runs_of
from kappaflow.errors import ArgumentError, FileError
from kappaflow.reading import parse_json, read_small
from kappaflow.report.content import Report, TableCharts
from kappaflow.report.page import KeyFigure, Page, render_page
from kappaflow.report.result import TABLE
from kappaflow.report.tables import table_page
from kappaflow.results import Part
from kappaflow.storage import check_place, make_directory, write_bytes

NUMBERS, PAGE = "report.json", "report.html"
AnyReport = Report[Any]


def render(report: AnyReport, *, alone: bool = False) -> str:
    """Returns the page of a report; `alone` if there is no report.json next to it."""
    _, page = _kind(report.result.kind)
    return render_page(page(report, alone=alone))


def headline(report: AnyReport) -> Sequence[KeyFigure]:
    """Returns the numbers at the top of the page of a report."""
    _, page = _kind(report.result.kind)
    return page(report, alone=False).key_figures


def store_report(report: AnyReport, folder: str | Path) -> Path:
    """Returns the path of the page, after writing it and report.json to a folder."""
    page = render(report)
    directory = make_directory(folder)
    write_bytes(directory / NUMBERS, to_json(report).encode())
    write_bytes(directory / PAGE, page.encode())
    return directory / PAGE


def read_report(folder: str | Path, kind: str | None = None) -> AnyReport:
    """Returns the report that `store_report` wrote to a folder."""
    path = Path(folder) / NUMBERS
    if not path.exists():
        raise FileError(f"{path} is missing: {path.parent} holds no report.")
    content = read_small(path)
    try:
        report = from_json(content)
        if kind not in (None, report.result.kind):
            raise FileError(f"should be a report on {kind!r}, got one on {report.result.kind!r}.")
        return report
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"])) or "the whole"
        raise FileError(f"{path} is not a report: {key!r} is wrong: {first['msg']}.") from None
    except ValueError as error:
        raise FileError(f"{path} is damaged or cut short: not JSON ({error}).") from None
    except FileError as error:
        raise FileError(f"{path} {error}") from None


def draw_again(folder: str | Path) -> Path:
    """Returns the path of the page of a report, written again from its report.json."""
    report = read_report(folder)
    try:
        return store_report(report, folder)
    except (LookupError, TypeError, ValueError, ArithmeticError) as error:
        raise FileError(
            f"{Path(folder) / NUMBERS} cannot be drawn, its numbers do not fit each other: "
            f"{error}."
        ) from None


def to_json(report: AnyReport) -> str:
    """Returns a report as JSON, with nan and infinity as the strings "NaN" and "Infinity"."""
    return report.model_dump_json(indent=2) + "\n"


def from_json(text: str | bytes) -> AnyReport:
    """Returns the report that `to_json` wrote."""
    content = parse_json(text)
    if not isinstance(content, dict) or not isinstance(content.get("result"), dict):
        return Report[Part].model_validate(content)
    charts, _ = _kind(content["result"].get("kind"))
    return Report[charts].model_validate(content)


def _kind(name: object) -> tuple[type[Part], Callable[..., Page]]:
    """Returns the charts of reports on a kind of data, and the function that makes their page."""
    if name == TABLE:
        return TableCharts, table_page
    kind = next((kind for kind in kinds() if kind.name == name), None)
    if kind is None:
        known = ", ".join([TABLE, *(kind.name for kind in kinds())])
        raise FileError(
            f"is a report on {name!r}, which is not a registered kind of data: {known}."
        )
    runs = runs_of(kind)
    return runs.charts, runs.page


def check_output_path(name: str, path: str | Path | None, suffix: str) -> None:
    """Raises an error if a page cannot be written to a path, before any work is done."""
    if path is None:
        return
    target = Path(path)
    if target.suffix.lower() != suffix:
        raise ArgumentError(f"'{name}' should end in {suffix}, got '{path}'.")
    check_place(name, target)
