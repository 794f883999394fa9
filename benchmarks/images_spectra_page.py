"""The part of the page of benchmarks on singular values of Glows."""

from collections.abc import Sequence
from typing import Any

from benchmarks.tables import SPECTRA_COLUMNS, markdown, number

COLUMNS = {key: head for key, head in SPECTRA_COLUMNS.items() if key != "dimensions"}


def image_spectra_values(results: dict[str, Any]) -> dict[str, Any]:
    """Returns the values for the template: two tables, and the shape of the flows.

    Args:
        results: The content of the file of results.

    Returns:
        "spectra" and "profiles"; "steps" and "hidden" of the flows.
    """
    spectra = [line for line in results["lines"] if line["part"] == "spectrum"]
    profiles = [line for line in results["lines"] if line["part"] == "profile"]
    return {
        "spectra": markdown(
            ["images", *COLUMNS.values()],
            [
                [" x ".join(map(str, line["shape"])), *(_figure(line, key) for key in COLUMNS)]
                for line in spectra
            ],
        ),
        "profiles": _profiles(profiles) if profiles else None,
        "steps": results["steps"],
        "hidden": results["hidden"],
    }


def _profiles(lines: Sequence[dict[str, Any]]) -> str:
    """Returns a table of the time of a profile by the number of layers."""
    rows = [
        [f"3 x {side} x {side} [s]", *(_figure(line, f"time_{side}_s") for line in lines)]
        for side in (8, 16)
    ]
    return markdown(["layers", *(f"{line['layers']}" for line in lines)], rows)


def _figure(line: dict[str, Any], key: str) -> str:
    return number(line[key]) if key in line else ""
