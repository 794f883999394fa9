"""The results of the study, as sentences and tables."""

import polars as pl

from kappaflow.report.numbers import fixed, significant, with_error
from kappaflow_studies.engine.report import Findings, Table
from kappaflow_studies.universal.approximation import PowerLaw, power_law
from kappaflow_studies.universal.charts import Powers, Tables, charts
from kappaflow_studies.universal.measure import UniversalSettings
from kappaflow_studies.universal.targets import TARGETS


def exponents(tables: Tables, powers: Powers) -> Table:
    """Returns a table of the fitted exponents, with a row for each distribution."""
    rows = []
    for name in tables:
        if name not in powers:
            continue
        smallest, largest, bound = (powers[name][c] for c in ("sigma_min", "sigma_max", "bound"))
        rows.append([name, _interval(smallest), _interval(largest), _interval(bound)])
    return Table(
        title="Exponents of the allowed error",
        columns=["target", "smallest singular value", "largest singular value", "bound on W2"],
        rows=rows,
        caption="Least squares on logarithms, with the interval of 95 %.",
    )


def _interval(power: PowerLaw) -> str:
    middle, low, high = (
        fixed(round(v, 2) + 0.0, 2) for v in (power.exponent, power.low, power.high)
    )
    return f"{middle} ({low} to {high})"


def numbers(errors: pl.DataFrame) -> Table:
    """Returns a table of the measurements, with a row for each distribution and error."""
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
            "target, allowed error",
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


GOAL = 0.02  # value of the bound on W2 that a sentence reports on
FOUND_AGAIN = 1e-2  # largest error of a normal sample that counts as recovered


def findings(frame: pl.DataFrame, settings: UniversalSettings) -> Findings:
    """Returns the charts, the tables and the sentences on them."""
    errors = frame.filter(pl.col("what") == "error").sort("epsilon")
    pictures = frame.filter(pl.col("what") == "picture")
    tables = {name: errors.filter(pl.col("target") == name) for name in settings.targets}
    powers = {name: _powers(table) for name, table in tables.items() if len(table) >= 3}
    return Findings(
        found=[
            _on_error(errors),
            *_on_exponent(powers),
            *_on_two_samples(errors),
            *_on_float64(tables),
        ],
        differs=[
            "The source proves that such couplings exist, and has no experiment with them. The "
            "construction follows its sketch; its sizes are ours.",
            "The shifts are ReLU networks, except for the map from a normal to the target: here "
            "it is the target's own formula, and one more ReLU network in the source.",
            "The bound takes the same normal draw on both sides, so that it has no noise floor. "
            "The two-sample distance is a check only: it is the exact optimal "
            "pairing of two samples, and cannot fall below that of two samples of one target.",
        ],
        charts=charts(tables, powers, pictures, settings),
        tables=[exponents(tables, powers), numbers(errors)],
    )


def _powers(table: pl.DataFrame) -> dict[str, PowerLaw]:
    """Returns the fitted power law in the error for each column."""
    x = table["epsilon"].to_list()
    columns = ("sigma_min", "sigma_max", "bound")
    return {column: power_law(x, table[column].to_list()) for column in columns}


def _on_error(errors: pl.DataFrame) -> str:
    surely = pl.col("bound") + 3 * pl.col("standard_error")
    below = errors.filter(surely < GOAL)["target"].unique().to_list()
    planar = sum(TARGETS[name].features == 2 for name in below)
    kept = errors.filter(pl.col("bound") < pl.col("epsilon"))
    least = max(kept.group_by("target").agg(pl.col("epsilon").min())["epsilon"], default=None)
    return (
        f"The bound on W2 falls below {GOAL:g} for {planar} planar targets and "
        f"{len(below) - planar} in four or more dimensions, of {errors['target'].n_unique()} in "
        f"all{_share(errors, least)}."
    )


def _share(errors: pl.DataFrame, least: float | None) -> str:
    """Returns the ratio of bound to allowed error, from the smallest error that all meet."""
    if least is None:
        return ""
    at = errors.filter(pl.col("epsilon") >= least)
    largest = max((at["bound"] / at["epsilon"]).to_list())
    return (
        f"; it is at most {significant(largest, 2)} of the error that was allowed, from "
        f"{significant(least, 1)} on"
    )


def _on_exponent(powers: Powers) -> list[str]:
    if not powers:
        return []
    smallest = [power["sigma_min"] for power in powers.values()]
    largest = [abs(power["sigma_max"].exponent) for power in powers.values()]
    low, high = min(power.low for power in smallest), max(power.high for power in smallest)
    return [
        "The smallest singular value falls like the error to the power a, with a from "
        f"{fixed(min(power.exponent for power in smallest), 2)} to "
        f"{fixed(max(power.exponent for power in smallest), 2)} over the targets; the intervals "
        f"of 95 % lie between {fixed(low, 2)} and {fixed(high, 2)}. The derivation says 4, and a "
        "little more for the logarithm in the bound on the inputs.",
        "The largest one hardly moves: its exponents are within "
        f"{fixed(max(largest), 2)} of zero. The condition number has the exponent of the "
        "smallest.",
    ]


def _on_two_samples(errors: pl.DataFrame) -> list[str]:
    compared = errors.drop_nulls("two_sample_w2")
    if compared.is_empty():
        return []
    excess = (compared["two_sample_w2"] - compared["floor"]).abs() - compared["bound"]
    beyond = (excess > compared["floor"] / 2).sum()
    return [
        f"Two samples do not contradict the bound: in {len(compared) - beyond} of {len(compared)} "
        "comparisons their distance is within the bound, and half of the floor, of the floor, "
        f"which is {significant(compared['floor'].min(), 2)} to "
        f"{significant(compared['floor'].max(), 2)}."
    ]


def _on_float64(tables: Tables) -> list[str]:
    lost, drawn = [], []
    for table in tables.values():
        missed = table.filter(pl.col("round_trip") > FOUND_AGAIN)["epsilon"]
        kept = table.filter(pl.col("bound") < pl.col("epsilon"))["epsilon"]
        lost += missed.to_list()[-1:]
        drawn += kept.to_list()[:1]
    if not lost or not drawn:
        return []
    return [
        f"In float64 the inverse is lost, and with it the density: for {len(lost)} of "
        f"{len(tables)} targets, samples are not recovered at an error of "
        f"{significant(max(lost), 1)}, or less. Sampling still works: the bound is below the "
        f"allowed error even at {significant(max(drawn), 1)} for each target."
    ]
