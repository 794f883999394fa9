"""The charts: conditioning, likelihood, products of singular values, gradients, whitening."""

import polars as pl

from kappaflow.report.charts import Chart, Panel, Series
from kappaflow_studies.depth_conditioning.ideal_couplings import last_whitening_factor
from kappaflow_studies.depth_conditioning.measure import (
    ROTATIONS,
    SCHEMES,
    DepthConditioningSettings,
)
from kappaflow_studies.engine.charts import Dash, column_series, panel

TIMES = {"start": "at the start", "trained": "trained"}
TONES = {"kappaflow": 0, "zuko": 1, "nflows": 2, "normflows": 3, "FrEIA": 7}
INK = 6
HIGHEST = 1e9  # largest drawn value: some flows of 64 couplings reach 1e94
ABOVE = f"Values above {HIGHEST:.0e} are beyond the edge."
SHOWN = 1e-3  # nats: smallest drawn loss of ideal layers
COUPLINGS = "couplings"


def charts(
    flows: pl.DataFrame, whitening: pl.DataFrame, settings: DepthConditioningSettings
) -> list[Chart]:
    """Returns the charts of flows, at the start and trained, and of ideal couplings."""
    laws, there = list(settings.distributions), set(flows["library"])
    libraries = [name for name in reversed(TONES) if name in there]  # ours is drawn last
    ideal = whitening.filter(scheme=ROTATIONS)
    deepest = max(settings.depths)
    return [
        Chart(
            name="products",
            title="Singular values of the whole, and products of the layers'",
            caption="Trained flows, medians over points. Dashed: the product over the layers, an "
            "upper bound for the largest and a lower bound for the smallest singular value.",
            panels=[
                _products(flows, law, end, libraries) for law in laws for end in ("max", "min")
            ],
            columns=2,
        ),
        Chart(
            name="condition",
            title="Condition number against depth",
            caption="From data to latent: the median over points, and the quantiles of 5 % and "
            f"95 % as a band. Dotted: an exact map to the standard normal. {ABOVE}",
            panels=[_condition(flows, law, when, libraries) for law in laws for when in TIMES],
            columns=2,
            share_y=True,
        ),
        Chart(
            name="likelihood",
            title="Gap in likelihood",
            caption="Nats per test point below the true density, and two standard errors as a "
            "band. Dotted: as many ideal layers with random rotations, down to "
            f"{SHOWN:g}. {ABOVE}",
            panels=[_likelihood(flows, ideal, law, libraries) for law in laws],
            columns=2,
        ),
        Chart(
            name="gradients",
            title="Gradients by layer",
            caption="Norm of the gradient of the mean loss by the weights of a layer, for flows "
            f"with {deepest} couplings; a block of FrEIA has two. {ABOVE}",
            panels=[
                _gradients(flows.filter(depth=deepest), law, when, libraries, deepest)
                for law in laws
                for when in TIMES
            ],
            columns=2,
            share_y=True,
        ),
        Chart(
            name="whitening",
            title="Ideal couplings, one after the other",
            caption=f"{settings.whitening_draws} Gaussians with {settings.features} features: "
            "mean, and quartiles as a band. Binary digits and permutations end at rounding. "
            "Dashed: the bound on the mean after a rotated layer.",
            panels=[_whitening(whitening), _factors(ideal, settings.features)],
            columns=2,
        ),
    ]


def _medians(table: pl.DataFrame, name: str) -> pl.DataFrame:
    """Returns medians over flows of the three quantiles over points, a row for each depth."""
    ends = [pl.col(f"{name}_{end}").median() for end in ("low", "median", "high")]
    return table.group_by("depth").agg(*ends).sort("depth")


def _condition(flows: pl.DataFrame, law: str, when: str, libraries: list[str]) -> Panel:
    here, y = flows.filter(law=law), "condition_median"
    series = []
    for library in libraries:
        middle = _medians(here.filter(when=when, library=library), "condition")
        look = {"name": library, "tone": TONES[library]}
        band = ("condition_low", "condition_high")
        series.append(column_series(middle, "depth", y, band=band, **look))
    exact = here.group_by("depth").agg(pl.col("reference").median()).sort("depth")
    look = {"name": "exact map", "tone": INK}
    series.append(column_series(exact, "depth", "reference", dash="dot", **look))
    title = f"{law}, {TIMES[when]}"
    return panel(title, COUPLINGS, "condition number", series, y_most=HIGHEST)


def _likelihood(flows: pl.DataFrame, ideal: pl.DataFrame, law: str, libraries: list[str]) -> Panel:
    series: list[Series] = []
    gap, error = pl.col("gap"), 2 * pl.col("gap_error").mean() / pl.len().sqrt()
    for library in libraries:
        table = flows.filter(law=law, when="trained", library=library).group_by("depth")
        found = table.agg(gap.mean(), error=error).sort("depth")
        found = found.with_columns(low=gap - pl.col("error"), high=gap + pl.col("error"))
        look = {"name": library, "tone": TONES[library], "band": ("low", "high")}
        series.append(column_series(found, "depth", "gap", **look))
    if law == "Gaussian":
        seen = pl.col("layer").is_in(flows["depth"].unique().to_list()), pl.col("loss") > SHOWN
        look = {"name": "ideal layers", "tone": INK, "dash": "dot"}
        series.append(column_series(_means(ideal, "loss").filter(*seen), "layer", "loss", **look))
    return panel(law, COUPLINGS, "nats a point", series, y_most=HIGHEST)


def _products(flows: pl.DataFrame, law: str, end: str, libraries: list[str]) -> Panel:
    series = []
    for library in libraries:
        table = flows.filter(law=law, when="trained", library=library)
        for column, name, dash in (
            (f"sigma_{end}", library, "solid"),
            (f"product_{end}", f"{library}, product", "dash"),
        ):
            look = {"name": name, "tone": TONES[library], "dash": dash}
            y = f"{column}_median"
            series.append(column_series(_medians(table, column), "depth", y, **look))
    title = f"{law}, {'largest' if end == 'max' else 'smallest'}"
    return panel(title, COUPLINGS, "singular value", series)


def _gradients(
    flows: pl.DataFrame, law: str, when: str, libraries: list[str], depth: int
) -> Panel:
    series = []
    for library in libraries:
        norms = (
            flows.filter(law=law, when=when, library=library)
            .select(norm=pl.col("gradient_norms"))
            .with_columns(place=pl.int_ranges(1, pl.col("norm").list.len() + 1))
            .explode("norm", "place")
        )
        each = norms.group_by("place").agg(pl.col("norm").median()).sort("place")
        couplings = depth / max(1, len(each))  # couplings per layer
        each = each.with_columns(pl.col("place") * couplings)
        series.append(column_series(each, "place", "norm", name=library, tone=TONES[library]))
    title, x = f"{law}, {TIMES[when]}", "coupling, from the data"
    return panel(title, x, "norm", series, log="y", y_most=HIGHEST)


def _means(table: pl.DataFrame, column: str) -> pl.DataFrame:
    """Returns the mean of a column over the Gaussians, and its quartiles, a row for each layer."""
    value = pl.col(column)
    quartiles = {end: value.quantile(q, "linear") for end, q in (("low", 0.25), ("high", 0.75))}
    return table.group_by("layer").agg(value.mean(), **quartiles).sort("layer")


def _whitening(whitening: pl.DataFrame) -> Panel:
    series = []
    for tone, scheme in enumerate(SCHEMES):
        table = _means(whitening.filter(scheme=scheme), "loss")
        look = {"name": scheme, "tone": tone, "band": ("low", "high")}
        series.append(column_series(table, "layer", "loss", **look))
    bound = _means(whitening.filter(scheme=ROTATIONS), "expected")
    look = {"name": "bound for rotations", "tone": 0, "dash": "dash"}
    series.append(column_series(bound, "layer", "expected", **look))
    return panel("loss", "layers", "nats", series, log="y")


def _factors(ideal: pl.DataFrame, features: int) -> Panel:
    table = _means(ideal, "loss").join(_means(ideal, "expected"), on="layer").sort("layer")
    before = pl.col("loss").shift(1)
    table = table.with_columns(
        measured=pl.col("loss") / before,
        bound=pl.col("expected") / before,
        exact=pl.lit(last_whitening_factor(features, features // 2)),
    )[1:]
    lines: tuple[tuple[str, str, int, Dash], ...] = (
        ("measured", ROTATIONS, 0, "solid"),
        ("bound", "bound for rotations", 0, "dash"),
        ("exact", "exact limit", INK, "dot"),
    )
    series = [
        column_series(table, "layer", y, name=name, tone=tone, dash=dash)
        for y, name, tone, dash in lines
    ]
    return panel("factor of a rotated layer", "layers", "mean loss after / before", series, log="")
