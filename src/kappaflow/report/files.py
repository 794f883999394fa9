"""Reports on disk: report.json has the numbers, report.html is the page made from them."""

from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from kappaflow.errors import ArgumentError, FileError
from kappaflow.reading import parse_json, read_small
from kappaflow.report.content import Report
from kappaflow.report.images import ImageReport, render_images
from kappaflow.report.tables import render
from kappaflow.storage import check_place, make_directory, write_bytes

AnyReport = Report | ImageReport
NUMBERS, PAGE = "report.json", "report.html"
R = TypeVar("R", Report, ImageReport)


def store_report(report: AnyReport, folder: str | Path) -> Path:
    """Returns the path of the page, written to a folder along with report.json.

    Creates the folder if it is missing; neither file is ever half written.

    Raises:
        FileError: The folder cannot be written.
    """
    page = render_images(report) if isinstance(report, ImageReport) else render(report)
    place = make_directory(folder)
    write_bytes(place / NUMBERS, to_json(report).encode())
    write_bytes(place / PAGE, page.encode())
    return place / PAGE


def read_report(folder: str | Path) -> AnyReport:
    """Returns the report that `store_report` wrote to a folder.

    Raises:
        FileError: report.json is missing, is not JSON, or is not a report.
    """
    path = Path(folder) / NUMBERS
    if not path.exists():
        raise FileError(f"{path} is missing: {path.parent} holds no report.")
    content = read_small(path)
    try:
        return from_json(content)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"])) or "the whole"
        raise FileError(f"{path} is not a report: {key!r} is wrong: {first['msg']}.") from None
    except ValueError as error:
        raise FileError(f"{path} is damaged or cut short: not JSON ({error}).") from None


def read_report_on(folder: str | Path, kind: type[R]) -> R:
    """Returns the report in a folder if it is of the given kind, `Report` or `ImageReport`.

    Raises:
        FileError: As for `read_report`, or the report has the other kind.
    """
    report = read_report(folder)
    if not isinstance(report, kind):
        expected, other = ("images", "a table")[:: 1 if kind is ImageReport else -1]
        raise FileError(f"{folder} should hold a report on {expected}, it holds one on {other}.")
    return report


def draw_again(folder: str | Path) -> Path:
    """Returns the path of the page of a report, written again from its report.json.

    Raises:
        FileError: As for `read_report`, or the numbers do not fit each other.
    """
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
    """Returns the report that `to_json` wrote.

    Raises:
        ValueError: The text is not JSON; a `pydantic.ValidationError` if it is not a report.
    """
    content = parse_json(text)
    is_of_images = isinstance(content, dict) and content.get("kind") == "images"
    return (ImageReport if is_of_images else Report).model_validate(content)


def check_output_path(name: str, path: str | Path | None, suffix: str) -> None:
    """Raises an error if a page cannot be written to a path, before any work is done.

    Raises:
        ArgumentError: The path has another ending than `suffix`, or is a folder.
        FileError: Its folder does not exist.
    """
    if path is None:
        return
    target = Path(path)
    if target.suffix.lower() != suffix:
        raise ArgumentError(f"'{name}' should end in {suffix}, got '{path}'.")
    check_place(name, target)
