"""The sections of the page of benchmarks of images."""

from collections.abc import Sequence
from statistics import mean
from typing import Any

from benchmarks.lines import Line, grouped
from benchmarks.names import FLOOR
from benchmarks.tables import NOT_FINITE, SPECTRA_COLUMNS, markdown, number, text_table

COLUMNS = {
    "forward_backward": ("forward + backward", ("to_floor", "to_store")),
    "log_prob": ("log_prob", ("to_floor",)),
    "sample": ("sample", ("to_floor",)),
}
HEADS = {"to_floor": "/ floor", "to_store": "/ store"}
SPECTRUM = {key: head for key, head in SPECTRA_COLUMNS.items() if key != "dimensions"}
Rows = dict[str, Any]


def image_values(results: dict[str, Any]) -> dict[str, Any]:
    """Returns the values for the template of the section."""
    lines = results["lines"]
    timed, digits = _of(lines, "speed"), _of(lines, "digits")
    rows = timed[0]["rows"] if timed else {}
    peaks = {line["row"]: line["peak_bytes"] for line in _of(lines, "memory")}
    return {
        "shape": next((line["shape"] for line in [*timed, *_of(lines, "memory")]), None),
        "times": times_table(rows, peaks) if rows or peaks else None,
        "repetitions": rows[FLOOR]["forward_backward"]["repetitions"] if rows else 0,
        "failures": {name: row["error"] for name, row in rows.items() if "error" in row},
        "digits": digits_table(digits) if digits else None,
        "digits_shape": digits[0]["shape"] if digits else None,
        "seconds": digits[0]["seconds"] if digits else 0,
        "seeds": len({line["seed"] for line in digits}),
        "descriptions": text_table(["row", "what it is"], results["rows"].items()),
    }


def times_table(rows: Rows, peaks: dict[str, float]) -> str:
    """Returns times, their ratios, and the memory of a step."""
    head = ["", "parameters"]
    for title, ratios in COLUMNS.values():
        head += [f"{title} [ms]", *(HEADS[ratio] for ratio in ratios)]
    table = []
    for name in dict.fromkeys([*rows, *peaks]):
        row = rows.get(name, {})
        mark = f" {NOT_FINITE}" if row.get("finite_share", 1.0) < 1 else ""
        cells = [name + mark, f"{row['parameters']:,}" if "parameters" in row else ""]
        for quantity, (_, ratios) in COLUMNS.items():
            figures = row.get(quantity, {})
            cells.append(f"{figures['median_ms']:.3g}" if figures else "")
            cells += [f"{figures[r]:.2f}" if r in figures else "" for r in ratios]
        table.append([*cells, f"{peaks[name] / 1e6:.0f}" if name in peaks else ""])
    return markdown([*head, "memory [MB]"], table)


def digits_table(lines: Sequence[Line]) -> str:
    """Returns bits per dimension: the mean over the seeds, with the range."""
    head = ["", "parameters", "steps", "training", "validation", "test", "test, last weights"]
    table = [
        [
            name,
            f"{same[0]['parameters']:,}",
            f"{mean(line['steps'] for line in same):,.0f}",
            *(_spread(same, key) for key in ("train", "validation", "test", "final_test")),
        ]
        for (name,), same in grouped(lines, ("row",)).items()
    ]
    return markdown(head, table)


def _spread(lines: Sequence[Line], key: str) -> str:
    """Returns the mean, followed by the range."""
    values = [line[key] for line in lines]
    return f"{mean(values):.3f} ({min(values):.3f} to {max(values):.3f})"


def _of(lines: Sequence[Line], part: str) -> list[Line]:
    return [line for line in lines if line["part"] == part]


def image_spectra_values(results: dict[str, Any]) -> dict[str, Any]:
    """Returns the values for the template: two tables, and the shape of the flows."""
    spectra = [line for line in results["lines"] if line["part"] == "spectrum"]
    profiles = [line for line in results["lines"] if line["part"] == "profile"]
    return {
        "spectra": markdown(
            ["images", *SPECTRUM.values()],
            [
                [" x ".join(map(str, line["shape"])), *(_figure(line, key) for key in SPECTRUM)]
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
