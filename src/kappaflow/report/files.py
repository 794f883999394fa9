"""Reports on disk: report.json, the numbers, and report.html, the page made from them."""

from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from kappaflow.errors import FileError
from kappaflow.reading import parse_json, read_small
from kappaflow.report.content import Report
from kappaflow.report.image_content import ImageReport
from kappaflow.report.image_page import render_images
from kappaflow.report.page import render
from kappaflow.storage import make_directory, write_bytes

AnyReport = Report | ImageReport
NUMBERS, PAGE = "report.json", "report.html"
R = TypeVar("R", Report, ImageReport)


def write_report(report: AnyReport, folder: str | Path) -> Path:
    """Writes report.json and report.html to a folder, each whole or not at all.

    Args:
        report: What is written.
        folder: Made if it is missing.

    Returns:
        The path of the page.

    Raises:
        FileError: The folder cannot be written.
    """
    page = render_images(report) if isinstance(report, ImageReport) else render(report)
    place = make_directory(folder)
    write_bytes(place / NUMBERS, to_json(report).encode())
    write_bytes(place / PAGE, page.encode())
    return place / PAGE


def read_report(folder: str | Path) -> AnyReport:
    """Returns the report that `write_report` left in a folder.

    Args:
        folder: The folder with report.json; the page is not needed.

    Returns:
        The report, equal to the one that was written.

    Raises:
        FileError: report.json is missing, no JSON, or no report.
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
        raise FileError(f"{path} is no report: {key!r} is wrong: {first['msg']}.") from None
    except ValueError as error:
        raise FileError(f"{path} is damaged or cut short: not JSON ({error}).") from None


def read_report_on(folder: str | Path, kind: type[R]) -> R:
    """Returns `read_report` if it is on what it should be on.

    Args:
        folder: The folder with report.json.
        kind: `Report`, on a table, or `ImageReport`.

    Returns:
        The report.

    Raises:
        FileError: As for `read_report`, or it is one of the other kind.
    """  # noqa: DOC502 - raised by `read_report` too
    report = read_report(folder)
    if not isinstance(report, kind):
        wanted, other = ("images", "a table")[:: 1 if kind is ImageReport else -1]
        raise FileError(f"{folder} should hold a report on {wanted}, it holds one on {other}.")
    return report


def draw_again(folder: str | Path) -> Path:
    """Draws the page of the report that `write_report` left in a folder anew.

    Args:
        folder: The folder with report.json.

    Returns:
        The path of the page.

    Raises:
        FileError: As for `read_report`, or the numbers do not fit each other.
    """
    report = read_report(folder)
    try:
        return write_report(report, folder)
    except (LookupError, TypeError, ValueError, ArithmeticError) as error:
        raise FileError(
            f"{Path(folder) / NUMBERS} cannot be drawn, its numbers do not fit each other: "
            f"{error}."
        ) from None


def to_json(report: AnyReport) -> str:
    """Returns a report as JSON text, nan and infinities as the strings "NaN" and "Infinity"."""
    return report.model_dump_json(indent=2) + "\n"


def from_json(text: str | bytes) -> AnyReport:
    """Returns the report that `to_json` wrote.

    Args:
        text: What `to_json` returned.

    Returns:
        The report.

    Raises:
        ValueError: The text is no JSON; a `pydantic.ValidationError` if it is no report.
    """
    content = parse_json(text)
    is_of_images = isinstance(content, dict) and content.get("kind") == "images"
    return (ImageReport if is_of_images else Report).model_validate(content)
