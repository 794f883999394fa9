"""The results of the study, as sentences and a table."""

import math

import polars as pl

from kappaflow.report.numbers import fixed, significant, with_error
from kappaflow_studies.depth_conditioning.charts import TIMES, charts
from kappaflow_studies.depth_conditioning.ideal_couplings import last_whitening_factor
from kappaflow_studies.depth_conditioning.measure import ROTATIONS, DepthConditioningSettings
from kappaflow_studies.depth_conditioning.peers import OURS
from kappaflow_studies.engine.report import Findings, Table

GONE = 1e-9  # nats: a smaller loss counts as zero


def findings(frame: pl.DataFrame, settings: DepthConditioningSettings) -> Findings:
    """Returns the charts, the table and the sentences on them."""
    flows = frame.filter(pl.col("what") == "flow")
    whitening = frame.filter(pl.col("what") == "whitening")
    deepest = flows.filter(pl.col("depth") == max(settings.depths))
    return Findings(
        found=[
            *_on_condition(deepest, settings),
            _on_products(flows, deepest),
            _on_gradients(deepest),
            _on_likelihood(flows, settings),
            *_on_whitening(whitening, settings),
        ],
        differs=[
            "The source says that the extreme singular values of a composition are the products "
            "of those of its layers. They are bounded by these products, and are measured next to "
            "them.",
            "All flows are RealNVPs with networks of the same widths, each as its library's "
            "documentation makes it, with its default scales and initialization, and all are "
            "trained in the same way, on new draws at each step. The default scale of nflows is a "
            "sigmoid, which contracts and can hardly stretch.",
            "The bounds on whitening are those of Draxler, Schnörr and Köthe (2022), derived "
            "independently: the paper was not at hand. Their layers are ideal, fitted one after "
            "another.",
            *_missing(flows, settings),
        ],
        charts=charts(flows, whitening, settings),
        tables=[_table(deepest, settings)],
    )


def _missing(flows: pl.DataFrame, settings: DepthConditioningSettings) -> list[str]:
    absent = [name for name in settings.libraries if name not in set(flows["library"])]
    return [f"Not installed, and so left out: {', '.join(absent)}."] if absent else []


def _by_library(table: pl.DataFrame, value: pl.Expr) -> dict[str, float]:
    """Returns the median of an expression for each library, in their order."""
    found = table.group_by("library", maintain_order=True).agg(value.median().alias("value"))
    return dict(found.select("library", "value").iter_rows())


def _compared(values: dict[str, float], digits: int = 2) -> str:
    """Returns the number of our flow, and the smallest and the largest of the others."""
    parts = [f"kappaflow {significant(values[OURS], digits)}"] if OURS in values else []
    others = sorted((value, name) for name, value in values.items() if name != OURS)
    for value, name in dict.fromkeys((others[0], others[-1])) if others else ():
        parts.append(f"{name} {significant(value, digits)}")
    return ", ".join(parts)


def _on_condition(deepest: pl.DataFrame, settings: DepthConditioningSettings) -> list[str]:
    condition = pl.col("condition_median")
    start, trained = (
        {
            distribution: _by_library(
                deepest.filter((pl.col("law") == distribution) & (pl.col("when") == when)),
                condition,
            )
            for distribution in settings.distributions
        }
        for when in TIMES
    )
    ends = []
    for distribution, values in trained.items():
        exact = deepest.filter(pl.col("law") == distribution)["reference"].median()
        low, high = min(values.values()), max(values.values())
        ends.append(
            f"{significant(low, 2)} to {significant(high, 2)} on the {distribution}, where an "
            f"exact map has {significant(exact, 2)}"
        )
    at_start = "; ".join(
        f"on the {distribution} {_compared(values)}" for distribution, values in start.items()
    )
    return [
        f"Median condition number of {max(settings.depths)} couplings at the start, ours and the "
        f"least and the most of the others: {at_start}.",
        f"When they are trained: {'; '.join(ends)}.",
    ]


def _on_products(flows: pl.DataFrame, deepest: pl.DataFrame) -> str:
    trained = deepest.filter(pl.col("when") == "trained")
    excess = pl.col("condition_product_median") / pl.col("condition_median")
    broken = len(flows.filter(pl.col("within_products") < 1))
    where = f"but for {broken} of {len(flows)} measurements" if broken else "at every point"
    return (
        f"The products over the layers bound the singular values, {where}, and say little of "
        "them: when the deepest flows are trained, the product of the layers' condition numbers "
        f"is so many times that of the whole: {_compared(_by_library(trained, excess))}."
    )


def _on_gradients(deepest: pl.DataFrame) -> str:
    norms = pl.col("gradient_norms").list
    start, trained = (deepest.filter(pl.col("when") == when) for when in TIMES)
    return (
        "The largest gradient by a layer of the deepest flows at the start: "
        f"{_compared(_by_library(start, norms.max()))}; the largest over the smallest "
        f"{_compared(_by_library(start, norms.max() / norms.min()))}. When they are trained, the "
        f"largest is {_compared(_by_library(trained, norms.max()))}."
    )


def _on_likelihood(flows: pl.DataFrame, settings: DepthConditioningSettings) -> str:
    trained = flows.filter(pl.col("when") == "trained")
    parts = []
    for distribution in settings.distributions:
        best = (
            trained.filter(pl.col("law") == distribution)
            .group_by("library", "depth", maintain_order=True)
            .agg(pl.col("gap").mean())
        )
        least: dict[str, float] = {}
        for library, gap in best.select("library", "gap").iter_rows():
            least[library] = min(gap, least.get(library, math.inf))
        parts.append(f"on the {distribution} {_compared(least)}")
    stopped = trained["failed_at"].count()
    failed = f" {stopped} trainings met a loss that is not finite." if stopped else ""
    return f"What the likelihood lacks at the best depth, in nats: {'; '.join(parts)}.{failed}"


def _on_whitening(whitening: pl.DataFrame, settings: DepthConditioningSettings) -> list[str]:
    means = whitening.group_by("scheme", "layer").agg(
        pl.col("loss").mean(), pl.col("loss").max().alias("worst"), pl.col("expected").mean()
    )
    of = {name[0]: table.sort("layer") for name, table in means.group_by("scheme")}
    rotated = of[ROTATIONS]
    ratios = (rotated["loss"] / rotated["loss"].shift(1))[1:]
    bounds = (rotated["expected"] / rotated["loss"].shift(1))[1:]
    exact = last_whitening_factor(settings.features, settings.features // 2)
    fixed_one = of["one partition"]["loss"]
    digits = of["binary digits"].filter(pl.col("worst") < GONE)["layer"].min()
    permuted = of["random permutations"].filter(pl.col("worst") < GONE)["layer"].min()
    done = f"after {permuted} layers" if permuted is not None else "not within these layers"
    return [
        "Ideal layers with random rotations take the loss of a Gaussian down by a factor of "
        f"{fixed(ratios[0], 2)} at first and {fixed(ratios[-1], 2)} at last, where the bound says "
        f"{fixed(bounds[0], 2)} and {fixed(bounds[-1], 2)}, and the exact limit is "
        f"{fixed(exact, 2)}.",
        f"On one partition the second layer has nothing left to do: {significant(fixed_one[1])} "
        f"nats after one layer, {significant(fixed_one[-1])} after {len(fixed_one) - 1}. "
        f"Partitions by binary digits whiten exactly, after {digits} layers for each of the "
        f"draws; random permutations do so {done}.",
    ]


def _table(deepest: pl.DataFrame, settings: DepthConditioningSettings) -> Table:
    rows = []
    for distribution in settings.distributions:
        for library in deepest["library"].unique(maintain_order=True):
            cells = [f"{distribution}, {library}"]
            here = deepest.filter((pl.col("law") == distribution) & (pl.col("library") == library))
            start, trained = (here.filter(pl.col("when") == when) for when in TIMES)
            for table in (start, trained):
                cells.append(significant(table["condition_median"].median()))
                cells.append(significant(table["condition_product_median"].median()))
            cells.append(with_error(trained["gap"].mean(), trained["gap_error"].mean()))
            cells.append(significant(start["finite_share"].mean(), 4))
            rows.append(cells)
    return Table(
        title=f"Flows with {max(settings.depths)} couplings",
        columns=[
            "distribution, library",
            "condition number at the start",
            "product of the layers'",
            "condition number trained",
            "product of the layers'",
            "nats a point lacking",
            "share finite in float32 at the start",
        ],
        rows=rows,
        caption="Medians over points. Measured in float64; trained in float32.",
    )
