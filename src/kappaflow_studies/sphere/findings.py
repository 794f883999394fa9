"""The results of the study, as sentences, charts and tables."""

import polars as pl

from kappaflow.report.charts import Chart, Series, SeriesKind
from kappaflow.report.numbers import significant
from kappaflow_studies.engine.charts import (
    ends,
    filled,
    level_series,
    median,
    panel,
    quantile_series,
)
from kappaflow_studies.engine.report import StudyFindings, StudyTable
from kappaflow_studies.sphere.bounds import transport_divergence
from kappaflow_studies.sphere.measure import SphereSettings


def findings(frame: pl.DataFrame, settings: SphereSettings) -> StudyFindings:
    """Returns the charts, the tables and the sentences on them."""
    frame = filled(frame, {pl.Float64: COLUMNS})
    generators = of_kind(frame, "generator").drop_nulls("wasserstein_bound")
    return StudyFindings(
        found=[
            *_on_generators(generators),
            *_on_counting(frame, settings),
            *(line for k, d in settings.mixtures for line in _on_flows(frame, k, d)),
            *_on_transport(of_kind(frame, "flow").drop_nulls("divergence")),
            *_on_tearing(of_kind(frame, "flow").drop_nulls("tearing_bound")),
            *_on_families(frame, settings),
        ],
        differs=[
            "The constants are ours, not the source's. With the whole flow Lipschitz they give "
            "k d / p up to a logarithm, with the layers alone only its root.",
            "As far as we know the source trains no such flow.",
        ],
        charts=charts(frame, settings),
        tables=[_generators(generators), _best_flows(frame, settings)],
    )


def _on_generators(generators: pl.DataFrame) -> list[str]:
    if generators.is_empty():
        return []
    share = 100 * max(generators["wasserstein_bound"] / generators["mean_distance"])
    return [
        f"Three linear layers generate the mixture to within {significant(share, 2)} % of the "
        "mean distance of two of its centers in W1, by a proved bound, for up to "
        f"{generators['components'].max():,} components in {generators['features'].min()} to "
        f"{generators['features'].max()} features. Float32 moves their points by at most "
        f"{significant(generators['float32_gap'].max(), 2)} on average."
    ]


def _on_counting(frame: pl.DataFrame, settings: SphereSettings) -> list[str]:
    bounds = of_kind(frame, "bound").drop_nulls("min_depth")
    if bounds.is_empty():
        return []
    most = bounds.sort("min_parameters").row(-1, named=True)
    k, d, smallest = most["components"], most["features"], min(settings.budgets)
    depths = ", ".join(
        f"{int(row['min_depth'])} with {int(row['layer_size'])}"
        for row in of_kind(bounds, "bound", k, d).sort("layer_size").to_dicts()
    )
    missed = settings.distance / 4
    either = [
        significant(transport_divergence(missed, constant), 2)
        for constant in (1 + settings.sigma**2, settings.whole_lipschitz**2)
    ]
    sentences = [
        f"By counting, flows for {k:,} components in {d} features need "
        f"{significant(most['min_parameters'])} numbers of 32 bits, where the generator has "
        f"{int(most['generator_numbers']):,}; the depth by the parameters of a layer: {depths}. "
        f"Shallower flows miss some mixture by {significant(missed, 2)} in W1, so KL(flow | "
        f"mixture) is at least {either[0]} nats and KL(mixture | flow) at least {either[1]}."
    ]
    if most["min_parameters"] < smallest:
        sentences.append(
            f"The smallest flow trained here has {smallest:,} numbers: the theorem is about much "
            "smaller layers, not about such flows."
        )
    return sentences


def _on_flows(frame: pl.DataFrame, k: int, d: int) -> list[str]:
    flows = of_kind(frame, "flow", k, d).drop_nulls("divergence")
    if flows.is_empty():
        return []
    budgets = {budget: flows.filter(budget=budget) for budget in sorted(flows["budget"].unique())}
    parts = []
    for budget, rows in budgets.items():
        medians = _medians(rows, "divergence")
        shallow, best = min(medians), min(medians, key=lambda depth: medians[depth])
        parts.append(
            f"{budget:,} parameters: {significant(medians[shallow])} at depth {shallow}, least "
            f"{significant(medians[best])} at depth {best}"
        )
    sentences = [f"{k} components in {d} features, divergence in nats. {'; '.join(parts)}."]
    generators = of_kind(frame, "generator", k, d)
    if not generators.is_empty():
        nearest = min(
            value for rows in budgets.values() for value in _medians(rows, "two_sample").values()
        )
        floor = median(pl.concat([flows["floor"], generators["floor"]]))
        sentences.append(
            "There, W1 of samples: the generator, with its "
            f"{max(generators['numbers']):,.0f} numbers, "
            f"{significant(median(generators['two_sample']))}, two samples of the mixture "
            f"{significant(floor)}, the best flow {significant(nearest)}."
        )
    return sentences


def _on_transport(flows: pl.DataFrame) -> list[str]:
    """Returns how the divergence compares with what the distance of samples implies."""
    if flows.is_empty():
        return []
    columns = ("two_sample", "floor", "stretch_to_data", "divergence")
    shares = [
        transport_divergence(max(0.0, w1 - floor), steep**2) / divergence
        for w1, floor, steep, divergence in flows.select(columns).iter_rows()
    ]
    return [
        "KL(mixture | flow) is at least W1^2 / 2 L^2 for L-Lipschitz flows. With the measured W1 "
        "above its floor and the measured stretching this is at most "
        f"{significant(100 * max(shares), 2)} % of the measured divergence; it holds in "
        f"{sum(share <= 1 for share in shares)} of {len(shares)} flows."
    ]


def _on_tearing(flows: pl.DataFrame) -> list[str]:
    if flows.is_empty():
        return []
    kept = (flows["total_variation"] >= flows["tearing_bound"]).sum()
    share = 100 * (flows["tearing_bound"] / flows["total_variation"])
    volume = max(flows["volume_bound"])
    texts = [
        "The total variation that no flow of the measured steepness can avoid is below the "
        f"measured one in {kept} of {len(flows)} flows: {ends(share, 2)} % of it.",
        "The volume bound forbids "
        + (f"at most {significant(volume)}." if volume else "nothing."),
    ]
    steep = _medians(flows, "stretch_to_data")
    first, last = min(steep), max(steep)
    if first != last:
        texts.append(
            "Flows get steeper with depth: the median of the largest stretching is "
            f"{significant(steep[first])} at depth {first} and {significant(steep[last])} at "
            f"depth {last}."
        )
    return [" ".join(texts)]


def _on_families(frame: pl.DataFrame, settings: SphereSettings) -> list[str]:
    families = of_kind(frame, "family").drop_nulls("smallest")
    if families.is_empty():
        return []
    kept = (families["smallest"] >= families["predicted"]).sum()
    closest = 100 * min(families["smallest"] / families["mean"])
    most = families.sort("components", "features").row(-1, named=True)
    return [
        f"No two of {settings.tuples} random tuples of means are closer than "
        f"{significant(closest, 2)} % of their mean distance, or closer than predicted in {kept} "
        f"of {len(families)} families; for {most['components']} means in {most['features']} "
        f"features the smallest W1 is {significant(most['smallest'])}, predicted "
        f"{significant(most['predicted'])}."
    ]


def _medians(flows: pl.DataFrame, column: str) -> dict[int, float]:
    medians = flows.group_by("depth").agg(pl.col(column).median()).sort("depth")
    return dict(zip(medians["depth"].to_list(), medians[column].to_list(), strict=True))


GENERATOR_COLUMNS = (
    "hidden_units", "numbers", "wasserstein_bound", "mean_distance", "two_sample", "floor",
    "float32_gap",
)  # fmt: skip
FLOW_COLUMNS = (
    "divergence", "two_sample", "total_variation", "tearing_bound", "stretch_to_data",
    "condition_number_median",
)  # fmt: skip
COLUMNS = dict.fromkeys((
    *GENERATOR_COLUMNS, *FLOW_COLUMNS, "depth", "budget", "volume_bound", "parameters",
    "smallest", "mean", "smallest_of_mixtures", "nearest", "predicted", "min_depth",
    "min_parameters", "layer_size", "generator_numbers",
))  # fmt: skip


def _generators(generators: pl.DataFrame) -> StudyTable:
    means = generators.group_by("features", "components").agg(
        pl.col(name).mean() for name in GENERATOR_COLUMNS
    )
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
        for row in means.sort("features", "components").to_dicts()
    ]
    columns = ["mixture", "hidden units", "numbers", "W1, at most", "samples", "floor", "float32"]
    return StudyTable(
        title="Generators",
        columns=columns,
        rows=rows,
        caption="Bound on W1 to the mixture, in per cent of the mean distance of two centers; W1 "
        "of samples to the mixture's, and of two samples of the mixture; mean effect of float32.",
    )


def _best_flows(frame: pl.DataFrame, settings: SphereSettings) -> StudyTable:
    rows = []
    for k, d in settings.mixtures:
        for budget in sorted(settings.budgets):
            flows = of_kind(frame, "flow", k, d).filter(budget=budget)
            medians = _medians(flows.drop_nulls("divergence"), "divergence")
            if not medians:
                continue
            best = min(medians, key=lambda depth: medians[depth])
            row = flows.filter(depth=best).median()
            rows.append([
                f"{k} components, {d} features, {budget:,}",
                str(best),
                f"{row['parameters'].item():,.0f}",
                *(significant(row[column].item()) for column in FLOW_COLUMNS),
            ])
    return StudyTable(
        title="The best depth at each budget",
        columns=[
            "flow", "depth", "parameters", "divergence", "W1", "total variation", "forbidden",
            "stretching", "condition number",
        ],
        rows=rows,
        caption="Medians. Forbidden: the lower bound on the total variation at this stretching. "
        "Condition number: the median over 512 samples of the flow.",
    )  # fmt: skip


GENERATOR, FLOOR = 6, 7  # tones; the budgets have the tones from 0 on


def of_kind(
    frame: pl.DataFrame, kind: str, k: int | None = None, d: int | None = None
) -> pl.DataFrame:
    """Returns the rows of a kind, and of a mixture if one is named."""
    selection = {"components": k, "features": d}
    return frame.filter(kind=kind, **{name: v for name, v in selection.items() if v is not None})


def charts(frame: pl.DataFrame, settings: SphereSettings) -> list[Chart]:
    """Returns the charts of all rows."""
    of_mixture = f"{_name(*settings.mixtures[0])}. " if len(settings.mixtures) == 1 else ""
    averaged = f"Medians over {settings.seeds} mixtures, and quartiles as a band."
    note = of_mixture + ("One mixture and one training each." if settings.seeds == 1 else averaged)
    flow_charts = []
    for name, title, column, y, log, caption in FLOWS:
        panels = []
        for k, d in settings.mixtures:
            series = [*_of_budgets(frame, settings, k, d, column)]
            if name == "variation":
                series += _of_budgets(
                    frame, settings, k, d, "tearing_bound", kind="dotted", prefix="forbidden at "
                )
            if name == "wasserstein":
                series += _levels(frame, settings, k, d)
            panels.append(panel(_name(k, d), "couplings", y, series, log=log))
        caption = f"{caption.format(points=settings.points)} {note}"
        flow_charts.append(Chart(name=name, title=title, caption=caption, panels=panels))
    return [*flow_charts, _family(frame, settings), _bound(frame, settings)]


FLOWS = (
    (
        "wasserstein", "How far samples are from samples of the mixture",
        "two_sample", "W1 of two samples", "x",
        "W1 between {points:,} samples of each, by the best matching. The floor is that of two "
        "samples of the mixture.",
    ),
    (
        "divergence", "How far trained flows are from the mixture",
        "divergence", "divergence, nats", "xy",
        "KL divergence from the mixture to the flow, from exact densities at 4,096 samples.",
    ),
    (
        "variation", "Total variation, and how much of it no flow so flat could avoid",
        "total_variation", "total variation", "xy",
        "Dotted: lower bound for flows that stretch latents no more than this one does at 512 "
        "samples; an indication, since the true maximum may be larger.",
    ),
    (
        "stretching", "How steep the flows have become",
        "stretch_to_data", "largest stretching", "xy",
        "Largest singular value from latent to data at 512 samples; the sphere has radius 1.",
    ),
)  # fmt: skip


def _of_budgets(
    frame: pl.DataFrame,
    settings: SphereSettings,
    k: int,
    d: int,
    column: str,
    *,
    kind: SeriesKind = "line",
    prefix: str = "",
) -> list[Series]:
    """Returns a line for each budget, the median over seeds with quartiles."""
    flows, spread = of_kind(frame, "flow", k, d), (0.25, 0.75) if settings.seeds > 1 else None
    series = []
    for tone, budget in enumerate(sorted(settings.budgets)):
        name, rows = f"{prefix}{budget:,} parameters", flows.filter(budget=budget)
        style = {"name": name, "tone": tone, "kind": kind, "spread": spread}
        series.append(quantile_series(rows, "depth", column, **style))
    return series


def _levels(frame: pl.DataFrame, settings: SphereSettings, k: int, d: int) -> list[Series]:
    flows, generators = of_kind(frame, "flow", k, d), of_kind(frame, "generator", k, d)
    ends = (min(settings.depths), max(settings.depths))
    floor = pl.concat([flows["floor"], generators["floor"]])
    style = {"tone": FLOOR, "kind": "dotted"}
    return [
        *level_series(
            generators["two_sample"], ends, name="the generator", tone=GENERATOR, kind="dashed"
        ),
        *level_series(floor, ends, name="two samples of it", **style),
    ]


def _family(frame: pl.DataFrame, settings: SphereSettings) -> Chart:
    lines: tuple[tuple[str, str, int, SeriesKind], ...] = (
        ("mean", "mean over pairs", 0, "line"),
        ("smallest", "smallest of all pairs", 1, "line"),
        ("predicted", "predicted: the smallest, 95 %", 1, "dotted"),
        ("nearest", "predicted: the mean, at least", 0, "dotted"),
        ("smallest_of_mixtures", "smallest of the mixtures, at least", 2, "dashed"),
    )
    panels = []
    for d in settings.features:
        families = of_kind(frame, "family", d=d)
        series = [_plain(families, y, name, tone, kind) for y, name, tone, kind in lines]
        title, y = f"{d} features", "W1 between means"
        panels.append(panel(title, "components", y, series, log="x"))
    pairs = settings.tuples * (settings.tuples - 1) // 2
    return Chart(
        name="family",
        title="Random tuples of means are all far apart",
        caption=f"{settings.tuples} tuples of uniform points of the unit sphere, {pairs:,} pairs, "
        "W1 by the best matching. Dotted: predicted by concentration. Dashed: certain for the "
        "mixtures.",
        panels=panels,
    )


def _bound(frame: pl.DataFrame, settings: SphereSettings) -> Chart:
    panels = []
    for d in settings.bound_features:
        bounds = of_kind(frame, "bound", d=d)
        by_size = [
            _plain(bounds.filter(layer_size=p), "min_depth", f"{p} parameters a layer", tone)
            for tone, p in enumerate(settings.layer_parameters)
        ]
        numbers = [
            _plain(bounds, "min_parameters", "needed by counting", 3),
            _plain(bounds, "generator_numbers", "of the generator", GENERATOR, "dashed"),
        ]
        for title, y, series in (("depth", "couplings", by_size), ("numbers", "numbers", numbers)):
            title = f"{title}, {d} features"
            panels.append(panel(title, "components", f"{y}, at least", series))
    return Chart(
        name="bound",
        title="The bounds by counting",
        caption="Below this depth, layers with Lipschitz constant "
        f"{settings.layer_lipschitz:g}, together at most {settings.whole_lipschitz:g}, miss some "
        f"mixture by {settings.distance / 4:g} in W1; with fewer 32-bit numbers any flow misses "
        f"one by {settings.distance / 2:g}. No line: no family of this size is found.",
        panels=panels,
        columns=2,
    )


def _plain(frame: pl.DataFrame, y: str, name: str, tone: int, kind: SeriesKind = "line") -> Series:
    return quantile_series(frame, "components", y, name=name, tone=tone, kind=kind, spread=None)


def _name(k: int, d: int) -> str:
    return f"{k} components, {d} features"
