"""The first table of the page: the goals and the results."""

from collections.abc import Callable
from typing import Any

from benchmarks.names import WITHOUT_NATIVE
from benchmarks.reaching import ratio_text, reaching_values
from benchmarks.tables import number, reference_place, rows_at, text_table

Results = dict[str, Any]
OWN = "kappaflow, {}".format
ANY_MODULE = "kappaflow, any module, {}".format
FEATURES = 64
FLOAT_BYTES = 4
NOT_MEASURED = "not measured"


def targets_table(results: Results) -> str:
    """Returns the table of goals, with the values from the results."""
    lines = [
        (
            "forward + backward as installed, against the floor",
            "<= 0.78 in store, <= 0.88 in recompute, <= 1.15 in invert; at most 1.25 and 1.40 "
            "times products alone in store and recompute",
            _forward_backward(results, OWN) if _is_native(results) else NOT_MEASURED,
        ),
        (
            "the same without the native backend",
            "<= 0.90 in store, <= 1.02 in recompute where products alone take 0.65; at most 1.35 "
            "and 1.55 times products alone anywhere",
            _forward_backward(results, WITHOUT_NATIVE.format),
        ),
        (
            "with any module as conditioner, against a floor of these modules",
            "<= 1.40 in store, <= 1.50 in recompute",
            _forward_backward(results, ANY_MODULE),
        ),
        (
            "log_prob and sample, against the floor's forward",
            "<= 0.95",
            _without_gradient(results),
        ),
        (
            "activations kept for backward in recompute",
            "batch * features / 2 * 4 bytes a layer, and a constant",
            _kept(results),
        ),
        (
            "peak memory at depth 512, batch 512, above weights and gradients",
            "<= 25 MB in invert, <= 60 MB in recompute",
            _peaks(results),
        ),
    ]
    lines += [
        (
            "training to a likelihood that every library reaches, on four tables; "
            "to that of the best other library",
            "at least twice as fast as the fastest",
            _reaching(results),
        ),
        (
            "largest and smallest singular value in 3,072 dimensions, against jacrev and svd",
            "20 times faster",
            _spectra(results, 3072, "time_ratio", "{:.0f} times"),
        ),
        (
            "both in 12,288 dimensions",
            "< 3 s",
            _spectra(results, 12288, "time_s", "{:.1f} s"),
        ),
    ]
    return text_table(["", "aimed at", "reached"], lines)


def _is_native(results: Results) -> bool:
    return bool(results.get("speed", {}).get("machine", {}).get("native"))


def _forward_backward(results: Results, name_of: Callable[[str], str]) -> str:
    rows = _rows(results)
    found = [
        f"{row['forward_backward']['to_floor']:.2f} in {mode} "
        f"({row['forward_backward']['to_products']:.2f} times products alone)"
        for mode in ("store", "recompute", "invert")
        if (row := rows.get(name_of(mode), {})) and "forward_backward" in row
    ]
    return ", ".join(found) or NOT_MEASURED


def _without_gradient(results: Results) -> str:
    rows = _rows(results)
    names = {
        "with the native backend": OWN("recompute") if _is_native(results) else None,
        "without": WITHOUT_NATIVE.format("recompute"),
    }
    found = [
        f"{row['log_prob']['to_floor']:.2f} and {row['sample']['to_floor']:.2f} {text}"
        for text, name in names.items()
        if (row := rows.get(name))
    ]
    return ", ".join(found) or NOT_MEASURED


def _kept(results: Results) -> str:
    """Returns the slope between the two largest depths, in which constants cancel."""
    lines = _memory(results, OWN("recompute"), batch=512)
    if len(lines) < 2:
        return NOT_MEASURED
    small, large = sorted(lines, key=lambda line: line["depth"])[-2:]
    depth = large["depth"] - small["depth"]
    layer = (large["kept_bytes"] - small["kept_bytes"]) / depth
    wanted = large["batch"] * FEATURES // 2 * FLOAT_BYTES
    return (
        f"{layer:,.0f} bytes a layer (the formula: {wanted:,}), "
        f"between depth {small['depth']} and {large['depth']}"
    )


def _peaks(results: Results) -> str:
    found = [
        f"{line['peak_bytes'] / 1e6:.0f} MB in {mode}"
        for mode in ("invert", "recompute")
        for line in _memory(results, OWN(mode), batch=512)
        if line["depth"] == 512
    ]
    return ", ".join(found) or NOT_MEASURED


def _reaching(results: Results) -> str:
    if "reaching" not in results:
        return NOT_MEASURED
    ratios = reaching_values(results["reaching"])["ratios"]
    return "; ".join(", ".join(map(ratio_text, each)) for each in ratios.values()) + " times"


def _spectra(results: Results, dimensions: int, key: str, form: str) -> str:
    """Returns a figure of each case with this number of dimensions, with its condition number."""
    found = [
        f"{form.format(line[key])} (condition number {number(line['condition_number'])})"
        for line in results.get("spectra", {}).get("lines", [])
        if line["dimensions"] == dimensions and key in line
    ]
    return ", ".join(found) or NOT_MEASURED


def _rows(results: Results) -> dict[str, Any]:
    speed = results.get("speed")
    return rows_at(speed, reference_place(speed)) if speed and speed["lines"] else {}


def _memory(results: Results, row: str, *, batch: int) -> list[dict[str, Any]]:
    lines = results.get("memory", {}).get("lines", [])
    return [line for line in lines if line["row"] == row and line["batch"] == batch]
