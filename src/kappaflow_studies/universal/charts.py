"""Charts of the constructions: singular values, errors, samples, scales, and float64."""

import polars as pl

from kappaflow.report.charts import Chart, Heat, Panel, Series
from kappaflow_studies.universal.approximation import PowerLaw
from kappaflow_studies.universal.measure import UniversalSettings
from kappaflow_studies.universal.targets import TARGETS

ERROR = "allowed error, data units"
Tables = dict[str, pl.DataFrame]
Powers = dict[str, dict[str, PowerLaw]]


def charts(
    tables: Tables, powers: Powers, pictures: pl.DataFrame, settings: UniversalSettings
) -> list[Chart]:
    """Returns the charts.

    Args:
        tables: The measurements for each distribution, ascending in the error.
        powers: The fitted power laws, by distribution and column.
        pictures: Histograms of samples.
        settings: The settings of the study.
    """
    return [
        Chart(
            name="conditioning",
            title="Singular values against the error",
            caption=(
                "The map from latent to data, over normal samples: median, and the quantiles "
                "of 5 % and 95 % as a band. The dashed line is the fitted power of the error."
            ),
            panels=[_conditioning(name, tables[name], powers.get(name)) for name in tables],
            share_y=True,
        ),
        Chart(
            name="error",
            title="W2 against the error that is allowed",
            caption=(
                "The bound, by the same normal draw on both sides, with what a sample cannot "
                f"show added; and between two samples of {settings.draws:,} points, next to the "
                "floor of two samples of the distribution itself."
            ),
            panels=[_error(name, tables[name]) for name in tables],
            share_y=True,
        ),
        *_pictures(pictures, settings),
        Chart(
            name="scales",
            title="What is left of the old values",
            caption=(
                "The constant scales of the three couplings; their product is the determinant "
                "of one pair of features."
            ),
            panels=[_scales(name, tables[name]) for name in tables],
            share_y=True,
        ),
        Chart(
            name="float64",
            title="Where float64 ends",
            caption=(
                "Sampling stays accurate: the bound stays below the allowed error. "
                "Inversion does not: a sample taken to the data and back is a different one."
            ),
            panels=_float64(tables),
            columns=2,
        ),
    ]


def _series(table: pl.DataFrame, column: str, name: str, tone: int, **settings: object) -> Series:
    return Series(
        name=name,
        x=table["epsilon"].to_list(),
        y=table[column].to_list(),
        tone=tone,
        **settings,  # pyright: ignore[reportArgumentType]
    )


def _conditioning(name: str, table: pl.DataFrame, power: dict[str, PowerLaw] | None) -> Panel:
    series = [
        _series(
            table,
            end,
            title,
            tone,
            low=table[f"{end}_low"].to_list(),
            high=table[f"{end}_high"].to_list(),
        )
        for end, title, tone in (("sigma_max", "largest", 2), ("sigma_min", "smallest", 3))
    ]
    if power is not None:
        line = power["sigma_min"]
        x = table["epsilon"].to_list()
        fitted = [line.factor * error**line.exponent for error in x]
        series.append(Series(name="fitted power", x=x, y=fitted, tone=6, dash="dash"))
    return Panel(title=name, x=ERROR, y="singular value", x_log=True, y_log=True, series=series)


def _error(name: str, table: pl.DataFrame) -> Panel:
    compared = table.drop_nulls("two_sample_w2")
    series = [
        _series(table, "bound", "bound", 0),
        _series(table, "epsilon", "allowed", 7, dash="dot"),
        _series(compared, "two_sample_w2", "two samples", 1),
        _series(compared, "floor", "floor of two samples", 1, dash="dash"),
    ]
    return Panel(title=name, x=ERROR, y="W2", x_log=True, y_log=True, series=series)


def _scales(name: str, table: pl.DataFrame) -> Panel:
    series = [
        _series(table, "low_digits", "first, D / 4R", 0),
        _series(table, "eta", "second, η", 1),
        _series(table, "eta_prime", "third, η′", 2),
    ]
    return Panel(title=name, x=ERROR, y="scale", x_log=True, y_log=True, series=series)


def _float64(tables: Tables) -> list[Panel]:
    there, shares = [], []
    for tone, (name, table) in enumerate(tables.items()):
        there.append(_series(table, "round_trip", name, tone))
        table = table.with_columns(share=pl.col("bound") / pl.col("epsilon"))
        shares.append(_series(table, "share", name, tone))
    back = "median distance after there and back"
    return [
        Panel(title="inverting", x=ERROR, y=back, x_log=True, y_log=True, series=there),
        Panel(title="drawing", x=ERROR, y="bound / allowed", x_log=True, series=shares),
    ]


def _pictures(pictures: pl.DataFrame, settings: UniversalSettings) -> list[Chart]:
    shown = [0.0, *sorted(settings.pictured, reverse=True)]
    panels = []
    for name in settings.targets:
        for error in shown:
            row = pictures.filter((pl.col("target") == name) & (pl.col("epsilon") == error))
            if row.is_empty():
                continue
            counts, bins = row["counts"].to_list()[0], settings.bins
            values = [counts[i * bins : (i + 1) * bins] for i in range(bins)]
            reach = 1.1 * TARGETS[name].reach
            panels.append(
                Panel(
                    title=f"{name}, {error:g}" if error else f"{name} itself",
                    heat=Heat(values=values, x=(-reach, reach), y=(-reach, reach)),
                )
            )
    if not panels:
        return []
    caption = (
        f"Histograms of {settings.picture_draws:,} draws, with the error that was allowed. What "
        "looks like a lattice is one: the first half of the output is rounded."
    )
    chart = Chart(name="draws", title="Draws", caption=caption, panels=panels, columns=len(shown))
    return [chart]
