"""Charts of the study: flows by depth, families of mixtures, and the counting bounds."""

from collections.abc import Sequence
from statistics import median
from typing import Literal

import polars as pl

from kappaflow.report.charts import Chart, Panel, Series
from kappaflow_studies.engine.report import quantile_series
from kappaflow_studies.sphere.measure import SphereSettings

Dash = Literal["solid", "dash", "dot", "none"]
GENERATOR, FLOOR = 6, 7  # tones; the budgets have the tones from 0 on


def of_kind(
    frame: pl.DataFrame, kind: str, k: int | None = None, d: int | None = None
) -> pl.DataFrame:
    """Returns the rows of a kind, and of a mixture if one is named."""
    found = frame.filter(pl.col("kind") == kind)
    for column, value in (("components", k), ("features", d)):
        found = found if value is None else found.filter(pl.col(column) == value)
    return found


def divergence_chart(frame: pl.DataFrame, settings: SphereSettings) -> Chart:
    """Returns the divergence of trained flows against their depth."""
    return Chart(
        name="divergence",
        title="How far trained flows are from the mixture",
        caption=(
            "The Kullback-Leibler divergence from the mixture to the flow, both densities being "
            f"exact, averaged over 4,096 draws. {_over(settings)}"
        ),
        panels=[
            Panel(
                title=_name(k, d),
                x="couplings",
                y="divergence, nats",
                x_log=True,
                y_log=True,
                series=_of_budgets(of_kind(frame, "flow", k, d), settings, "divergence"),
            )
            for k, d in settings.mixtures
        ],
    )


def wasserstein_chart(frame: pl.DataFrame, settings: SphereSettings) -> Chart:
    """Returns the distances of samples of flows and of the generator, with the noise floor."""
    panels = []
    for k, d in settings.mixtures:
        flows, made = of_kind(frame, "flow", k, d), of_kind(frame, "generator", k, d)
        depths = [float(min(settings.depths)), float(max(settings.depths))]
        level = _level(made["two_sample"], "the generator", depths, GENERATOR, "dash")
        floor = _level(
            pl.concat([flows["floor"], made["floor"]]), "two samples of it", depths, FLOOR, "dot"
        )
        lines = _of_budgets(flows, settings, "two_sample")
        panels.append(
            Panel(
                title=_name(k, d),
                x="couplings",
                y="W1 of two samples",
                x_log=True,
                series=[*lines, *level, *floor],
            )
        )
    return Chart(
        name="wasserstein",
        title="How far samples are from samples of the mixture",
        caption=(
            f"W1 between {settings.points:,} draws of each, by the best matching. Two samples of "
            "the mixture itself are not at distance 0 either: that is the floor, and what is "
            f"level with it cannot be distinguished from the mixture this way. {_over(settings)}"
        ),
        panels=panels,
    )


def variation_chart(frame: pl.DataFrame, settings: SphereSettings) -> Chart:
    """Returns the total variation of trained flows, with the bounds by Lipschitz constants."""
    panels = []
    for k, d in settings.mixtures:
        flows = of_kind(frame, "flow", k, d)
        measured = _of_budgets(flows, settings, "total_variation")
        forbidden = _of_budgets(flows, settings, "tearing_bound", "dot", "forbidden at ")
        panels.append(
            Panel(
                title=_name(k, d),
                x="couplings",
                y="total variation",
                x_log=True,
                y_log=True,
                series=[*measured, *forbidden],
            )
        )
    return Chart(
        name="variation",
        title="Total variation, and how much of it no flow so flat could avoid",
        caption=(
            "Lines: measured by exact densities. Dotted: the lower bound for flows that stretch "
            "latents by no more than this one does anywhere on 512 of its samples: modes cannot "
            "be pulled apart without steep ground between them. The true largest stretching is "
            f"at least the measured one, so that the bound is an indication. {_over(settings)}"
        ),
        panels=panels,
    )


def stretch_chart(frame: pl.DataFrame, settings: SphereSettings) -> Chart:
    """Returns the largest stretching from latent to data against depth."""
    return Chart(
        name="stretching",
        title="How steep the flows have become",
        caption=(
            "The largest singular value of the map from latent to data on 512 samples of the "
            f"flow; the sphere has radius 1. {_over(settings)}"
        ),
        panels=[
            Panel(
                title=_name(k, d),
                x="couplings",
                y="largest stretching",
                x_log=True,
                y_log=True,
                series=_of_budgets(of_kind(frame, "flow", k, d), settings, "stretch_to_data"),
            )
            for k, d in settings.mixtures
        ],
    )


def family_chart(frame: pl.DataFrame, settings: SphereSettings) -> Chart:
    """Returns the smallest distance in families of random tuples, and its prediction."""
    lines: tuple[tuple[str, str, int, Dash], ...] = (
        ("mean", "mean over pairs", 0, "solid"),
        ("smallest", "smallest of all pairs", 1, "solid"),
        ("predicted", "predicted: the smallest, 95 %", 1, "dot"),
        ("nearest", "predicted: the mean, at least", 0, "dot"),
        ("smallest_of_mixtures", "smallest of the mixtures, at least", 2, "dash"),
    )
    panels = []
    for d in settings.features:
        here = of_kind(frame, "family", d=d)
        series = [_plain(here, y, name, tone, dash) for y, name, tone, dash in lines]
        panels.append(
            Panel(
                title=f"{d} features",
                x="components",
                y="W1 between means",
                x_log=True,
                series=series,
            )
        )
    pairs = settings.tuples * (settings.tuples - 1) // 2
    return Chart(
        name="family",
        title="Random tuples of means are far apart, all of them",
        caption=(
            f"{settings.tuples} tuples of uniform points of the unit sphere, {pairs:,} pairs, W1 "
            "by the best matching. Dotted: what a concentration inequality predicts. Dashed: "
            "what is certain of the mixtures themselves, whose noise could bring them closer."
        ),
        panels=panels,
    )


def bound_chart(frame: pl.DataFrame, settings: SphereSettings) -> Chart:
    """Returns the counting bounds: a depth for layers of p numbers, and a number of numbers."""
    panels = []
    for d in settings.bound_features:
        here = of_kind(frame, "bound", d=d)
        by_size = [
            _plain(
                here.filter(pl.col("layer_size") == p),
                "min_depth",
                f"{p} parameters a layer",
                tone,
            )
            for tone, p in enumerate(settings.layer_parameters)
        ]
        numbers = [
            _plain(here, "min_parameters", "needed by counting", 3),
            _plain(here, "generator_numbers", "of the generator", GENERATOR, "dash"),
        ]
        for title, series in (("depth", by_size), ("numbers", numbers)):
            panels.append(
                Panel(
                    title=f"{title}, {d} features",
                    x="components",
                    y=f"{'couplings' if title == 'depth' else title}, at least",
                    x_log=True,
                    y_log=True,
                    series=series,
                )
            )
    return Chart(
        name="bound",
        title="What counting asks for",
        caption=(
            "Depth: below it, some mixture of a family is missed by "
            f"{settings.distance / 4:g} in W1, for layers with Lipschitz constants of "
            f"{settings.layer_lipschitz:g} that together have one of at most "
            f"{settings.whole_lipschitz:g}. Numbers: with fewer of 32 bits any flow misses one by "
            f"{settings.distance / 2:g}. No line: the argument finds no family of this size."
        ),
        panels=panels,
        columns=2,
    )


def _plain(frame: pl.DataFrame, y: str, name: str, tone: int, dash: Dash = "solid") -> Series:
    """Returns a column against the number of components, without a band."""
    return quantile_series(frame, "components", y, name=name, tone=tone, dash=dash, spread=None)


def _of_budgets(
    flows: pl.DataFrame,
    settings: SphereSettings,
    y: str,
    dash: Dash = "solid",
    prefix: str = "",
) -> list[Series]:
    """Returns a line for each budget, the median over seeds with quartiles."""
    return [
        quantile_series(
            flows.filter(pl.col("budget") == budget),
            "depth",
            y,
            name=f"{prefix}{budget:,} parameters",
            tone=tone,
            dash=dash,
            spread=(0.25, 0.75) if settings.seeds > 1 else None,
        )
        for tone, budget in enumerate(sorted(settings.budgets))
    ]


def _level(
    values: pl.Series, name: str, across: Sequence[float], tone: int, dash: Dash
) -> list[Series]:
    """Returns a horizontal line at the median, none if there is none."""
    known = values.drop_nulls().to_list()
    if not known:
        return []
    return [
        Series(name=name, x=list(across), y=[median(known)] * len(across), tone=tone, dash=dash)
    ]


def _name(k: int, d: int) -> str:
    return f"{k} components, {d} features"


def _over(settings: SphereSettings) -> str:
    alone = f"{_name(*settings.mixtures[0])}. " if len(settings.mixtures) == 1 else ""
    if settings.seeds == 1:
        return f"{alone}One mixture and one training each."
    return (
        f"{alone}Medians over {settings.seeds} mixtures, a training each, and quartiles as a band."
    )
