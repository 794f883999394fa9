"""Charts of the study: flows by depth, families of mixtures, and the counting bounds."""

import polars as pl

from kappaflow.report.charts import Chart, Series
from kappaflow_studies.engine.charts import Dash, level_series, panel, quantile_series
from kappaflow_studies.sphere.measure import SphereSettings

GENERATOR, FLOOR = 6, 7  # tones; the budgets have the tones from 0 on


def of_kind(
    frame: pl.DataFrame, kind: str, k: int | None = None, d: int | None = None
) -> pl.DataFrame:
    """Returns the rows of a kind, and of a mixture if one is named."""
    places = {"components": k, "features": d}
    return frame.filter(kind=kind, **{name: v for name, v in places.items() if v is not None})


def charts(frame: pl.DataFrame, settings: SphereSettings) -> list[Chart]:
    """Returns the charts of all rows."""
    one = f"{_name(*settings.mixtures[0])}. " if len(settings.mixtures) == 1 else ""
    many = f"Medians over {settings.seeds} mixtures, and quartiles as a band."
    over = one + ("One mixture and one training each." if settings.seeds == 1 else many)
    found = []
    for name, title, column, y, log, caption in FLOWS:
        panels = []
        for k, d in settings.mixtures:
            series = [*_of_budgets(frame, settings, k, d, column)]
            if name == "variation":
                series += _of_budgets(
                    frame, settings, k, d, "tearing_bound", dash="dot", prefix="forbidden at "
                )
            if name == "wasserstein":
                series += _levels(frame, settings, k, d)
            panels.append(panel(_name(k, d), "couplings", y, series, log=log))
        caption = f"{caption.format(points=settings.points)} {over}"
        found.append(Chart(name=name, title=title, caption=caption, panels=panels))
    return [*found, _family(frame, settings), _bound(frame, settings)]


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
    dash: Dash = "solid",
    prefix: str = "",
) -> list[Series]:
    """Returns a line for each budget, the median over seeds with quartiles."""
    flows, spread = of_kind(frame, "flow", k, d), (0.25, 0.75) if settings.seeds > 1 else None
    series = []
    for tone, budget in enumerate(sorted(settings.budgets)):
        name, rows = f"{prefix}{budget:,} parameters", flows.filter(budget=budget)
        look = {"name": name, "tone": tone, "dash": dash, "spread": spread}
        series.append(quantile_series(rows, "depth", column, **look))
    return series


def _levels(frame: pl.DataFrame, settings: SphereSettings, k: int, d: int) -> list[Series]:
    flows, made = of_kind(frame, "flow", k, d), of_kind(frame, "generator", k, d)
    ends = (min(settings.depths), max(settings.depths))
    floor, look = pl.concat([flows["floor"], made["floor"]]), {"tone": FLOOR, "dash": "dot"}
    return [
        *level_series(made["two_sample"], ends, name="the generator", tone=GENERATOR, dash="dash"),
        *level_series(floor, ends, name="two samples of it", **look),
    ]


def _family(frame: pl.DataFrame, settings: SphereSettings) -> Chart:
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
        here = of_kind(frame, "bound", d=d)
        by_size = [
            _plain(here.filter(layer_size=p), "min_depth", f"{p} parameters a layer", tone)
            for tone, p in enumerate(settings.layer_parameters)
        ]
        numbers = [
            _plain(here, "min_parameters", "needed by counting", 3),
            _plain(here, "generator_numbers", "of the generator", GENERATOR, "dash"),
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


def _plain(frame: pl.DataFrame, y: str, name: str, tone: int, dash: Dash = "solid") -> Series:
    return quantile_series(frame, "components", y, name=name, tone=tone, dash=dash, spread=None)


def _name(k: int, d: int) -> str:
    return f"{k} components, {d} features"
