"""Writes the curves that reports of factorizations compare with: python docs/factor_reference.py.

They come from docs/experiments/factor-tradeoff/results.parquet: of each ensemble and size with
enough draws at each number of couplings.
"""

import json
from pathlib import Path

import polars as pl

from kappaflow_studies.factor_tradeoff import title
from kappaflow_studies.factors.trade_off import REFERENCE_FILE

RESULTS = Path(__file__).parent / "experiments" / "factor-tradeoff" / "results.parquet"
ENOUGH = 5  # draws for quartiles that mean something
QUANTILES = {"low": 0.25, "median": 0.5, "high": 0.75}


def references() -> str:
    """Returns the text of the file: a line for each ensemble and size."""
    frame = pl.read_parquet(RESULTS).drop_nulls("condition_number")
    counts = sorted(frame["couplings"].unique())
    lines = []
    for (ensemble, n), here in frame.group_by("ensemble", "n", maintain_order=True):
        value = pl.col("condition_number")
        quantiles = (value.quantile(q, "linear").alias(key) for key, q in QUANTILES.items())
        of_count = here.group_by("couplings").agg(pl.len().alias("draws"), *quantiles)
        of_count = of_count.filter(pl.col("draws") >= ENOUGH).sort("couplings")
        if of_count["couplings"].to_list() != counts:
            continue
        line = {
            "name": f"{title(str(ensemble))}, {n} features",
            "features": n,
            "of_the_map": _rounded(here["of_the_map"].median()),
            "couplings": counts,
            **{key: [_rounded(value) for value in of_count[key]] for key in QUANTILES},
        }
        lines.append((n, str(ensemble), line))
    ordered = [json.dumps(line) for _, _, line in sorted(lines, key=lambda one: one[:2])]
    return "[\n" + ",\n".join(" " + line for line in ordered) + "\n]\n"


def _rounded(value: float) -> float:
    return float(f"{value:.3g}")


if __name__ == "__main__":
    REFERENCE_FILE.write_text(references(), "utf-8")
    print(f"Wrote {REFERENCE_FILE}")
