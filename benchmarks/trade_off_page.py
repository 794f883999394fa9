"""Turns the results of factorizations into a page, its figure, and a curve for reports."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.factor_tables import (
    curve_table,
    failures_sentence,
    goals_table,
    methods_sentence,
    time_table,
)
from benchmarks.lines import Line, grouped
from benchmarks.tables import number

ENOUGH = 5  # draws for quartiles that mean something
SHOWN = 64  # features of the maps that the headline is about, if they were measured
Results = dict[str, Any]


def page_values(results: Results, *, figure: str | None) -> dict[str, Any]:
    """Returns what the template of the page is filled with.

    Args:
        results: Of "factor" and "trade-off"; one may be missing.
        figure: Where the page finds its figure.
    """
    curves = results.get("trade-off", {}).get("lines", [])
    goals = results.get("factor", {}).get("lines", [])
    names = dict.fromkeys(curve["ensemble"] for curve in curves)
    residuals = [curve["residual"] for curve in curves if "residual" in curve]
    return {
        "figure": figure,
        "curves": {
            title(name): (curve_table(curves, name), methods_sentence(curves, name))
            for name in names
        },
        "headline": headline(curves),
        "failures": failures_sentence(curves),
        "residual": number(max(residuals, default=None)),
        "times": time_table(curves),
        "goals": goals_table(goals) if goals else None,
    }


def headline(curves: Sequence[Line]) -> str:
    """Returns in a sentence what the fewest and the most couplings reach."""
    curves = [curve for curve in curves if "median" in curve]
    if not curves:
        return ""
    sizes = {curve["n"] for curve in curves}
    n = SHOWN if SHOWN in sizes else max(sizes)
    there = [curve for curve in curves if curve["n"] == n]
    found = []
    for (name,), of_name in grouped(there, ("ensemble",)).items():
        of_name = sorted(of_name, key=lambda curve: curve["couplings"])
        ends = [of_name[0], *of_name[1:][-1:]]  # the fewest and the most
        values = [f"{curve['median']:.3g} with {curve['couplings']}" for curve in ends]
        found.append(f"{' and '.join(values)} for {title(name, within=True)}")
    draws = max(curve["draws"] for curve in there)
    over = "of a single draw" if draws == 1 else f"of {draws} draws"
    return f"At {n} features the median {over} is {'; '.join(found)}."


def title(name: str, *, within: bool = False) -> str:
    """Returns how a page calls an ensemble."""
    kind, _, condition = name.partition(" ")
    if condition:
        kind = f"a {kind}" if within else kind.capitalize()
        return f"{kind} spectrum of condition number {condition}"
    maps = f"{kind} maps" if kind != "permutation" else "permutations"
    return maps if within else maps[0].upper() + maps[1:]


def reference_curves(curves: Sequence[Line]) -> list[Line]:
    """Returns medians and quartiles by ensemble and size, for reports to draw.

    Those are left out that miss a number of couplings, or have too few draws.
    """
    counts = sorted({curve["couplings"] for curve in curves})
    found = []
    for (name, n), of_size in grouped(curves, ("ensemble", "n")).items():
        of_size = sorted(of_size, key=lambda curve: curve["couplings"])
        draws = [curve["draws"] - curve["failed"] for curve in of_size]
        if [curve["couplings"] for curve in of_size] == counts and min(draws) >= ENOUGH:
            quantiles = {
                key: [float(f"{curve[key]:.3g}") for curve in of_size]
                for key in ("low", "median", "high")
            }
            line = {"name": f"{title(name)}, {n} features", "ensemble": name, "features": n}
            found.append(line | {"couplings": counts} | quantiles)
    return found


def write_reference(path: Path, curves: Sequence[Line]) -> None:
    """Writes the curves for reports, a line each; without any the file stays as it is."""
    if lines := [" " + json.dumps(curve) for curve in reference_curves(curves)]:
        path.write_text("[\n" + ",\n".join(lines) + "\n]\n", encoding="utf-8")
