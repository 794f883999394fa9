"""The tables of the constructions: exponents, and all numbers."""

import polars as pl

from kappaflow.report.numbers import fixed, significant, with_error
from kappaflow_studies.engine.study_content import Table
from kappaflow_studies.universal.charts import Laws, Tables
from kappaflow_studies.universal.power import PowerLaw


def exponents(tables: Tables, laws: Laws) -> Table:
    """Returns the fitted exponents, a row for each law."""
    rows = []
    for name in tables:
        if name not in laws:
            continue
        smallest, largest, bound = (laws[name][c] for c in ("sigma_min", "sigma_max", "bound"))
        rows.append([name, _interval(smallest), _interval(largest), _interval(bound)])
    return Table(
        title="Exponents of the allowed error",
        columns=["law", "smallest singular value", "largest singular value", "bound on W2"],
        rows=rows,
        caption="Least squares on logarithms, with the interval of 95 %.",
    )


def _interval(law: PowerLaw) -> str:
    middle, low, high = (fixed(round(v, 2) + 0.0, 2) for v in (law.exponent, law.low, law.high))
    return f"{middle} ({low} to {high})"


def numbers(errors: pl.DataFrame) -> Table:
    """Returns what was measured, a row for each law and error."""
    rows = []
    for row in errors.sort("target", "epsilon", descending=[False, True]).iter_rows(named=True):
        rows.append([
            f"{row['target']}, {row['epsilon']:g}",
            with_error(row["bound"], row["standard_error"])
            if row["bound"] > 1e-3
            else significant(row["bound"], 2),
            significant(row["unseen"], 2),
            significant(row["two_sample_w2"], 2),
            significant(row["floor"], 2),
            significant(row["sigma_min"], 2),
            significant(row["sigma_max"], 2),
            significant(int(row["hidden_layers"])),
        ])
    return Table(
        title="All numbers",
        columns=[
            "law, allowed error",
            "bound on W2",
            "of it unseen",
            "two samples",
            "their floor",
            "smallest singular value",
            "largest",
            "hidden layers",
        ],
        rows=rows,
        caption="Unseen: the root of what a sample cannot show, and the bound contains. Singular "
        "values are medians. Hidden layers are those of the network that rounds the input.",
    )
