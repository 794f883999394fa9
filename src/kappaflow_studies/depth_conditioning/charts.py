"""The charts: conditioning, likelihood, products of singular values, gradients, whitening."""

from typing import Literal

import polars as pl

from kappaflow.report.charts import Chart, Panel, Series
from kappaflow.report.charts.chart import Numbers
from kappaflow_studies.depth_conditioning.ideal_couplings import last_whitening_factor
from kappaflow_studies.depth_conditioning.measure import (
    ROTATIONS,
    SCHEMES,
    DepthConditioningSettings,
)

TIMES = {"start": "at the start", "trained": "trained"}
TONES = {"kappaflow": 0, "zuko": 1, "nflows": 2, "normflows": 3, "FrEIA": 7}
INK = 6
HIGHEST = 1e9  # largest drawn value: some flows of 64 couplings reach 1e94
ABOVE = f"Values above {HIGHEST:.0e} are beyond the edge."
SHOWN = 1e-3  # nats: smallest drawn loss of ideal layers
Dash = Literal["solid", "dash", "dot", "none"]
COUPLINGS, CONDITION = "couplings", "condition number"
OF_CONDITION = (
    "The map from data to latent, over points of the distribution: the median, and the quantiles "
    "of 5 % and 95 % as a band. The dotted line is a map that makes the distribution standard "
    f"normal exactly: not necessary, but what the data suggest. {ABOVE}"
)
OF_LIKELIHOOD = (
    "Nats per point below the distribution's own density, on the same test points, with two "
    "standard errors as a band. Dotted: the Gaussian after as many ideal layers with random "
    f"rotations, each optimal on its own, down to {SHOWN:g}. {ABOVE}"
)
OF_PRODUCTS = (
    "Trained flows, medians over points: what is measured, and dashed the product over the "
    "layers, which bounds it from above for the largest and from below for the smallest."
)


def charts(
    flows: pl.DataFrame, whitening: pl.DataFrame, settings: DepthConditioningSettings
) -> list[Chart]:
    """Returns the charts.

    Args:
        flows: For each flow, a row at the start and a row after training.
        whitening: A row for each random Gaussian and layer of ideal couplings.
        settings: The settings of the study.
    """
    distributions, libraries = list(settings.distributions), _libraries(flows)
    ideal = whitening.filter(pl.col("scheme") == ROTATIONS)
    return [
        Chart(
            name="condition",
            title="Condition number against depth",
            caption=OF_CONDITION,
            panels=[
                _condition(flows, distribution, when, libraries)
                for distribution in distributions
                for when in TIMES
            ],
            columns=2,
            share_y=True,
        ),
        Chart(
            name="likelihood",
            title="What the likelihood lacks",
            caption=OF_LIKELIHOOD,
            panels=[
                _likelihood(flows, ideal, distribution, libraries)
                for distribution in distributions
            ],
            columns=2,
        ),
        Chart(
            name="products",
            title="Singular values of the whole, and products of the layers'",
            caption=OF_PRODUCTS,
            panels=[
                _products(flows, distribution, end, libraries)
                for distribution in distributions
                for end in ("max", "min")
            ],
            columns=2,
        ),
        _gradients_chart(flows, distributions, libraries, max(settings.depths)),
        _whitening_chart(whitening, ideal, settings),
    ]


def _gradients_chart(
    flows: pl.DataFrame, distributions: list[str], libraries: list[str], depth: int
) -> Chart:
    return Chart(
        name="gradients",
        title="Gradients by layer",
        caption=(
            "Norm of the gradient of the mean loss by the weights of a layer, of flows with "
            f"{depth} couplings; a block of FrEIA has two of them. {ABOVE}"
        ),
        panels=[
            _gradients(flows, distribution, when, libraries, depth)
            for distribution in distributions
            for when in TIMES
        ],
        columns=2,
        share_y=True,
    )


def _whitening_chart(
    whitening: pl.DataFrame, ideal: pl.DataFrame, settings: DepthConditioningSettings
) -> Chart:
    return Chart(
        name="whitening",
        title="Ideal couplings, one after the other",
        caption=(
            f"{settings.whitening_draws} Gaussians with {settings.features} features: mean, "
            "and quartiles as a band. Binary digits and permutations end at rounding. Dashed: "
            "the bound on the mean after a rotated layer, given the spectrum before it."
        ),
        panels=[_whitening(whitening), _factors(ideal, settings.features)],
        columns=2,
    )


def _libraries(flows: pl.DataFrame) -> list[str]:
    """Returns the measured libraries; ours is last, so that it is drawn over the others."""
    there = set(flows["library"])
    return [name for name in reversed(TONES) if name in there]


def _of(flows: pl.DataFrame, distribution: str, when: str, library: str) -> pl.DataFrame:
    chosen = (
        (pl.col("law") == distribution) & (pl.col("when") == when) & (pl.col("library") == library)
    )
    return flows.filter(chosen)


def _line(
    table: pl.DataFrame,
    x: str,
    y: str,
    *,
    name: str,
    tone: int,
    dash: Dash = "solid",
    low: str | None = None,
    high: str | None = None,
) -> Series:
    """Returns a series from columns of a table, with a band if its columns are named."""
    lower = None if low is None else _numbers(table[low])
    upper = None if high is None else _numbers(table[high])
    across, up = _numbers(table[x]), _numbers(table[y])
    return Series(name=name, x=across, y=up, low=lower, high=upper, tone=tone, dash=dash)


def _numbers(column: pl.Series) -> Numbers:
    return column.cast(pl.Float64).to_list()


def _medians(table: pl.DataFrame, name: str) -> pl.DataFrame:
    """Returns medians over flows of the three quantiles over points, a row for each depth."""
    ends = [pl.col(f"{name}_{end}").median() for end in ("low", "median", "high")]
    return table.group_by("depth").agg(*ends).sort("depth")


def _condition(flows: pl.DataFrame, distribution: str, when: str, libraries: list[str]) -> Panel:
    series = [
        _line(
            _medians(_of(flows, distribution, when, library), "condition"),
            "depth",
            "condition_median",
            name=library,
            tone=TONES[library],
            low="condition_low",
            high="condition_high",
        )
        for library in libraries
    ]
    here = flows.filter(pl.col("law") == distribution)
    exact = here.group_by("depth").agg(pl.col("reference").median()).sort("depth")
    series.append(_line(exact, "depth", "reference", name="exact map", tone=INK, dash="dot"))
    title = f"{distribution}, {TIMES[when]}"
    return Panel(
        title=title,
        x=COUPLINGS,
        y=CONDITION,
        x_log=True,
        y_log=True,
        y_most=HIGHEST,
        series=series,
    )


def _likelihood(
    flows: pl.DataFrame, ideal: pl.DataFrame, distribution: str, libraries: list[str]
) -> Panel:
    series = []
    error = 2 * pl.col("gap_error").mean() / pl.len().sqrt()
    for library in libraries:
        table = _of(flows, distribution, "trained", library).group_by("depth")
        found = table.agg(pl.col("gap").mean(), error.alias("error")).sort("depth")
        found = found.with_columns(
            low=pl.col("gap") - pl.col("error"), high=pl.col("gap") + pl.col("error")
        )
        tone = TONES[library]
        series.append(
            _line(found, "depth", "gap", name=library, tone=tone, low="low", high="high")
        )
    if distribution == "Gaussian":
        depths = flows["depth"].unique().to_list()
        means = _means(ideal, "loss").filter(
            pl.col("layer").is_in(depths) & (pl.col("loss") > SHOWN)
        )
        series.append(_line(means, "layer", "loss", name="ideal layers", tone=INK, dash="dot"))
    y = "nats a point"
    return Panel(
        title=distribution,
        x=COUPLINGS,
        y=y,
        x_log=True,
        y_log=True,
        y_most=HIGHEST,
        series=series,
    )


def _products(flows: pl.DataFrame, distribution: str, end: str, libraries: list[str]) -> Panel:
    series = []
    for library in libraries:
        table, tone = _of(flows, distribution, "trained", library), TONES[library]
        whole, product = (_medians(table, f"{name}_{end}") for name in ("sigma", "product"))
        series += [
            _line(whole, "depth", f"sigma_{end}_median", name=library, tone=tone),
            _line(
                product,
                "depth",
                f"product_{end}_median",
                name=f"{library}, product",
                tone=tone,
                dash="dash",
            ),
        ]
    title = f"{distribution}, {'largest' if end == 'max' else 'smallest'}"
    y = "singular value"
    return Panel(
        title=title,
        x=COUPLINGS,
        y=y,
        x_log=True,
        y_log=True,
        series=series,
    )


def _gradients(
    flows: pl.DataFrame, distribution: str, when: str, libraries: list[str], depth: int
) -> Panel:
    series = []
    for library in libraries:
        norms = (
            _of(flows, distribution, when, library)
            .filter(pl.col("depth") == depth)
            .select(pl.col("gradient_norms").alias("norm"))
            .with_row_index("draw")
            .with_columns(place=pl.int_ranges(1, pl.col("norm").list.len() + 1))
            .explode("norm", "place")
        )
        each = norms.group_by("place").agg(pl.col("norm").median()).sort("place")
        couplings = depth / max(1, len(each))  # couplings per layer
        each = each.with_columns(pl.col("place") * couplings)
        series.append(_line(each, "place", "norm", name=library, tone=TONES[library]))
    title = f"{distribution}, {TIMES[when]}"
    x = "coupling, from the data"
    return Panel(title=title, x=x, y="norm", y_log=True, y_most=HIGHEST, series=series)


def _means(table: pl.DataFrame, column: str) -> pl.DataFrame:
    """Returns the mean of a column over the Gaussians, and its quartiles, a row for each layer."""
    value = pl.col(column)
    quartiles = {end: value.quantile(q, "linear") for end, q in (("low", 0.25), ("high", 0.75))}
    return table.group_by("layer").agg(value.mean(), **quartiles).sort("layer")


def _whitening(whitening: pl.DataFrame) -> Panel:
    series = []
    for tone, scheme in enumerate(SCHEMES):
        table = _means(whitening.filter(pl.col("scheme") == scheme), "loss")
        series.append(
            _line(table, "layer", "loss", name=scheme, tone=tone, low="low", high="high")
        )
    bound = _means(whitening.filter(pl.col("scheme") == ROTATIONS), "expected")
    series.append(
        _line(bound, "layer", "expected", name="bound for rotations", tone=0, dash="dash")
    )
    return Panel(title="loss", x="layers", y="nats", y_log=True, series=series)


def _factors(ideal: pl.DataFrame, features: int) -> Panel:
    """Returns the chart of the factor by which a rotated layer reduces the mean loss."""
    table = _means(ideal, "loss").join(_means(ideal, "expected"), on="layer").sort("layer")
    before = pl.col("loss").shift(1)
    table = table.with_columns(
        measured=pl.col("loss") / before,
        bound=pl.col("expected") / before,
        exact=pl.lit(last_whitening_factor(features, features // 2)),
    )[1:]
    return Panel(
        title="factor of a rotated layer",
        x="layers",
        y="mean loss after / before",
        series=[
            _line(table, "layer", "measured", name=ROTATIONS, tone=0),
            _line(table, "layer", "bound", name="bound for rotations", tone=0, dash="dash"),
            _line(table, "layer", "exact", name="exact limit", tone=INK, dash="dot"),
        ],
    )
