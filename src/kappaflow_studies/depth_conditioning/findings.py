"""The results of the study, as sentences and a table."""

import polars as pl

from kappaflow.report.numbers import fixed, significant, with_error
from kappaflow_studies.depth_conditioning.charts import TIMES, charts
from kappaflow_studies.depth_conditioning.ideal_couplings import last_whitening_factor
from kappaflow_studies.depth_conditioning.measure import ROTATIONS, DepthConditioningSettings
from kappaflow_studies.depth_conditioning.peers import OURS
from kappaflow_studies.engine.charts import ends, median
from kappaflow_studies.engine.report import Findings, Table

GONE = 1e-9  # nats: a smaller loss counts as zero


def findings(frame: pl.DataFrame, settings: DepthConditioningSettings) -> Findings:
    """Returns the charts, the table and the sentences on them."""
    flows, whitening = frame.filter(what="flow"), frame.filter(what="whitening")
    deepest = flows.filter(depth=max(settings.depths))
    absent = [name for name in settings.libraries if name not in set(flows["library"])]
    return Findings(
        found=[
            _on_products(flows, deepest),
            *_on_condition(deepest, settings),
            _on_gradients(deepest),
            _on_likelihood(flows, settings),
            *_on_whitening(whitening, settings),
        ],
        differs=[
            "The source says that the extreme singular values are products of those of the "
            "layers; the products are only bounds.",
            "All flows are RealNVPs of the same widths and training, built as their library "
            "documents. The default scale of nflows is a sigmoid, which can hardly stretch.",
            "The bounds on whitening are those of Draxler, Schnörr and Köthe (2022), derived "
            "independently.",
            *([f"Not installed, and so left out: {', '.join(absent)}."] if absent else []),
        ],
        charts=charts(flows, whitening, settings),
        tables=[_table(deepest, settings)],
    )


def _by_library(table: pl.DataFrame, value: pl.Expr) -> dict[str, float]:
    found = table.group_by("library", maintain_order=True).agg(value=value.median())
    return dict(found.select("library", "value").iter_rows())


def _compared(values: dict[str, float], digits: int = 2) -> str:
    """Returns the number of our flow, and the smallest and the largest of the others."""
    parts = [f"kappaflow {significant(values[OURS], digits)}"] if OURS in values else []
    others = sorted((value, name) for name, value in values.items() if name != OURS)
    for value, name in dict.fromkeys((others[0], others[-1])) if others else ():
        parts.append(f"{name} {significant(value, digits)}")
    return ", ".join(parts)


def _on_condition(deepest: pl.DataFrame, settings: DepthConditioningSettings) -> list[str]:
    condition, at_start, after = pl.col("condition_median"), [], []
    for law in settings.distributions:
        here = deepest.filter(law=law)
        start, trained = (_by_library(here.filter(when=when), condition) for when in TIMES)
        at_start.append(f"on the {law} {_compared(start)}")
        exact = significant(here["reference"].median(), 2)
        after.append(f"{ends(trained.values(), 2)} on the {law} (an exact map: {exact})")
    return [
        f"Median condition number of {max(settings.depths)} couplings at the start, ours and the "
        f"smallest and largest of the other libraries: {'; '.join(at_start)}.",
        f"After training: {'; '.join(after)}.",
    ]


def _on_products(flows: pl.DataFrame, deepest: pl.DataFrame) -> str:
    excess = pl.col("condition_product_median") / pl.col("condition_median")
    values = _by_library(deepest.filter(when="trained"), excess)
    broken = len(flows.filter(pl.col("within_products") < 1))
    where = f"except for {broken} of {len(flows)} measurements" if broken else "at every point"
    return (
        f"The products of the layers' singular values are loose bounds: they hold {where}, but in "
        "the deepest trained flows the product of the layers' condition numbers is larger than "
        f"the flow's by these factors: {_compared(values)}."
    )


def _on_gradients(deepest: pl.DataFrame) -> str:
    norms = pl.col("gradient_norms").list
    start, trained = (deepest.filter(when=when) for when in TIMES)
    return (
        "Largest gradient of a layer of the deepest flows: at the start "
        f"{_compared(_by_library(start, norms.max()))}; over the smallest "
        f"{_compared(_by_library(start, norms.max() / norms.min()))}; after training "
        f"{_compared(_by_library(trained, norms.max()))}."
    )


def _on_likelihood(flows: pl.DataFrame, settings: DepthConditioningSettings) -> str:
    trained = flows.filter(when="trained")
    parts = []
    for law in settings.distributions:
        means = trained.filter(law=law).group_by("library", "depth").agg(pl.col("gap").mean())
        least = means.group_by("library").agg(pl.col("gap").min())
        parts.append(f"on the {law} {_compared(dict(least.iter_rows()))}")
    stopped = trained["failed_at"].count()
    failed = f" {stopped} trainings met a loss that is not finite." if stopped else ""
    return f"Gap in likelihood at the best depth, in nats: {'; '.join(parts)}.{failed}"


def _on_whitening(whitening: pl.DataFrame, settings: DepthConditioningSettings) -> list[str]:
    loss = pl.col("loss")
    means = whitening.group_by("scheme", "layer").agg(
        loss.mean(), pl.col("expected").mean(), worst=loss.max()
    )
    of = {name[0]: table.sort("layer") for name, table in means.group_by("scheme")}
    rotated = of[ROTATIONS]
    ratios, bounds = (
        (rotated[column] / rotated["loss"].shift(1))[1:] for column in ("loss", "expected")
    )
    exact = last_whitening_factor(settings.features, settings.features // 2)
    fixed_one = of["one partition"]["loss"]
    digits, permuted = (
        of[scheme].filter(pl.col("worst") < GONE)["layer"].min()
        for scheme in ("binary digits", "random permutations")
    )
    done = "not within these layers" if permuted is None else f"after {permuted} layers"
    first, last, low, high = (fixed(v, 2) for v in (ratios[0], ratios[-1], bounds[0], bounds[-1]))
    return [
        "Ideal layers with random rotations reduce the loss of a Gaussian by a factor of "
        f"{first} at first and {last} at last; the bound is {low} and {high}, the exact limit "
        f"{fixed(exact, 2)}.",
        f"On one partition only the first layer helps: {significant(fixed_one[1])} nats after one "
        f"layer, {significant(fixed_one[-1])} after {len(fixed_one) - 1}. Partitions by binary "
        f"digits whiten exactly after {digits} layers for each Gaussian; random permutations "
        f"{done}.",
    ]


def _table(deepest: pl.DataFrame, settings: DepthConditioningSettings) -> Table:
    rows = []
    for law in settings.distributions:
        for library in deepest["library"].unique(maintain_order=True):
            here = deepest.filter(law=law, library=library)
            start, trained = (here.filter(when=when) for when in TIMES)
            rows.append([
                f"{law}, {library}",
                *(
                    significant(median(table[f"{column}_median"]))
                    for table in (start, trained)
                    for column in ("condition", "condition_product")
                ),
                with_error(trained["gap"].mean(), trained["gap_error"].mean()),
                significant(start["finite_share"].mean(), 4),
            ])
    return Table(
        title=f"Flows with {max(settings.depths)} couplings",
        columns=[
            "distribution, library", "condition number at the start", "product of the layers'",
            "condition number trained", "product of the layers'", "nats a point lacking",
            "share finite in float32 at the start",
        ],
        rows=rows,
        caption="Medians over points. Measured in float64; trained in float32.",
    )  # fmt: skip
