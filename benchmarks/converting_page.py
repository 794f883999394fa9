"""The page on converted flows, with ratios of time and memory."""

from typing import Any

from benchmarks.converting_rows import CONVERTED, ORIGINAL
from benchmarks.lines import Line
from benchmarks.tables import markdown, text_table

HEAD = ("flow", "features", "couplings", "time", "quartiles", "memory", "MB before", "MB after")
MEGABYTE = 1e6


def converting_values(results: dict[str, Any]) -> dict[str, Any]:
    """Returns the values for the template of the page."""
    order = list(results["rows"])
    times = [line for line in results["lines"] if line["part"] == "times"]
    times.sort(key=lambda line: (order.index(line["row"]), *_key(line)[1:]))
    peaks = {
        (*_key(line), line["kind"]): line["peak_bytes"]
        for line in results["lines"]
        if line["part"] == "memory"
    }
    return {
        "table": markdown(HEAD, [_row(line, peaks) for line in times]),
        "rows": text_table(["row", "what it is"], results["rows"].items()),
        "repetitions": times[0]["repetitions"],
        "batch": times[0]["shape"]["batch"],
        "errors": _errors([line for line in results["lines"] if line["part"] == "errors"]),
    }


def _errors(lines: list[Line]) -> dict[str, str]:
    """Returns the largest errors of log_prob, and the flow with the largest."""
    most = {
        name: f"{max(line[name] for line in lines):.1g}"
        for name in (ORIGINAL, CONVERTED, "float64")
    }
    worst = max(lines, key=lambda line: max(line[ORIGINAL], line[CONVERTED]))
    name, features, depth = _key(worst)
    place = f"{name}, {features} features, {depth} couplings"
    return {**most, "place": place, "least": f"{worst['least']:.0f}"}


def _key(line: Line) -> tuple[str, int, int]:
    return line["row"], line["shape"]["features"], line["shape"]["depth"]


def _row(line: Line, peaks: dict[tuple[Any, ...], int]) -> list[str]:
    before, after = (peaks.get((*_key(line), kind)) for kind in (ORIGINAL, CONVERTED))
    name, features, depth = _key(line)
    found = [name, str(features), str(depth), f"{line['ratio']:.2f}"]
    found.append(f"{line['low']:.2f} - {line['high']:.2f}")
    if before is None or after is None:
        return [*found, "-", "-", "-"]
    sizes = [f"{size / MEGABYTE:.1f}" for size in (before, after)]
    return [*found, f"{after / before:.2f}", *sizes]
