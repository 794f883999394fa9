"""The results of the study, as sentences and tables."""

import polars as pl

from kappaflow.report.numbers import fixed, significant, with_error
from kappaflow_studies.engine.charts import ends, groups, ranged
from kappaflow_studies.engine.report import Findings, Table
from kappaflow_studies.universal.approximation import PowerLaw, power_law
from kappaflow_studies.universal.charts import Powers, Tables, charts
from kappaflow_studies.universal.measure import UniversalSettings
from kappaflow_studies.universal.targets import TARGETS

GOAL = 0.02  # value of the bound on W2 that a sentence reports on
FOUND_AGAIN = 1e-2  # largest error of a normal sample that counts as recovered
FITTED = ("sigma_min", "sigma_max", "bound")


def findings(frame: pl.DataFrame, settings: UniversalSettings) -> Findings:
    """Returns the charts, the tables and the sentences on them."""
    errors = frame.filter(what="error").sort("epsilon")
    tables = groups(errors, "target", settings.targets)
    powers = {name: _powers(table) for name, table in tables.items() if len(table) >= 3}
    return Findings(
        found=[
            _on_error(errors),
            *_on_exponent(powers),
            *_on_two_samples(errors),
            *_on_float64(tables),
        ],
        differs=[
            "The source proves that such couplings exist and makes no experiment with them; the "
            "sizes of the construction are ours.",
            "The map from a normal to the target is the target's own formula here, and one more "
            "ReLU network in the source.",
            "The source says that the smallest singular value scales like its epsilon; in our "
            "form, with epsilon the allowed error, it scales like the fourth power.",
        ],
        charts=charts(tables, powers, frame.filter(what="picture"), settings),
        tables=[_exponents(powers), _numbers(errors)],
    )


def _powers(table: pl.DataFrame) -> dict[str, PowerLaw]:
    x = table["epsilon"].to_list()
    return {column: power_law(x, table[column].to_list()) for column in FITTED}


def _exponents(powers: Powers) -> Table:
    rows = [[name, *(_interval(laws[one]) for one in FITTED)] for name, laws in powers.items()]
    return Table(
        title="Exponents of the allowed error",
        columns=["target", "smallest singular value", "largest singular value", "bound on W2"],
        rows=rows,
        caption="Least squares on logarithms, with the interval of 95 %.",
    )


def _interval(power: PowerLaw) -> str:
    return ranged(*(fixed(round(v, 2) + 0.0, 2) for v in (power.exponent, power.low, power.high)))


def _numbers(errors: pl.DataFrame) -> Table:
    shown = ("unseen", "two_sample_w2", "floor", "sigma_min", "sigma_max")
    rows = [
        [
            f"{row['target']}, {row['epsilon']:g}",
            with_error(row["bound"], row["standard_error"])
            if row["bound"] > 1e-3
            else significant(row["bound"], 2),
            *(significant(row[column], 2) for column in shown),
            significant(int(row["hidden_layers"])),
        ]
        for row in errors.sort("target", "epsilon", descending=[False, True]).to_dicts()
    ]
    return Table(
        title="All numbers",
        columns=[
            "target, allowed error", "bound on W2", "of it unseen", "two samples", "their floor",
            "smallest singular value", "largest", "hidden layers",
        ],
        rows=rows,
        caption="Unseen: the part of the bound that a sample cannot show. Singular values are "
        "medians. Hidden layers: of the network that rounds the input.",
    )  # fmt: skip


def _on_error(errors: pl.DataFrame) -> str:
    surely = pl.col("bound") + 3 * pl.col("standard_error")
    below = errors.filter(surely < GOAL)["target"].unique().to_list()
    planar = sum(TARGETS[name].features == 2 for name in below)
    kept = errors.filter(pl.col("bound") < pl.col("epsilon"))
    least = max(kept.group_by("target").agg(pl.col("epsilon").min())["epsilon"], default=None)
    number = errors["target"].n_unique()
    share = ""
    if least is not None:
        at = errors.filter(pl.col("epsilon") >= least)
        largest = significant(max(at["bound"] / at["epsilon"]), 2)
        share = f"; it is at most {largest} of the allowed error, down to {significant(least, 1)}"
    return (
        f"{'Confirmed' if len(below) == number else 'In part'}: the bound on W2 falls below "
        f"{GOAL:g} for {planar} planar targets and {len(below) - planar} in four or more "
        f"dimensions, of {number} in all{share}."
    )


def _on_exponent(powers: Powers) -> list[str]:
    if not powers:
        return []
    smallest = [power["sigma_min"] for power in powers.values()]
    largest = [abs(power["sigma_max"].exponent) for power in powers.values()]
    low, high = min(power.low for power in smallest), max(power.high for power in smallest)
    exponents = [power.exponent for power in smallest]
    return [
        "The smallest singular value falls like a power of the error, with an exponent from "
        f"{fixed(min(exponents), 2)} to {fixed(max(exponents), 2)} over the targets (95 % "
        f"intervals between {fixed(low, 2)} and {fixed(high, 2)}); the derivation says 4, and a "
        f"logarithm. The largest one stays: its exponents are within {fixed(max(largest), 2)} of "
        "zero."
    ]


def _on_two_samples(errors: pl.DataFrame) -> list[str]:
    compared = errors.drop_nulls("two_sample_w2")
    if compared.is_empty():
        return []
    excess = (compared["two_sample_w2"] - compared["floor"]).abs() - compared["bound"]
    agree = (excess <= compared["floor"] / 2).sum()
    return [
        f"Two samples agree with the bound in {agree} of {len(compared)} comparisons: their W2 "
        "differs from the floor by at most the bound and half of the floor, which is "
        f"{ends(compared['floor'], 2)}."
    ]


def _on_float64(tables: Tables) -> list[str]:
    lost, drawn = [], []
    for table in tables.values():
        lost += table.filter(pl.col("round_trip") > FOUND_AGAIN)["epsilon"].to_list()[-1:]
        drawn += table.filter(pl.col("bound") < pl.col("epsilon"))["epsilon"].to_list()[:1]
    if not lost or not drawn:
        return []
    return [
        f"float64 loses the inverse, and with it the density: for {len(lost)} of {len(tables)} "
        f"targets, samples are not recovered at an error of {significant(max(lost), 1)} or less. "
        f"Sampling works: the bound is below the allowed error even at "
        f"{significant(max(drawn), 1)} for each target."
    ]
