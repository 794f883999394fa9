"""Results that are appended line by line, so that an interrupted run can be resumed."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.processes import console

Line = dict[str, Any]


def read_lines(path: Path) -> tuple[list[Line], list[Line]]:
    """Returns the results in a file, and the machines that measured them, in order.

    If the last line is incomplete because its writer was killed, it is removed from the file.
    """
    if not path.exists():
        return [], []
    whole, newline, cut_off = path.read_text(encoding="utf-8").rpartition("\n")
    if cut_off:
        path.write_text(whole + newline, encoding="utf-8")
    found = [json.loads(line) for line in whole.splitlines()]
    results = [line for line in found if "machine" not in line]
    return results, [line["machine"] for line in found if "machine" in line]


def parts_by_machine(path: Path, name: str) -> list[Line]:
    """Returns each machine once, with the values that its results have under a name."""
    found: list[Line] = []
    for line in path.read_text(encoding="utf-8").splitlines():
        one = json.loads(line)
        if "machine" in one:
            found.append({"machine": one["machine"], "parts": []})
        elif one[name] not in found[-1]["parts"]:
            found[-1]["parts"].append(one[name])
    return found


def append_line(path: Path, line: Line) -> None:
    """Appends a result and flushes it to the disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


def append_machine(path: Path, machine: Line) -> None:
    """Appends the machine of the next results, if it differs from the machine before."""
    before = read_lines(path)[1]
    if not before or before[-1] != machine:
        append_line(path, {"machine": machine})


def key_of(line: Line, names: Sequence[str]) -> tuple[Any, ...]:
    """Returns a key that identifies a result."""
    return tuple(line[name] for name in names)


def grouped(lines: Iterable[Line], names: Sequence[str]) -> dict[tuple[Any, ...], list[Line]]:
    """Returns the results grouped by the given names, in the order of first occurrence."""
    groups: dict[tuple[Any, ...], list[Line]] = {}
    for line in lines:
        groups.setdefault(key_of(line, names), []).append(line)
    return groups


def write_results(path: Path, results: Line) -> None:
    """Writes a file of results atomically, so an interrupted run leaves the old file.

    Prints the path.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    part.replace(path)
    console.print(f"Wrote {path}", markup=False, soft_wrap=True)
