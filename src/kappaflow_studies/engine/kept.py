"""Cases that are measured, line by line in a file: what an interrupted experiment goes on from."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kappaflow.errors import FileError, WriteError
from kappaflow.reading import parse_json, read_small

Measured = tuple[dict[str, Any], list[dict[str, Any]], float]


def key_of(case: Mapping[str, Any]) -> str:
    """Returns what tells a case from all others: its values, whatever their order.

    Example:
        >>> key_of({"depth": 1, "seed": 0}) == key_of({"seed": 0, "depth": 1})
        True
    """
    return json.dumps(case, sort_keys=True)


def read_measured(path: Path) -> dict[str, Measured]:
    """Returns what is in a file, by `key_of` its case; nothing if there is no file.

    A line that was cut short when its writer was killed is taken out of the file.

    Args:
        path: The file.

    Returns:
        Each case with its rows and its seconds.

    Raises:
        FileError: A whole line cannot be read.
    """
    if not path.exists():
        return {}
    try:
        whole, newline, cut_short = read_small(path).rpartition(b"\n")
        if cut_short:
            with path.open("r+b") as file:
                file.truncate(len(whole) + len(newline))
        found = {}
        for line in whole.splitlines():
            entry = parse_json(line)
            found[key_of(entry["case"])] = (entry["case"], entry["rows"], entry["time_s"])
    except FileError:
        raise
    except OSError as error:
        raise FileError(f"{path} cannot be read: {error.strerror}.") from None
    except (ValueError, KeyError, TypeError):
        raise FileError(
            f"{path} is damaged: a line of it is no measured case. Move it away to start anew."
        ) from None
    return found


def append_measured(
    path: Path, case: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], time_s: float
) -> None:
    """Appends a case, which is in the file when this returns."""
    line = json.dumps({"case": case, "rows": list(rows), "time_s": time_s}) + "\n"
    try:
        with path.open("ab") as file:
            file.write(line.encode())
    except OSError as error:
        raise WriteError(f"{path} cannot be written: {error.strerror}.") from None
