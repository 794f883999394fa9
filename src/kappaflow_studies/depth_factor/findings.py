"""What it costs to do without linear maps, in sentences, charts and a table."""

from typing import Literal

import polars as pl

from kappaflow.report.charts import Chart, Panel, Series
from kappaflow.report.numbers import significant
from kappaflow_studies.depth_factor.cases import DepthFactorSettings
from kappaflow_studies.engine.study_content import Findings, Table
from kappaflow_studies.trained import that_ended

LEAST, MOST = 5, 47  # times, as the source says
LINES: tuple[tuple[int, Literal["dash", "dot"]], ...] = ((LEAST, "dash"), (MOST, "dot"))


def findings(frame: pl.DataFrame, settings: DepthFactorSettings) -> Findings:
    """Returns the charts and what they say."""
    ended, stopped = that_ended(frame)
    there = "couplings_after" in ended.columns
    found = ended.drop_nulls("couplings_after") if there else ended.clear()
    return Findings(
        found=[
            f"{len(found)} of {len(ended)} trained flows were written anew on one partition.",
            *stopped,
            *([] if found.is_empty() else _sentences(found)),
        ],
        differs=[
            "The source's bounds count layers for one linear map. Here whole trained flows are "
            "counted: their own couplings, and what is left of each map after its ends have "
            "joined the couplings beside it.",
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
                "Condition numbers are medians over points of the largest of one layer. Times are "
                "of log_prob, medians of measurements in turns. The line is equality."
            ),
            panels=[
                _beside(rows, "worst_layer", "worst layer", "condition number"),
                _beside(rows, "peak", "worst on the way", "condition number"),
                _beside(rows, "time_s", "log_prob", "seconds"),
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


def _beside(rows: dict[str, pl.DataFrame], column: str, title: str, unit: str) -> Panel:
    """Returns a panel of a column of the flows and of their twins."""
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
