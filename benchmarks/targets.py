"""The first table of the page: the goals and the results."""

from collections.abc import Callable
from typing import Any

from benchmarks.names import PRODUCTS, WITHOUT_NATIVE
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
            "forward + backward, against the floor",
            "<= 0.90 in store, <= 1.02 in recompute where products alone take 0.65; at most 1.35 "
            "and 1.55 times products alone anywhere",
            _forward_backward(results, WITHOUT_NATIVE.format),
        ),
        (
            "the same with the native backend",
            "<= 0.78 in store, <= 0.88 in recompute; at most 1.25 and 1.40 times products alone",
            _forward_backward(results, OWN) if _is_native(results) else NOT_MEASURED,
        ),
        (
            "log_prob and sample, against the floor's forward",
            "<= 0.95 and <= 1.05",
            _without_gradient(results),
        ),
        (
            "activations kept for backward in recompute",
            "batch * features / 2 * 4 bytes a layer, and a constant",
            _kept(results),
        ),
        (
            "peak memory at depth 512, batch 512, invert, above weights and gradients",
            "<= 30 MB",
            _peak(results),
        ),
        (
            "training step with any module as conditioner, in constant memory",
            "<= 0.85 of zuko's",
            _any_module(results),
        ),
    ]
    lines += [
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
    return bool(results.get("speed", {}).get("machine", {}).get("player"))


def _forward_backward(results: Results, name_of: Callable[[str], str]) -> str:
    rows = _rows(results)
    found = [
        f"{row['forward_backward']['to_floor']:.2f} in {mode} "
        f"({row['forward_backward']['to_products']:.2f} times products alone)"
        for mode in ("store", "recompute")
        if (row := rows.get(name_of(mode)))
    ]
    if not found or PRODUCTS not in rows:
        return NOT_MEASURED
    products = rows[PRODUCTS]["forward_backward"]["to_floor"]
    return f"{', '.join(found)}, where products alone take {products:.2f}"


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


def _peak(results: Results) -> str:
    lines = _memory(results, OWN("invert"), batch=512)
    found = next((line for line in lines if line["depth"] == 512), None)
    return f"{found['peak_bytes'] / 1e6:.0f} MB" if found else NOT_MEASURED


def _any_module(results: Results) -> str:
    """Returns our step over zuko's, each relative to the floor of its own process."""
    rows = _rows(results)
    ours, zuko = rows.get(ANY_MODULE("invert")), rows.get("zuko, SiLU")
    if ours is None or zuko is None:
        return NOT_MEASURED
    ratio = ours["train_step"]["to_floor"] / zuko["train_step"]["to_floor"]
    depths = {
        line["depth"]: f"{line['peak_bytes'] / 1e6:.0f} MB at depth {line['depth']}"
        for line in _memory(results, ANY_MODULE("invert"), batch=512)
    }
    return f"{ratio:.2f}" + "".join(f"; {depths[depth]}" for depth in sorted(depths))


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
