"""Results that are appended line by line, so that an interrupted run can be resumed."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

Line = dict[str, Any]


def read_lines(path: Path) -> tuple[list[Line], list[Line]]:
    """Returns the results in a file, and the machines that took them, in order.

    A line that was cut off when the writer was killed is taken out of the file.
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
    """Returns each machine, and what its results have under a name, each once."""
    found: list[Line] = []
    for line in path.read_text(encoding="utf-8").splitlines():
        one = json.loads(line)
        if "machine" in one:
            found.append({"machine": one["machine"], "parts": []})
        elif one[name] not in found[-1]["parts"]:
            found[-1]["parts"].append(one[name])
    return found


def append_line(path: Path, line: Line) -> None:
    """Appends a result, which is in the file when this returns."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


def append_machine(path: Path, machine: Line) -> None:
    """Appends what takes the results that follow, if it is not what took those before."""
    before = read_lines(path)[1]
    if not before or before[-1] != machine:
        append_line(path, {"machine": machine})


def key_of(line: Line, names: Sequence[str]) -> tuple[Any, ...]:
    """Returns what tells a result from others."""
    return tuple(line[name] for name in names)


def grouped(lines: Iterable[Line], names: Sequence[str]) -> dict[tuple[Any, ...], list[Line]]:
    """Returns the results by what they have in common, in the order of their first ones."""
    groups: dict[tuple[Any, ...], list[Line]] = {}
    for line in lines:
        groups.setdefault(key_of(line, names), []).append(line)
    return groups


def write_results(path: Path, results: Line) -> None:
    """Writes a file of results in one go, so that an interrupted run leaves the old one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    part.replace(path)
