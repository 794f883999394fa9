"""The section on images of the page of benchmarks: the goals and the tables."""

from collections.abc import Sequence
from statistics import mean
from typing import Any

from benchmarks.lines import Line, grouped
from benchmarks.names import FLOOR, OWN_IMAGES
from benchmarks.tables import NOT_FINITE, markdown
from benchmarks.targets import NOT_MEASURED

PEERS = ("FrEIA Glow", "nflows Glow", "normflows Glow")
COLUMNS = {
    "forward_backward": ("forward + backward", ("to_floor", "to_store")),
    "log_prob": ("log_prob", ("to_floor",)),
    "sample": ("sample", ("to_floor",)),
}
HEADS = {"to_floor": "/ floor", "to_store": "/ store"}
Rows = dict[str, Any]


def image_values(results: dict[str, Any]) -> dict[str, Any]:
    """Returns the values for the template of the section.

    Args:
        results: The content of the file of results.

    Returns:
        "targets", "times", "digits", "shape", "failures", "descriptions", and "seconds" and
        "seeds" of the trainings; a table is None if nothing was measured for it.
    """
    lines = results["lines"]
    timed, digits = _of(lines, "speed"), _of(lines, "digits")
    rows = timed[0]["rows"] if timed else {}
    peaks = {line["row"]: line["peak_bytes"] for line in _of(lines, "memory")}
    return {
        "shape": next((line["shape"] for line in [*timed, *_of(lines, "memory")]), None),
        "targets": targets_table(lines),
        "times": times_table(rows, peaks) if rows or peaks else None,
        "repetitions": rows[FLOOR]["forward_backward"]["repetitions"] if rows else 0,
        "failures": {name: row["error"] for name, row in rows.items() if "error" in row},
        "digits": digits_table(digits) if digits else None,
        "digits_shape": digits[0]["shape"] if digits else None,
        "seconds": digits[0]["seconds"] if digits else 0,
        "seeds": len({line["seed"] for line in digits}),
        "descriptions": results["rows"],
    }


def targets_table(lines: Sequence[Line]) -> str:
    """Returns the goals and the results."""
    timed = _of(lines, "speed")
    rows = timed[0]["rows"] if timed else {}
    rows = {name: row for name, row in rows.items() if "error" not in row}
    peaks = {line["row"]: line["peak_bytes"] for line in _of(lines, "memory")}
    table = [
        ("forward + backward, against the floor", "<= 1.05", _step(rows)),
        ("log_prob, against the floor's forward", "<= 1.25", _ratios(rows, "log_prob")),
        ("sample, against the floor's forward", "<= 1.25", _ratios(rows, "sample")),
        (
            "memory of a step in recompute",
            "<= 20 MB at <= 1.25 of the time of a step in store",
            _memory(rows, peaks),
        ),
        (
            "bits per dimension of held-out digits, at equal parameters and processor time",
            "below normflows' and nflows'",
            _learned(_of(lines, "digits")),
        ),
    ]
    return markdown(["", "aimed at", "reached"], table).replace("---:", "---")


def _step(rows: Rows) -> str:
    own = [
        f"{row['forward_backward']['to_floor']:.2f} in {mode}"
        for mode in ("store", "recompute", "invert")
        if (row := rows.get(OWN_IMAGES.format(mode)))
    ]
    return ", ".join(own) + _theirs(rows, "forward_backward") if own else NOT_MEASURED


def _ratios(rows: Rows, quantity: str) -> str:
    own = rows.get(OWN_IMAGES.format("recompute"))
    if own is None:
        return NOT_MEASURED
    return f"{own[quantity]['to_floor']:.2f}" + _theirs(rows, quantity)


def _theirs(rows: Rows, quantity: str) -> str:
    found = [
        f"{name.removesuffix(' Glow')} {rows[name][quantity]['to_floor']:.2f}"
        for name in PEERS
        if name in rows
    ]
    return f" ({', '.join(found)})" if found else ""


def _memory(rows: Rows, peaks: dict[str, float]) -> str:
    name = OWN_IMAGES.format("recompute")
    if name not in peaks:
        return NOT_MEASURED
    ratio = rows.get(name, {}).get("forward_backward", {}).get("to_store")
    at = f" at {ratio:.2f}" if ratio else ""
    theirs = [f"{p.removesuffix(' Glow')} {peaks[p] / 1e6:.0f}" for p in PEERS if p in peaks]
    return f"{peaks[name] / 1e6:.0f} MB{at}" + (f" ({', '.join(theirs)})" if theirs else "")


def _learned(lines: Sequence[Line]) -> str:
    found = [
        f"{name.removesuffix(' Glow')} {_spread(same, 'test')}"
        for (name,), same in grouped(lines, ("row",)).items()
    ]
    return "; ".join(found) or NOT_MEASURED


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
