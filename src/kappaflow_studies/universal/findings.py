"""The results of the study, as sentences and tables."""

import polars as pl

from kappaflow.report.numbers import fixed, significant, with_error
from kappaflow_studies.engine.charts import ends, filled, groups, ranged
from kappaflow_studies.engine.report import StudyFindings, StudyTable
from kappaflow_studies.universal.approximation import PowerLaw, power_law
from kappaflow_studies.universal.charts import Powers, Tables, charts
from kappaflow_studies.universal.measure import FORMS, UniversalSettings
from kappaflow_studies.universal.targets import TARGETS

GOAL = 0.02  # value of the bound on W2 that a sentence reports on
RECOVERY_TOLERANCE = 1e-2  # largest error of a normal sample that counts as recovered
FITTED = ("sigma_min", "sigma_max", "bound")


def findings(frame: pl.DataFrame, settings: UniversalSettings) -> StudyFindings:
    """Returns the charts, the tables and the sentences on them."""
    frame = filled(frame, {pl.String: ["form"], pl.Int64: ["steps", "digits", "couplings"]})
    errors = frame.filter(what="error").sort("epsilon")
    tables = groups(errors, "target", settings.targets)
    triangular = frame.filter(what="triangular").sort("epsilon")
    divergence = frame.filter(what="divergence")
    powers = {name: _powers(table) for name, table in tables.items() if len(table) >= 3}
    return StudyFindings(
        found=[
            _on_error(errors),
            *_on_exponent(powers),
            *_on_triangular(triangular),
            *_on_densities(errors, triangular),
            *_on_divergence(divergence),
            *_on_every_point(frame.filter(what="every point")),
            *_on_two_samples(errors),
            *_on_float64(tables),
        ],
        differs=[
            "The source proves that such couplings exist and makes no experiment with them; the "
            "sizes of the construction are ours.",
            "The map from a normal to the target is the target's own formula here, and one more "
            "ReLU network in the source.",
            "The source says that the smallest singular value scales like its epsilon; in our "
            "form for any map, with epsilon the allowed error, it scales like the fourth power.",
            "The constructions with a triangular map and with boxes are not in the source, nor is "
            "a fourth coupling.",
        ],
        charts=charts(tables, powers, frame, settings),
        tables=[
            _exponents(powers),
            _numbers(errors),
            _triangular_numbers(triangular),
            _divergences(divergence),
        ],
    )


def _powers(table: pl.DataFrame) -> dict[str, PowerLaw]:
    x = table["epsilon"].to_list()
    return {column: power_law(x, table[column].to_list()) for column in FITTED}


def _exponents(powers: Powers) -> StudyTable:
    rows = [[name, *(_interval(laws[key]) for key in FITTED)] for name, laws in powers.items()]
    return StudyTable(
        title="Exponents of the allowed error",
        columns=["target", "smallest singular value", "largest singular value", "bound on W2"],
        rows=rows,
        caption="Least squares on logarithms, with the interval of 95 %.",
    )


def _interval(power: PowerLaw) -> str:
    return ranged(*(fixed(round(v, 2) + 0.0, 2) for v in (power.exponent, power.low, power.high)))


def _numbers(errors: pl.DataFrame) -> StudyTable:
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
    return StudyTable(
        title="All numbers",
        columns=[
            "target, allowed error", "bound on W2", "of it unseen", "two samples", "their floor",
            "smallest singular value", "largest", "hidden layers",
        ],
        rows=rows,
        caption="Unseen: the part of the bound that a sample cannot show. Singular values are "
        "medians. Hidden layers: of the network that rounds the input.",
    )  # fmt: skip


def _triangular_numbers(rows: pl.DataFrame) -> StudyTable:
    rows = rows.sort("target", "form", "epsilon", descending=[False, False, True])
    shown = ("bound", "total_variation", "sigma_min_low", "sigma_min", "sigma_max", "round_trip")
    return StudyTable(
        title="With a triangular map",
        columns=[
            "target, couplings, allowed error", "bound on W2", "total variation",
            "smallest singular value, 5 %", "median", "largest", "there and back",
        ],
        rows=[
            [
                f"{row['target']}, {FORMS[row['form']]}, {row['epsilon']:g}",
                *(significant(row[column], 2) for column in shown),
            ]
            for row in rows.to_dicts()
        ],
        caption="There and back: the median distance between normal samples and their "
        "reconstructions.",
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
        rows = errors.filter(pl.col("epsilon") >= least)
        largest = significant(max(rows["bound"] / rows["epsilon"]), 2)
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
        "For any map, the smallest singular value falls like a power of the error, with an "
        f"exponent from {fixed(min(exponents), 2)} to {fixed(max(exponents), 2)} (95 % "
        f"intervals between {fixed(low, 2)} and {fixed(high, 2)}); the derivation says 4, and a "
        f"logarithm. The largest one stays: its exponents are within {fixed(max(largest), 2)} of "
        "zero."
    ]


def _on_triangular(rows: pl.DataFrame) -> list[str]:
    """Returns the exponents with three and with four couplings, for a triangular map."""
    sentences = []
    derived = (("triangular, 3", "three", "1/2 and 1"), ("triangular, 4", "four", "0 for both"))
    for form, number, exponents in derived:
        of_form = rows.filter(form=form)
        tables = groups(of_form, "target", of_form["target"].unique(maintain_order=True))
        planar, more = [], []
        for name, table in tables.items():
            if len(table) >= 3:
                law = power_law(table["epsilon"].to_list(), table["sigma_min"].to_list())
                (planar if TARGETS[name].features == 2 else more).append(law.exponent)
        known = [(planar, "for two features"), (more, "for more")]
        measured = " and ".join(
            f"{_fixed_ends(values)} {features}" for values, features in known if values
        )
        if not measured:
            return []
        kept = (of_form["bound"] < of_form["epsilon"]).sum()
        sentences.append(
            f"With a triangular map, {number} couplings have the exponent {measured}; the "
            f"derivation says {exponents}, "
            f"up to logarithms. The bound on W2 is below the allowed error in {kept} of "
            f"{len(of_form)} cases."
        )
    return sentences


def _fixed_ends(values: list[float]) -> str:
    low, high = (fixed(round(end(values), 2) + 0.0, 2) for end in (min, max))
    return low if low == high else f"{low} to {high}"


def _on_densities(errors: pl.DataFrame, triangular: pl.DataFrame) -> list[str]:
    """Returns the distances of the densities at the smallest error of both constructions."""
    four = triangular.filter(form="triangular, 4")
    if four.is_empty():
        return []
    finest = four.filter(epsilon=four["epsilon"].min())
    three = errors.filter(epsilon=finest["epsilon"][0])
    sentence = (
        "Four couplings also have the right density: at an allowed error of "
        f"{significant(finest['epsilon'][0], 1)} the total variation distance from the target's "
        f"is at most {significant(max(finest['total_variation']), 2)}"
    )
    if not three.is_empty():
        least = significant(min(three["total_variation"]), 3)
        sentence += f"; three couplings for any map have at least {least}, with 1 the largest"
    back = significant(max(finest["round_trip"]), 1)
    return [f"{sentence}. Normal samples are recovered to within {back} (median)."]


def _divergences(rows: pl.DataFrame) -> StudyTable:
    return StudyTable(
        title="Divergence",
        columns=[
            "target, couplings, cells", "KL", "proved: between", "and", "bound of the theorem",
            "condition number",
        ],
        rows=[
            [
                f"{row['target']}, {row['couplings']}, {2 ** row['digits']} on "
                f"[-{row['reach']:g}, {row['reach']:g}]",
                with_error(row["kl"], row["kl_error"]),
                *(
                    significant(max(0.0, row["kl_middle"] + sign * row["kl_slack"]), 3)
                    for sign in (-1, 1)
                ),
                *(significant(row[column], 3) for column in ("kl_bound", "condition_number")),
            ]
            for row in rows.to_dicts()
        ],
        caption="KL(Q | flow) in nats, from samples of the target, with its standard error. The "
        "condition number is the median over normal samples.",
    )  # fmt: skip


def _on_divergence(rows: pl.DataFrame) -> list[str]:
    """Returns KL(Q | g) on the finest grid, next to its proved bound."""
    if rows.is_empty():
        return []
    finest = rows.filter(digits=rows["digits"].max())
    four, three = (finest.filter(couplings=number) for number in (4, 3))
    listed = ", ".join(
        f"{significant(row['kl'], 2)} ± {significant(row['kl_error'], 1)} of at most "
        f"{significant(row['kl_bound'], 2)} ({row['target']})"
        for row in four.to_dicts()
    )
    away = (rows["kl"] - rows["kl_middle"]).abs() - rows["kl_slack"] - 3 * rows["kl_error"]
    sentences = [
        f"In KL(Q | flow), the training loss, four couplings with {2 ** four['digits'][0]} cells "
        f"for each feature have {listed} nats. KL is between its proved bounds, within three "
        f"standard errors, in {(away <= 0).sum()} of {len(rows)} cases."
    ]
    if three.is_empty():
        return sentences
    row = three.to_dicts()[0]
    return [
        *sentences,
        f"For the uniform square three couplings have the same KL, "
        f"{significant(row['kl'], 2)} ± {significant(row['kl_error'], 1)} nats, at a median "
        f"condition number of {significant(row['condition_number'], 2)}; with four it is "
        f"{significant(four.filter(target='square')['condition_number'][0], 2)}.",
    ]


def _on_every_point(table: pl.DataFrame) -> list[str]:
    if table.is_empty():
        return []
    last = table.sort("couplings").to_dicts()[-1]
    return [
        f"At every point, {last['couplings']:,} couplings are within "
        f"{significant(last['error'], 2)} of a map that no single coupling contains, with a "
        f"condition number of at most {significant(last['condition_number'], 3)}; that of the map "
        "is 2.72."
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
    lost, reached = [], []
    for table in tables.values():
        lost += table.filter(pl.col("round_trip") > RECOVERY_TOLERANCE)["epsilon"].to_list()[-1:]
        reached += table.filter(pl.col("bound") < pl.col("epsilon"))["epsilon"].to_list()[:1]
    if not lost or not reached:
        return []
    return [
        "float64 loses the inverse of three couplings for any map, and with it the density: for "
        f"{len(lost)} of {len(tables)} targets, samples are not recovered at an error of "
        f"{significant(max(lost), 1)} or less. Sampling works: the bound is below the allowed "
        f"error even at {significant(max(reached), 1)} for each target."
    ]
