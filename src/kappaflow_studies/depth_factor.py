"""`depth-factor`: how many couplings replace the linear maps of a trained flow."""

from pathlib import Path
from typing import Annotated, Literal

import polars as pl
import torch
from pydantic import Field, model_validator

from kappaflow.data import Images
from kappaflow.errors import NumericalError
from kappaflow.flows import Flow, glow, real_nvp
from kappaflow.report.charts import Chart, Panel, Series
from kappaflow.report.numbers import significant
from kappaflow_studies.data import Parts, image_parts, table_parts
from kappaflow_studies.engine.presets import Count, ImagesName, TableName, TrainingSettings
from kappaflow_studies.engine.report import Findings, Table
from kappaflow_studies.engine.study import Case, Row, Study
from kappaflow_studies.training import (
    FAILED,
    conditioning,
    held_out,
    points,
    that_ended,
    times_in_turns,
    trained,
    twin_of,
)


class DepthFactorSettings(TrainingSettings):
    """Settings of the flows and the data.

    Attributes:
        tables: Data sets of tables; "bananas-N" is one of N features.
        depths: Numbers of couplings of the flows of tables, with an LU map before each.
        images: Sets of gray images.
        sizes: Sides to which the images of each set are resized; 0 for the original size.
        levels: Number of levels of the Glow of each set.
        steps: Number of steps in each level.
        repeats: Number of repetitions of a time measurement.
    """

    tables: tuple[TableName, ...]
    depths: tuple[Count, ...]
    images: tuple[ImagesName, ...]
    sizes: tuple[Annotated[int, Field(ge=0)], ...]
    levels: tuple[Count, ...]
    steps: tuple[Count, ...]
    repeats: Count

    @model_validator(mode="after")
    def _check(self) -> "DepthFactorSettings":
        if not len(self.images) == len(self.sizes) == len(self.levels):
            raise ValueError("'images', 'sizes' and 'levels' should be equally long lists")
        return self


def cases(settings: DepthFactorSettings, seed: int) -> list[Case]:
    """Returns a case for each flow and seed; large images come first."""
    table = settings.of_tables() | {"repeats": settings.repeats}
    image = settings.of_images() | {"repeats": settings.repeats}
    found: list[Case] = []
    sets = zip(settings.images, settings.sizes, settings.levels, strict=True)
    for name, size, levels in sorted(sets, key=lambda one: -one[1]):
        for steps in sorted(settings.steps, reverse=True):
            found.append({**image, "data": name, "size": size, "levels": levels, "depth": steps})
    for name in settings.tables:
        for depth in sorted(settings.depths, reverse=True):
            found.append({**table, "data": name, "depth": depth})
    return [{**case, "seed": seed + i} for case in found for i in range(settings.seeds)]


TWIN = "twin_"


def measure(case: Case) -> list[Row]:
    """Returns one row: the flow, and its twin in columns with the prefix "twin_"."""
    parts = (
        table_parts(case["data"], case["rows"], case["seed"])
        if case["what"] == "table"
        else image_parts(case["data"], case["size"] or None, case["seed"])
    )
    with torch.random.fork_rng():
        torch.manual_seed(case["seed"])
        flow = _flow(case, parts)
        try:
            trained(flow, parts, case)
        except NumericalError as error:
            return [{FAILED: str(error)}]
    few = points(flow, parts, case["points"])
    shape = " x ".join(map(str, flow.event_shape))
    row = {"shape": shape, **held_out(flow, parts), **conditioning(flow, few)}
    twin, certificate = twin_of(flow, few)
    row |= certificate
    if twin is None:
        return [row]
    batch = points(flow, parts, case["batch_size"])
    times = times_in_turns({"time_s": flow, f"{TWIN}time_s": twin}, batch, case["repeats"])
    of_twin = {**held_out(twin.eval(), parts), **conditioning(twin, few)}
    return [{**row, **{f"{TWIN}{name}": value for name, value in of_twin.items()}, **times}]


def _flow(case: Case, parts: Parts) -> Flow:
    """Returns a new RealNVP with LU maps between its couplings, or a new Glow."""
    if not isinstance(parts.train, Images):
        hidden = (case["hidden"], case["hidden"])
        features = len(parts.train.columns)
        return real_nvp(features, depth=case["depth"], hidden=hidden, mixing="lu")
    return glow(
        parts.train.shape,
        levels=case["levels"],
        steps=case["depth"],
        hidden=case["hidden"],
        dequantize="uniform",
        values=parts.train.values,
    )


LEAST, MOST = 5, 47  # factors of depth in the source
LINES: tuple[tuple[int, Literal["dash", "dot"]], ...] = ((LEAST, "dash"), (MOST, "dot"))


def findings(frame: pl.DataFrame, settings: DepthFactorSettings) -> Findings:
    """Returns the charts, the table and the sentences on them."""
    ended, stopped = that_ended(frame)
    there = "couplings_after" in ended.columns
    found = ended.drop_nulls("couplings_after") if there else ended.clear()
    return Findings(
        found=[
            f"{len(found)} of {len(ended)} trained flows were rewritten with one partition.",
            *stopped,
            *([] if found.is_empty() else _sentences(found)),
        ],
        differs=[
            "The source's bounds count layers for one linear map. Here whole trained flows are "
            "counted: their own couplings, and what is left of each map after its ends have "
            "joined the neighboring couplings.",
            "Six couplings for a map are a theorem found since; 47 were the source's proof.",
        ],
        charts=[] if found.is_empty() else _charts(found),
        tables=[_table(ended)] if len(ended) else [],
    )


def _sentences(found: pl.DataFrame) -> list[str]:
    ratios = found["couplings_after"] / found["couplings_before"]
    within = ratios.is_between(LEAST, MOST).sum()
    per_map = (found["couplings_after"] - found["couplings_before"]) / found["maps"]
    layers = found["twin_worst_layer"] / found["worst_layer"]
    times = found["twin_time_s"] / found["time_s"]
    return [
        f"Without their maps the flows are {_range(ratios)} times as deep, "
        f"{significant(ratios.median())} in the median: {within} of {len(found)} between {LEAST} "
        f"and {MOST} times. For each map {_range(per_map)} couplings came on top.",
        "The largest difference in log_prob is "
        f"{significant(found['difference_float64'].max(), 2)} nats in float64 and "
        f"{significant(found['difference_float32'].max(), 2)} in float32.",
        f"The worst conditioned layer of a twin is {_range(layers)} times as badly conditioned as "
        "that of the flow; no linear coupling has a condition number above "
        f"{significant(found['map_condition'].max())}.",
        f"A log_prob takes the twin {_range(times)} times as long, {significant(times.median())} "
        "in the median.",
    ]


def _range(values: pl.Series) -> str:
    return f"{significant(values.min())} to {significant(values.max())}"


def _charts(found: pl.DataFrame) -> list[Chart]:
    sets = found["data"].unique(maintain_order=True).to_list()
    rows = {name: found.filter(pl.col("data") == name) for name in sorted(sets)}
    before = [float(value) for value in sorted(found["couplings_before"].unique())]
    bounds = [
        Series(
            name=f"{times} times as many",
            x=[*before],
            y=[times * value for value in before],
            tone=7,
            dash=dash,
        )
        for times, dash in LINES
    ]
    return [
        Chart(
            name="couplings",
            title="Couplings with linear maps, and without",
            caption="A point is a trained flow. The lines are the factors of the source.",
            panels=[
                Panel(
                    x="couplings of the flow",
                    y="couplings of the twin",
                    x_log=True,
                    y_log=True,
                    series=[
                        *_points(rows, "couplings_before", "couplings_after"),
                        *bounds,
                    ],
                )
            ],
            columns=1,
        ),
        Chart(
            name="price",
            title="Conditioning and time, with and without",
            caption=(
                "Condition numbers: median over points of the largest of a layer. Times: "
                "log_prob, median of measurements in turns. The line marks equality."
            ),
            panels=[
                _against_twin(rows, "worst_layer", "worst layer", "condition number"),
                _against_twin(rows, "peak", "worst on the way", "condition number"),
                _against_twin(rows, "time_s", "log_prob", "seconds"),
            ],
        ),
    ]


def _points(rows: dict[str, pl.DataFrame], x: str, y: str) -> list[Series]:
    return [
        Series(
            name=name,
            x=part[x].to_list(),
            y=part[y].to_list(),
            tone=tone,
            dash="none",
        )
        for tone, (name, part) in enumerate(rows.items())
    ]


def _against_twin(rows: dict[str, pl.DataFrame], column: str, title: str, unit: str) -> Panel:
    """Returns a panel with a column of the twins against the same column of the flows."""
    every = sorted(value for part in rows.values() for value in part[column].drop_nulls())
    equal = Series(name="equal", x=every[:1] + every[-1:], y=every[:1] + every[-1:], tone=7)
    return Panel(
        title=title,
        x=f"{unit}, flow",
        y=f"{unit}, twin",
        x_log=True,
        y_log=True,
        series=[*_points(rows, column, f"twin_{column}"), equal],
    )


def _table(frame: pl.DataFrame) -> Table:
    columns = [
        "flow",
        "maps",
        "couplings",
        "of the twin",
        "times",
        "more for each map",
        "worst layer",
        "of the twin",
        "difference, nats",
        "log_prob, times as long",
    ]
    rows = []
    for row in frame.sort("what", "data", "shape", "depth", "seed").iter_rows(named=True):
        size = "couplings" if row["what"] == "table" else f"steps in {row['levels']} levels"
        name = f"{row['data']}, {row['shape']}, {row['depth']} {size}"
        if row.get("couplings_after") is None:
            rows.append([name, *["none found"] * (len(columns) - 1)])
            continue
        before, after = row["couplings_before"], row["couplings_after"]
        rows.append([
            name,
            str(row["maps"]),
            str(before),
            str(after),
            significant(after / before),
            significant((after - before) / row["maps"]),
            significant(row["worst_layer"]),
            significant(row["twin_worst_layer"]),
            significant(row["difference_float64"], 2),
            significant(row["twin_time_s"] / row["time_s"]),
        ])
    return Table(
        title="All flows",
        columns=columns,
        rows=rows,
        caption="Couplings of the twin are linear and nonlinear ones together. The difference is "
        "the largest of log_prob, in float64.",
    )


DEPTH_FACTOR = Study(
    name="depth-factor",
    title="How much smaller: from 1x1 convolutions to couplings",
    about="trained flows with linear maps between couplings, and what they are without",
    claim=(
        "Flows with 1x1 convolutions can be between 5 and 47 times smaller than flows of fixed "
        "partitions that compute the same: at least five couplings, and at most 47, for each "
        "linear layer that is replaced."
    ),
    settings=DepthFactorSettings,
    presets=Path(__file__).with_suffix(".toml"),
    cases=cases,
    measure=measure,
    findings=findings,
)
