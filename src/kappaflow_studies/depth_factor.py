"""`depth-factor`: how many couplings replace the linear maps of a trained flow."""

from pathlib import Path
from typing import Annotated

import polars as pl
import torch
from pydantic import Field, model_validator

from kappaflow.errors import NumericalError
from kappaflow.flows import Flow, real_nvp
from kappaflow.images import Images, glow
from kappaflow.report.charts import Chart, Panel, Series, SeriesKind
from kappaflow.report.numbers import significant
from kappaflow_studies.data import DataParts, parts_of
from kappaflow_studies.engine.charts import column_series, ends, groups, panel
from kappaflow_studies.engine.presets import Count, ImagesName, TableName, TrainingSettings
from kappaflow_studies.engine.report import StudyFindings, StudyTable
from kappaflow_studies.engine.study import Case, Row, Study
from kappaflow_studies.training import (
    FAILED,
    completed,
    evaluation,
    points,
    times_in_turns,
    train_flow,
    twin_of,
)


class DepthFactorSettings(TrainingSettings):
    """Settings of the flows and the data."""

    tables: tuple[TableName, ...]
    depths: tuple[Count, ...]  # couplings of the flows of tables, with an LU map before each
    images: tuple[ImagesName, ...]
    sizes: tuple[Annotated[int, Field(ge=0)], ...]  # sides of the images; 0 for the original size
    levels: tuple[Count, ...]  # of the Glow of each set of images
    steps: tuple[Count, ...]  # in each level
    repeats: Count  # of a time measurement

    @model_validator(mode="after")
    def _check(self) -> "DepthFactorSettings":
        if not len(self.images) == len(self.sizes) == len(self.levels):
            raise ValueError("'images', 'sizes' and 'levels' should be equally long lists")
        return self


def cases(settings: DepthFactorSettings, seed: int) -> list[Case]:
    """Returns a case for each flow and seed; large images come first."""
    table = settings.of_tables() | {"repeats": settings.repeats}
    image = settings.of_images() | {"repeats": settings.repeats}
    planned: list[Case] = []
    sets = zip(settings.images, settings.sizes, settings.levels, strict=True)
    for name, size, levels in sorted(sets, key=lambda image_set: -image_set[1]):
        for steps in sorted(settings.steps, reverse=True):
            planned.append({**image, "data": name, "size": size, "levels": levels, "depth": steps})
    for name in settings.tables:
        for depth in sorted(settings.depths, reverse=True):
            planned.append({**table, "data": name, "depth": depth})
    return [{**case, "seed": seed + i} for case in planned for i in range(settings.seeds)]


TWIN = "twin_"  # prefix of the columns of a twin


def measure(case: Case) -> list[Row]:
    """Returns one row: the flow, and its twin in columns with the prefix "twin_"."""
    parts = parts_of(case, case.get("size") or None)
    with torch.random.fork_rng():
        torch.manual_seed(case["seed"])
        flow = _flow(case, parts)
        try:
            train_flow(flow, parts, case)
        except NumericalError as error:
            return [{FAILED: str(error)}]
    x = points(flow, parts, case["points"])
    shape = " x ".join(map(str, flow.event_shape))
    row = {"shape": shape, **evaluation(flow, parts, x)}
    twin, certificate = twin_of(flow, x)
    row |= certificate
    if twin is None:
        return [row]
    batch = points(flow, parts, case["batch_size"])
    timings = times_in_turns({"time_s": flow, f"{TWIN}time_s": twin}, batch, case["repeats"])
    return [{**row, **evaluation(twin.eval(), parts, x, TWIN), **timings}]


def _flow(case: Case, parts: DataParts) -> Flow:
    if not isinstance(parts.train, Images):
        hidden = (case["hidden"], case["hidden"])
        features = len(parts.train.columns)
        return real_nvp(features, depth=case["depth"], hidden=hidden, couplings={"mixing": "lu"})
    return glow(
        parts.train.shape,
        levels=case["levels"],
        steps=case["depth"],
        hidden=case["hidden"],
        pixels={"dequantize": "uniform", "values": parts.train.values},
    )


LEAST, MOST = 5, 47  # factors of depth in the source
LINES: tuple[tuple[int, SeriesKind], ...] = ((LEAST, "dashed"), (MOST, "dotted"))


def findings(frame: pl.DataFrame, settings: DepthFactorSettings) -> StudyFindings:
    """Returns the charts, the table and the sentences on them."""
    finished, stopped = completed(frame)
    any_rewritten = "couplings_after" in finished.columns
    rewritten = finished.drop_nulls("couplings_after") if any_rewritten else finished.clear()
    coverage = (
        f"{len(rewritten)} of {len(finished)} trained flows were rewritten with one partition."
    )
    return StudyFindings(
        found=[*([] if rewritten.is_empty() else _sentences(rewritten)), coverage, *stopped],
        differs=[
            "The source bounds the layers for one linear map; we count the couplings of whole "
            "trained flows, where the ends of a map merge with the neighboring couplings.",
            "47 couplings for a map are the source's proof; six are a later theorem.",
        ],
        charts=[] if rewritten.is_empty() else _charts(rewritten),
        tables=[_table(finished)] if len(finished) else [],
    )


def _sentences(rewritten: pl.DataFrame) -> list[str]:
    depth_ratios = rewritten["couplings_after"] / rewritten["couplings_before"]
    per_map = (rewritten["couplings_after"] - rewritten["couplings_before"]) / rewritten["maps"]
    layer_ratios = rewritten[f"{TWIN}worst_layer"] / rewritten["worst_layer"]
    time_ratios = rewritten[f"{TWIN}time_s"] / rewritten["time_s"]
    return [
        f"Replacing the maps by couplings makes flows {ends(depth_ratios)} times as deep, "
        f"{significant(depth_ratios.median())} times in the median; the source allows {MOST}. The "
        f"depth of a twin is an upper bound, so it says nothing about the source's {LEAST}.",
        f"Each map costs {ends(per_map)} more couplings.",
        "log_prob changes by at most "
        f"{significant(rewritten['difference_float64'].max(), 2)} nats in float64 and "
        f"{significant(rewritten['difference_float32'].max(), 2)} in float32.",
        f"The worst layer of a twin has {ends(layer_ratios)} times the condition number of the "
        "flow's worst layer; no linear coupling has one above "
        f"{significant(rewritten['map_condition'].max())}.",
        f"log_prob of the twin takes {ends(time_ratios)} times as long, "
        f"{significant(time_ratios.median())} in the median.",
    ]


def _charts(rewritten: pl.DataFrame) -> list[Chart]:
    rows = groups(rewritten, "data", sorted(rewritten["data"].unique()))
    before = [float(value) for value in sorted(rewritten["couplings_before"].unique())]
    lines = [
        Series(name=f"{factor} times as many", x=[*before], y=[factor * x for x in before], tone=7,
               kind=kind)
        for factor, kind in LINES
    ]  # fmt: skip
    flows = _point_series(rows, "couplings_before", "couplings_after")
    return [
        Chart(
            name="couplings",
            title="Couplings with linear maps, and without",
            caption="Each point is a trained flow; the lines are the factors of the source.",
            panels=[panel("", "couplings of the flow", "couplings of the twin", [*flows, *lines])],
            columns=1,
        ),
        Chart(
            name="price",
            title="Conditioning and time, with and without",
            caption="Medians over points (condition numbers) and over repetitions (times). The "
            "line marks equality.",
            panels=[
                _against_twin(rows, "worst_layer", "worst layer", "condition number"),
                _against_twin(rows, "peak", "largest cumulative", "condition number"),
                _against_twin(rows, "time_s", "log_prob", "seconds"),
            ],
        ),
    ]


def _point_series(rows: dict[str, pl.DataFrame], x: str, y: str) -> list[Series]:
    return [
        column_series(part, x, y, name=name, tone=tone, kind="points")
        for tone, (name, part) in enumerate(rows.items())
    ]


def _against_twin(rows: dict[str, pl.DataFrame], column: str, title: str, unit: str) -> Panel:
    values = sorted(value for part in rows.values() for value in part[column].drop_nulls())
    equal = Series(name="equal", x=values[:1] + values[-1:], y=values[:1] + values[-1:], tone=7)
    series = [*_point_series(rows, column, f"{TWIN}{column}"), equal]
    return panel(title, f"{unit}, flow", f"{unit}, twin", series)


COLUMNS = [
    "flow", "maps", "couplings", "couplings of twin", "times", "more for each map",
    "worst layer", "worst layer of twin", "difference, nats", "log_prob, times as long",
]  # fmt: skip


def _table(frame: pl.DataFrame) -> StudyTable:
    rows = []
    for row in frame.sort("what", "data", "shape", "depth", "seed").iter_rows(named=True):
        size = "couplings" if row["what"] == "table" else f"steps in {row['levels']} levels"
        name = f"{row['data']}, {row['shape']}, {row['depth']} {size}"
        if row.get("couplings_after") is None:
            rows.append([name, *["none found"] * (len(COLUMNS) - 1)])
            continue
        before, after = row["couplings_before"], row["couplings_after"]
        depth_ratio, per_map = after / before, (after - before) / row["maps"]
        shown = (depth_ratio, per_map, row["worst_layer"], row[f"{TWIN}worst_layer"])
        rows.append([
            name,
            *map(str, (row["maps"], before, after)),
            *map(significant, shown),
            significant(row["difference_float64"], 2),
            significant(row[f"{TWIN}time_s"] / row["time_s"]),
        ])
    caption = "Couplings of the twin: linear and nonlinear. Difference: the largest, in float64."
    return StudyTable(title="All flows", columns=COLUMNS, rows=rows, caption=caption)


DEPTH_FACTOR = Study(
    name="depth-factor",
    title="What 1x1 convolutions save: couplings with and without them",
    about="trained flows with linear maps between couplings, and the same functions without maps",
    claim=(
        "A flow with 1x1 convolutions can be 5 to 47 times smaller than a flow with a fixed "
        "partition that computes the same function: each linear layer takes at most 47 couplings, "
        "and some take at least five."
    ),
    settings=DepthFactorSettings,
    presets=Path(__file__).with_suffix(".toml"),
    cases=cases,
    measure=measure,
    findings=findings,
)
