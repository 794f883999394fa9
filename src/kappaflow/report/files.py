"""Reports on disk: report.json, the numbers, and report.html, the page made from them."""

import json
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from kappaflow.errors import FileError
from kappaflow.files import make_directory, write_bytes
from kappaflow.report.content import Report
from kappaflow.report.page import render

NUMBERS, PAGE = "report.json", "report.html"
_NOT_FINITE = {"NaN": float("nan"), "Infinity": float("inf"), "-Infinity": float("-inf")}


def write_report(report: Report, folder: str | Path) -> Path:
    """Writes report.json and report.html to a folder, each whole or not at all.

    Args:
        report: What is written.
        folder: Made if it is missing.

    Returns:
        The path of the page.

    Raises:
        FileError: The folder cannot be written.
    """
    page = render(report)
    place = make_directory(folder)
    write_bytes(place / NUMBERS, to_json(report).encode())
    write_bytes(place / PAGE, page.encode())
    return place / PAGE


def read_report(folder: str | Path) -> Report:
    """Returns the report that `write_report` left in a folder.

    Args:
        folder: The folder with report.json; the page is not needed.

    Returns:
        The report, equal to the one that was written.

    Raises:
        FileError: report.json is missing, no JSON, or no report.
    """
    path = Path(folder) / NUMBERS
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise FileError(f"{path} is missing: {path.parent} holds no report.") from None
    except OSError as error:
        raise FileError(f"{path} cannot be read: {error.strerror}.") from None
    try:
        return from_json(content)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"])) or "the whole"
        raise FileError(f"{path} is no report: {key!r} is wrong: {first['msg']}.") from None
    except (ValueError, RecursionError) as error:
        raise FileError(f"{path} is damaged or cut short: not JSON ({error}).") from None


def to_json(report: Report) -> str:
    """Returns a report as JSON text, nan and infinities as the strings "NaN" and "Infinity"."""
    return report.model_dump_json(indent=2) + "\n"


def from_json(text: str | bytes) -> Report:
    """Returns the report that `to_json` wrote.

    Args:
        text: What `to_json` returned.

    Returns:
        The report.

    Raises:
        ValueError: The text is no JSON; a `pydantic.ValidationError` if it is no report.
    """
    content = json.loads(text)
    if isinstance(content, dict):
        # where the report allows any value, a string does not turn back into a number by itself
        profile = content.get("profile")
        if isinstance(profile, dict):
            layers = {"layers": profile["layers"]} if "layers" in profile else {}
            content["profile"] = _numbers(profile) | layers  # a name stays a name
        findings = content.get("findings")
        for finding in findings if isinstance(findings, list) else []:
            if isinstance(finding, dict):
                finding["evidence"] = _numbers(finding.get("evidence"))
    return Report.model_validate(content)


def _numbers(value: Any) -> Any:  # noqa: ANN401
    """Returns the value with the strings for nan and infinities as numbers again."""
    if isinstance(value, dict):
        return {key: _numbers(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_numbers(item) for item in value]
    return _NOT_FINITE.get(value, value) if isinstance(value, str) else value
