"""The sections of the page of benchmarks of images."""

from collections.abc import Sequence
from statistics import mean, median
from typing import Any

from benchmarks.lines import Line, grouped
from benchmarks.names import FLOOR, OWN_IMAGES
from benchmarks.tables import NOT_FINITE, SPECTRA_COLUMNS, markdown, number, text_table
from benchmarks.targets import NOT_MEASURED

PEERS = ("FrEIA Glow", "nflows Glow", "normflows Glow")
COLUMNS = {
    "forward_backward": ("forward + backward", ("to_floor", "to_store")),
    "log_prob": ("log_prob", ("to_floor",)),
    "sample": ("sample", ("to_floor",)),
}
HEADS = {"to_floor": "/ floor", "to_store": "/ store"}
MIXING_HEAD = (
    "form",
    "parameters",
    "median",
    "max",
    "bounded",
    "whole flow before",
    "after",
    "test bits per dimension",
    "time of a step / plain",
)
UNBOUNDED = "no"
SPECTRUM = {key: head for key, head in SPECTRA_COLUMNS.items() if key != "dimensions"}
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
        "descriptions": text_table(["row", "what it is"], results["rows"].items()),
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
    return text_table(["", "aimed at", "reached"], table)


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


def mixing_values(results: dict[str, Any]) -> dict[str, Any]:
    """Returns the values for the template of the section.

    Args:
        results: The content of the file of results.

    Returns:
        "table", the settings of the trainings, "seeds", and the settings of the times; None if
        nothing was measured.
    """
    lines = results["lines"]
    trainings = [line for line in lines if line["part"] == "training"]
    times = next((line for line in lines if line["part"] == "times"), None)
    return {
        "table": markdown(MIXING_HEAD, _mixing_rows(trainings, times["forms"] if times else {})),
        "training": trainings[0] if trainings else None,
        "seeds": len({line["seed"] for line in trainings}),
        "times": times,
    }


def _mixing_rows(trainings: Sequence[Line], times: dict[str, Any]) -> list[list[str]]:
    """Returns a row for each form."""
    trained = {form: same for (form,), same in grouped(trainings, ("form",)).items()}
    return [
        [form, *_mixing_cells(trained.get(form, []), bounded(form)), _to_plain(times.get(form))]
        for form in dict.fromkeys([*trained, *times])
    ]


def bounded(form: str) -> str:
    """Returns the bound on the condition number of a convolution by construction, as text.

    Example:
        >>> bounded("LU"), bounded("SVD, bound 4"), bounded("orthogonal")
        ('no', 'at most 4', '1')
    """
    _, comma, bound = form.partition(", bound ")
    if comma:
        return f"at most {bound}"
    return "1" if form == "orthogonal" else UNBOUNDED


def _mixing_cells(same: Sequence[Line], bound: str) -> list[str]:
    """Returns the table cells from the trainings of a form."""
    if not same:
        return ["", "", "", bound, "", "", ""]
    return [
        f"{same[0]['parameters']:,}",
        *(
            _digits(over([line["after"][what] for line in same]))
            for what, over in (("median", median), ("max", max))
        ),
        bound,
        *(_digits(median(line[when]["flow"] for line in same)) for when in ("before", "after")),
        _spread(same, "test"),
    ]


def _digits(value: float) -> str:
    """Returns a condition number with three digits, because many are near 1."""
    return f"{value:.3g}"


def _to_plain(figures: dict[str, float] | None) -> str:
    return f"{figures['to_plain']:.2f}" if figures else ""


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
