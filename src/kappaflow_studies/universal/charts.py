"""The charts of the study `universal`: what a smaller error costs, with three and four couplings.

They show singular values, errors, samples, scales, where float64 is too coarse, and many couplings
that are well conditioned at every point.
"""

import polars as pl

from kappaflow.report.charts import Chart, Panel, Series, SeriesKind
from kappaflow_studies.engine.charts import column_series, groups, heat_panel, panel
from kappaflow_studies.universal.approximation import PowerLaw
from kappaflow_studies.universal.measure import UniversalSettings
from kappaflow_studies.universal.targets import TARGETS

ERROR = "allowed error, data units"
Tables = dict[str, pl.DataFrame]
Powers = dict[str, dict[str, PowerLaw]]


def charts(
    tables: Tables, powers: Powers, frame: pl.DataFrame, settings: UniversalSettings
) -> list[Chart]:
    """Returns the charts of the measurements and of the fitted power laws for each target."""
    return [
        *_compared(tables, frame.filter(what="triangular"), settings),
        Chart(
            name="conditioning",
            title="Singular values against the error",
            caption="From latent to data, over normal samples: median, and the quantiles of 5 % "
            "and 95 % as a band. Dashed: the fitted power of the error.",
            panels=[_conditioning(name, tables[name], powers.get(name)) for name in tables],
            share_y=True,
        ),
        Chart(
            name="error",
            title="W2 against the error that is allowed",
            caption="The bound with the same normal samples on both sides, and W2 between two "
            f"samples of {settings.draws:,} points, next to its floor.",
            panels=[_lines(name, table, "W2", ERROR_LINES) for name, table in tables.items()],
            share_y=True,
        ),
        *_pictures(frame.filter(what="picture"), settings),
        Chart(
            name="scales",
            title="What is left of the old values",
            caption="The constant scales of the three couplings; their product is the determinant "
            "for one pair of features.",
            panels=[_lines(name, table, "scale", SCALE_LINES) for name, table in tables.items()],
            share_y=True,
        ),
        Chart(
            name="float64",
            title="Where float64 ends",
            caption="Sampling stays accurate: the bound stays below the allowed error. Inversion "
            "does not: samples are not recovered.",
            panels=_float64(tables),
            columns=2,
        ),
        *_every_point(frame.filter(what="every point")),
    ]


def _compared(
    tables: Tables, triangular: pl.DataFrame, settings: UniversalSettings
) -> list[Chart]:
    """Returns the smallest singular value and the total variation for each construction."""
    if triangular.is_empty():
        return []
    forms = {"three, any map": tables} | {
        f"{number}, triangular map": groups(
            triangular.filter(form=form).sort("epsilon"), "target", settings.triangular
        )
        for form, number in (("triangular, 3", "three"), ("triangular, 4", "four"))
    }
    least = min(settings.triangular_errors)

    def panels(y: str, title: str, log: str) -> list[Panel]:
        target_panels = []
        for name in settings.triangular:
            series = [
                column_series(
                    table[name].filter(pl.col("epsilon") >= least), "epsilon", y,
                    name=form, tone=tone,
                )
                for (form, table), tone in zip(forms.items(), (3, 1, 0), strict=True)
                if name in table
            ]  # fmt: skip
            target_panels.append(panel(name, ERROR, title, series, log=log))
        return target_panels

    return [
        Chart(
            name="rates",
            title="The smallest singular value with three and with four couplings",
            caption="From latent to data, median over normal samples. Three couplings for any map "
            "pay the fourth power of the error; with four, and a triangular map, nothing is left "
            "to pay.",
            panels=panels("sigma_min", "smallest singular value", "xy"),
            share_y=True,
        ),
        Chart(
            name="densities",
            title="The distance of the densities",
            caption="Total variation between flow and target: 0 for equal densities, 1 for "
            "densities that do not overlap. A small W2 says nothing about the density; four "
            "couplings make both small.",
            panels=panels("total_variation", "total variation", "x"),
            share_y=True,
        ),
    ]


def _every_point(table: pl.DataFrame) -> list[Chart]:
    if table.is_empty():
        return []
    table, x = table.sort("couplings"), "couplings"
    lines = [
        ("error", "largest error", "error"),
        ("condition_number", "largest condition number", "condition number"),
    ]
    return [
        Chart(
            name="every-point",
            title="Well conditioned at every point",
            caption="An elementwise map of one feature, by couplings from commutators: the error "
            "falls like one over their number, and the condition number approaches that of the "
            "map, e. Both are maxima over a grid.",
            panels=[
                panel(title, x, y, [column_series(table, x, column, name=y, tone=tone)])
                for tone, (column, title, y) in enumerate(lines)
            ],
            columns=2,
        )
    ]


Lines = tuple[tuple[str, str, int, SeriesKind], ...]  # column, name, tone, kind
ERROR_LINES: Lines = (
    ("bound", "bound", 0, "line"),
    ("epsilon", "allowed", 7, "dotted"),
    ("two_sample_w2", "two samples", 1, "line"),
    ("floor", "floor of two samples", 1, "dashed"),
)
SCALE_LINES: Lines = (
    ("low_digits", "first, D / 4R", 0, "line"),
    ("eta", "second, η", 1, "line"),
    ("eta_prime", "third, η′", 2, "line"),
)


def _lines(title: str, table: pl.DataFrame, y: str, lines: Lines) -> Panel:
    series = [
        column_series(table.drop_nulls(column), "epsilon", column, name=name, tone=tone, kind=kind)
        for column, name, tone, kind in lines
    ]
    return panel(title, ERROR, y, series)


def _conditioning(name: str, table: pl.DataFrame, power: dict[str, PowerLaw] | None) -> Panel:
    series = [
        column_series(
            table, "epsilon", end, name=title, tone=tone, band=(f"{end}_low", f"{end}_high")
        )
        for end, title, tone in (("sigma_max", "largest", 2), ("sigma_min", "smallest", 3))
    ]
    if power is not None:
        law, x = power["sigma_min"], table["epsilon"].to_list()
        fitted = [law.factor * error**law.exponent for error in x]
        series.append(Series(name="fitted power", x=x, y=fitted, tone=6, kind="dashed"))
    return panel(name, ERROR, "singular value", series)


def _float64(tables: Tables) -> list[Panel]:
    round_trips, shares = [], []
    for tone, (name, table) in enumerate(tables.items()):
        table = table.with_columns(share=pl.col("bound") / pl.col("epsilon"))
        round_trips.append(column_series(table, "epsilon", "round_trip", name=name, tone=tone))
        shares.append(column_series(table, "epsilon", "share", name=name, tone=tone))
    back = "median distance after there and back"
    return [
        panel("inverting", ERROR, back, round_trips),
        panel("drawing", ERROR, "bound / allowed", shares, log="x"),
    ]


def _pictures(pictures: pl.DataFrame, settings: UniversalSettings) -> list[Chart]:
    shown = [0.0, *sorted(settings.pictured, reverse=True)]
    panels = []
    for name in settings.targets:
        for error in shown:
            row = pictures.filter(target=name, epsilon=error)
            if not row.is_empty():
                title = f"{name}, {error:g}" if error else f"{name} itself"
                counts, end = row["counts"].to_list()[0], 1.1 * TARGETS[name].reach
                panels.append(heat_panel(title, counts, settings.bins, end))
    if not panels:
        return []
    caption = (
        f"Histograms of {settings.picture_draws:,} samples for each allowed error. The lattice is "
        "real: the first half of the output is rounded."
    )
    return [
        Chart(name="draws", title="Samples", caption=caption, panels=panels, columns=len(shown))
    ]
