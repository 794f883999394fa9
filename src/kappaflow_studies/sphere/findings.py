"""The results of the study, as sentences and tables."""

from typing import Any

import polars as pl

from kappaflow.report.numbers import significant
from kappaflow_studies.engine.report import Findings, Table
from kappaflow_studies.sphere.charts import (
    bound_chart,
    divergence_chart,
    family_chart,
    of_kind,
    stretch_chart,
    variation_chart,
    wasserstein_chart,
)
from kappaflow_studies.sphere.measure import SphereSettings


def findings(frame: pl.DataFrame, settings: SphereSettings) -> Findings:
    """Returns the charts, the tables and the sentences on them."""
    whole = _with_columns(frame)
    return Findings(
        found=[
            *_on_generators(whole),
            *(line for k, d in settings.mixtures for line in _on_flows(whole, k, d)),
            *_on_tearing(whole),
            *_on_families(whole, settings),
            *_on_counting(whole, settings),
        ],
        differs=[
            "The constants of the source's bound were not available; ours are derived "
            "on the page “Depth against parameters” of the documentation. With the whole "
            "flow Lipschitz they give k d / p up to a logarithm, the size of the generator over "
            "that of a layer, which we take for the source's k / p; with the layers alone "
            "Lipschitz, only its root.",
            "The source trains no flow to these mixtures, as far as we know: depths, budgets and "
            "steps are our own choice, and the steps are the same for all of them: what a deeper "
            "flow could reach in more is not measured.",
        ],
        charts=[
            divergence_chart(whole, settings),
            wasserstein_chart(whole, settings),
            variation_chart(whole, settings),
            stretch_chart(whole, settings),
            family_chart(whole, settings),
            bound_chart(whole, settings),
        ],
        tables=[_generators(whole), _best_flows(whole, settings)],
    )


def _on_generators(frame: pl.DataFrame) -> list[str]:
    """Returns the distance that generators reach, relative to the mean distance of two centers."""
    made = of_kind(frame, "generator").drop_nulls("wasserstein_bound")
    if made.is_empty():
        return []
    share = 100 * _number((made["wasserstein_bound"] / made["mean_distance"]).max())
    moved = significant(made["float32_gap"].max(), 2)
    return [
        "The generator of three linear layers is within "
        f"{significant(share, 2)} % of the mean distance of two centers of its mixture in W1, for "
        f"all of up to {made['components'].max():,} components in {made['features'].min()} to "
        f"{made['features'].max()} features: a bound, by the coupling through the same input. "
        f"Float32 moves its points by {moved} on average at most."
    ]


def _on_flows(frame: pl.DataFrame, k: int, d: int) -> list[str]:
    """Returns how the flows of one mixture change with depth, and compares the generator."""
    flows = of_kind(frame, "flow", k, d).drop_nulls("divergence")
    if flows.is_empty():
        return []
    parts = []
    for budget in sorted(flows["budget"].unique()):
        medians = _medians(flows.filter(pl.col("budget") == budget), "divergence")
        shallow, best = min(medians), min(medians, key=lambda depth: medians[depth])
        parts.append(
            f"{budget:,} parameters: {significant(medians[shallow])} at depth {shallow}, least "
            f"{significant(medians[best])} at depth {best}"
        )
    sentences = [f"{k} components in {d} features, divergence in nats. " + "; ".join(parts) + "."]
    made = of_kind(frame, "generator", k, d)
    if not made.is_empty():
        nearest = min(
            value
            for budget in flows["budget"].unique()
            for value in _medians(flows.filter(pl.col("budget") == budget), "two_sample").values()
        )
        floor = pl.concat([flows["floor"], made["floor"]]).median()
        sentences.append(
            "There, samples of the generator with its "
            f"{_number(made['numbers'].max()):,.0f} numbers are "
            f"{significant(made['two_sample'].median())} from samples of the mixture in W1, two "
            f"samples of the mixture {significant(floor)}, and samples of the best flow "
            f"{significant(nearest)}."
        )
    return sentences


def _on_tearing(frame: pl.DataFrame) -> list[str]:
    """Returns whether the measured total variation is above the bounds, and by how much."""
    flows = of_kind(frame, "flow").drop_nulls("tearing_bound")
    if flows.is_empty():
        return []
    kept = (flows["total_variation"] >= flows["tearing_bound"]).sum()
    share = 100 * (flows["tearing_bound"] / flows["total_variation"])
    text = (
        "The total variation that no flow of the measured steepness could avoid, since modes must "
        f"be pulled apart, is below the measured one in {kept} of {len(flows)} flows: "
        f"{significant(share.min(), 2)} to {significant(share.max(), 2)} % of it. "
        + _on_volume(_number(flows["volume_bound"].max()))
    )
    first, last = (int(_number(end)) for end in (flows["depth"].min(), flows["depth"].max()))
    if first != last:
        steep = _medians(flows, "stretch_to_data")
        text += (
            " Flows get steeper with depth: the median of the largest stretching is "
            f"{significant(steep[first])} at depth {first} and {significant(steep[last])} at "
            f"depth {last}."
        )
    return [text]


def _on_volume(most: float) -> str:
    """Returns the bound by the largest concentration that the flows allow."""
    if most == 0:
        return "All of them can concentrate enough: their volumes forbid nothing."
    return f"Their volumes forbid a total variation of at most {significant(most)}."


def _on_families(frame: pl.DataFrame, settings: SphereSettings) -> list[str]:
    """Returns whether the distances of random tuples agree with the prediction."""
    families = of_kind(frame, "family").drop_nulls("smallest")
    if families.is_empty():
        return []
    kept = (families["smallest"] >= families["predicted"]).sum()
    closest = 100 * _number((families["smallest"] / families["mean"]).min())
    most = families.sort("components", "features").row(-1, named=True)
    return [
        f"Of {settings.tuples} random tuples of means no two are closer than "
        f"{significant(closest, 2)} % of their mean distance, and none closer than predicted in "
        f"{kept} of {len(families)} families; for {most['components']} means in "
        f"{most['features']} features the smallest W1 is {significant(most['smallest'])}, "
        f"predicted {significant(most['predicted'])}."
    ]


def _on_counting(frame: pl.DataFrame, settings: SphereSettings) -> list[str]:
    """Returns the depth bound with its constants, and the affected layer sizes."""
    bounds = of_kind(frame, "bound").drop_nulls("min_depth")
    if bounds.is_empty():
        return []
    most = bounds.sort("min_parameters").row(-1, named=True)
    k, d = most["components"], most["features"]
    here = bounds.filter((pl.col("components") == k) & (pl.col("features") == d))
    depths = ", ".join(
        f"{int(row['min_depth'])} with {int(row['layer_size'])}"
        for row in here.sort("layer_size").to_dicts()
    )
    sentences = [
        f"With its constants the count asks most for {k:,} components in {d} features: "
        f"{significant(most['min_parameters'])} numbers of 32 bits, where the generator has "
        f"{int(most['generator_numbers']):,}. By the parameters of a layer it asks for these "
        f"depths: {depths}."
    ]
    if most["min_parameters"] < min(settings.budgets):
        sentences.append(
            f"The smallest flow trained here has {min(settings.budgets):,} numbers: the theorem "
            "separates layers that are much smaller than the mixture, not flows of such a size."
        )
    return sentences


def _number(value: Any) -> float:  # noqa: ANN401 - polars types what a column comes to as anything
    """Returns the value of an aggregated column as a number."""
    return float(value)


def _medians(flows: pl.DataFrame, column: str) -> dict[int, float]:
    """Returns the median of a column at each depth."""
    found = flows.group_by("depth").agg(pl.col(column).median()).sort("depth")
    return dict(zip(found["depth"].to_list(), found[column].to_list(), strict=True))


def _generators(frame: pl.DataFrame) -> Table:
    """Returns a table of the generators."""
    measured = [pl.col(column).mean() for column in COLUMNS["generator"]]
    made = of_kind(frame, "generator").drop_nulls("wasserstein_bound")
    made = made.group_by("features", "components").agg(measured)
    rows = [
        [
            f"{row['components']} components, {row['features']} features",
            f"{row['hidden_units']:,.0f}",
            f"{row['numbers']:,.0f}",
            f"{significant(100 * row['wasserstein_bound'] / row['mean_distance'], 2)} %",
            significant(row["two_sample"]),
            significant(row["floor"]),
            significant(row["float32_gap"], 2),
        ]
        for row in made.sort("features", "components").to_dicts()
    ]
    return Table(
        title="Generators",
        columns=[
            "mixture",
            "hidden units",
            "numbers",
            "W1, at most",
            "samples",
            "floor",
            "float32",
        ],
        rows=rows,
        caption=(
            "W1 to the mixture at most, in per cent of the mean distance of two centers; W1 of "
            "its samples from samples of the mixture, and of two samples of the mixture; how far "
            "float32 moves a point on average."
        ),
    )


def _best_flows(frame: pl.DataFrame, settings: SphereSettings) -> Table:
    """Returns a table of the best depth for each mixture and budget."""
    rows = []
    for k, d in settings.mixtures:
        for budget in sorted(settings.budgets):
            flows = of_kind(frame, "flow", k, d).filter(pl.col("budget") == budget)
            medians = _medians(flows.drop_nulls("divergence"), "divergence")
            if not medians:
                continue
            best = min(medians, key=lambda depth: medians[depth])
            at = flows.filter(pl.col("depth") == best).median()
            rows.append([
                f"{k} components, {d} features, {budget:,}",
                str(best),
                f"{at['parameters'].item():,.0f}",
                *(
                    significant(at[column].item())
                    for column in (
                        "divergence",
                        "two_sample",
                        "total_variation",
                        "tearing_bound",
                        "stretch_to_data",
                        "condition_number_median",
                    )
                ),
            ])
    return Table(
        title="The best depth at each budget",
        columns=[
            "flow",
            "depth",
            "parameters",
            "divergence",
            "W1",
            "total variation",
            "forbidden",
            "stretching",
            "condition number",
        ],
        rows=rows,
        caption=(
            "Medians. Forbidden: the lower bound on the total variation at this stretching. The "
            "condition number is the median over 512 samples of the flow."
        ),
    )


COLUMNS = {
    "flow": (
        "depth",
        "budget",
        "divergence",
        "two_sample",
        "floor",
        "total_variation",
        "tearing_bound",
        "stretch_to_data",
        "volume_bound",
        "parameters",
        "condition_number_median",
    ),
    "generator": (
        "numbers",
        "hidden_units",
        "wasserstein_bound",
        "mean_distance",
        "two_sample",
        "floor",
        "float32_gap",
    ),
    "family": ("smallest", "mean", "smallest_of_mixtures", "nearest", "predicted"),
    "bound": ("min_depth", "min_parameters", "layer_size", "generator_numbers"),
}


def _with_columns(frame: pl.DataFrame) -> pl.DataFrame:
    """Returns the table with all columns that are read, filled with nulls if no case has them."""
    expected = dict.fromkeys(name for names in COLUMNS.values() for name in names)
    missing = [name for name in expected if name not in frame.columns]
    return frame.with_columns(*(pl.lit(None, pl.Float64).alias(name) for name in missing))
