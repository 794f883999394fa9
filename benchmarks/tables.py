"""Markdown tables from the results."""

import math
from collections.abc import Iterable
from statistics import median
from typing import Any

from benchmarks.names import FLOOR, PRODUCTS, QUANTITIES, SILU_FLOOR

Part = dict[str, Any]
Place = tuple[int, int]  # depth, batch
REFERENCE: Place = (128, 512)
WARNED = "‡"  # marks a mode that warned
NOT_FINITE = "†"  # marks rows with a log_prob that is not finite at all points


def markdown(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Returns a table; all columns except the first are aligned to the right."""
    head = list(head)
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *(list(row) for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def text_table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Returns a table of texts; all columns are aligned to the left."""
    return markdown(head, rows).replace("---:", "---")


def reference_place(part: Part) -> Place:
    """Returns depth 128 and batch 512, or the first measured place if that is missing."""
    places = places_of(part)
    return REFERENCE if REFERENCE in places else places[0]


def places_of(part: Part) -> list[Place]:
    """Returns the pairs (depth, batch) of a part, sorted by batch and depth."""
    found = {(line["depth"], line["batch"]) for line in part["lines"]}
    return sorted(found, key=lambda place: place[::-1])


def rows_at(speed: Part, place: Place) -> dict[str, Part]:
    """Returns the rows timed at a place; floor and products come from their first process."""
    rows: dict[str, Part] = {}
    for line in speed["lines"]:
        if (line["depth"], line["batch"]) == place:
            timed = {name: row for name, row in line["rows"].items() if "error" not in row}
            rows = {**timed, **rows}
    order = dict.fromkeys((PRODUCTS, FLOOR, SILU_FLOOR, *speed["descriptions"], *rows))
    return {name: rows[name] for name in order if name in rows}


def reference_table(speed: Part) -> str:
    """Returns times and ratios to the floor at the reference setting."""
    head = [""]
    for name in ("training step", "forward + backward", "log_prob", "sample"):
        head += [f"{name} [ms]", "/ floor"]
    lines = []
    for name, row in rows_at(speed, reference_place(speed)).items():
        cells = [_marked(name, row)]
        for quantity in QUANTITIES:
            figures = row.get(quantity)
            cells += [_ms(figures), f"{figures['to_floor']:.2f}"] if figures else ["", ""]
        lines.append(cells)
    return markdown(head, lines)


def parameters_sentence(speed: Part) -> str:
    """Returns the number of parameters of the floor, and the rows with another one."""
    rows = rows_at(speed, reference_place(speed))
    number_ = rows[FLOOR]["parameters"]
    other = [name for name in rows if rows[name].get("parameters", 0) != number_]
    other = [name for name in other if name != PRODUCTS]
    exceptions = f", except {'; '.join(other)}" if other else ""
    return f"Each row has {number_:,} parameters{exceptions}."


def failures(speed: Part) -> dict[str, str]:
    """Returns the rows that did not run, with their errors."""
    found = {name: row for line in speed["lines"] for name, row in line["rows"].items()}
    return {name: row["error"] for name, row in found.items() if "error" in row}


def ratio_table(speed: Part, quantity: str) -> str:
    """Returns a quantity over the grid, as a ratio to the floor."""
    places = places_of(speed)
    rows = [rows_at(speed, place) for place in places]
    names = list(dict.fromkeys(name for found in rows for name in found))
    lines = []
    for name in names:
        cells = [
            f"{found[name][quantity]['to_floor']:.2f}{_mark(found[name])}"
            if quantity in found.get(name, {})
            else ""
            for found in rows
        ]
        if any(cells):
            lines.append([name, *cells])
    floor = [_ms(found.get(FLOOR, {}).get(quantity)) for found in rows]
    return markdown(["", *map(_place, places)], [*lines, ["the floor itself [ms]", *floor]])


def memory_table(memory: Part) -> str:
    """Returns peaks in MB over the grid."""
    places = places_of(memory)
    found = {(line["row"], line["depth"], line["batch"]): line for line in memory["lines"]}
    names = list(dict.fromkeys(line["row"] for line in memory["lines"]))
    lines = [[name, *(_mb(found.get((name, *place))) for place in places)] for name in names]
    return markdown(["MB", *map(_place, places)], lines)


def numerics_table(numerics: Part) -> str:
    """Returns finite share, round trip and condition number by depth."""
    found = {(line["row"], line["depth"]): line for line in numerics["lines"]}
    depths = sorted({line["depth"] for line in numerics["lines"]})
    names = list(dict.fromkeys(line["row"] for line in numerics["lines"]))
    head = ["finite rows, round trip, condition number", *(f"depth {depth}" for depth in depths)]
    lines = [[name, *(_numerics(found.get((name, depth))) for depth in depths)] for name in names]
    return markdown(head, lines)


def gradient_table(gradients: Part) -> str:
    """Returns relative errors of float32 gradients: the median and the worst of each setting."""
    settings: dict[tuple[float, float], list[Part]] = {}
    for line in gradients["lines"]:
        settings.setdefault((line["last_layers"], line["scale_bound"]), []).append(line)
    modes = list(dict.fromkeys(mode for line in gradients["lines"] for mode in line["errors"]))
    rows = []
    for lines in settings.values():
        kappa = _middle([line["condition_number"] for line in lines])
        rows.append((kappa, [number(kappa), *(_errors(lines, mode) for mode in modes)]))
    rows.sort(key=lambda row: row[0])
    return markdown(["condition number", *modes], [cells for _, cells in rows])


def _errors(lines: list[Part], mode: str) -> str:
    errors = [line["errors"].get(mode) for line in lines]
    warned = any(mode in line["warned"] for line in lines)
    worst = number(max(_wide(errors)))
    return f"{number(_middle(errors))} ({worst}){' ' + WARNED if warned else ''}"


def _middle(values: list[float | None]) -> float:
    return median(_wide(values))


def _wide(values: list[float | None]) -> list[float]:
    """Returns the values, with inf for those that were not finite."""
    return [math.inf if value is None else value for value in values]


SPECTRA_COLUMNS = {
    "dimensions": "dimensions",
    "condition_number": "condition number",
    "time_s": "both ends [s]",
    "dense_s": "jacrev and svd [s]",
    "time_ratio": "times faster",
    "error_max": "error of sigma_max",
    "error_min": "of sigma_min",
    "dense_error_max": "dense error of sigma_max",
    "dense_error_min": "of sigma_min",
}


def spectra_table(spectra: Part) -> str:
    """Returns times and relative errors of both ends of the spectrum."""
    lines = [
        [
            f"{line[key]:,}" if key == "dimensions" else number(line[key]) if key in line else ""
            for key in SPECTRA_COLUMNS
        ]
        for line in spectra["lines"]
    ]
    return markdown(SPECTRA_COLUMNS.values(), lines)


def number(value: float | None) -> str:
    """Returns a number with two digits; "not finite" if there is none."""
    if value is None or not math.isfinite(value):
        return "not finite"
    return f"{value:.2g}" if abs(value) < 100 else f"{value:.1e}"


def megabytes(size: float) -> str:
    """Returns a size in bytes as megabytes."""
    return f"{size / 1e6:.1f}" if size < 1e7 else f"{size / 1e6:,.0f}"


def _numerics(line: Part | None) -> str:
    if line is None:
        return ""
    share = f"{100 * line['finite_share']:.0f} %" if line["finite_share"] < 1 else "all"
    return f"{share}, {number(line['round_trip'])}, {number(line['condition_number'])}"


def _ms(figures: Part | None) -> str:
    return f"{figures['median_ms']:.3g}" if figures else ""


def _mb(line: Part | None) -> str:
    return "" if line is None else megabytes(line["peak_bytes"])


def _place(place: Place) -> str:
    return f"{place[0]} x {place[1]}"


def _mark(row: Part) -> str:
    return NOT_FINITE if row.get("finite_share", 1.0) < 1 else ""


def _marked(name: str, row: Part) -> str:
    return name + (" " + NOT_FINITE if _mark(row) else "")
