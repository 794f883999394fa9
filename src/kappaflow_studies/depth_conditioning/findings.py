"""The results of the study, as sentences, charts and a table."""

import polars as pl

from kappaflow.report.charts import Chart, Panel, Series, SeriesKind
from kappaflow.report.numbers import fixed, significant, with_error
from kappaflow_studies.depth_conditioning.ideal_couplings import last_whitening_factor
from kappaflow_studies.depth_conditioning.measure import (
    ROTATIONS,
    SCHEMES,
    DepthConditioningSettings,
)
from kappaflow_studies.depth_conditioning.peers import OURS
from kappaflow_studies.engine.charts import column_series, ends, median, panel
from kappaflow_studies.engine.report import StudyFindings, StudyTable

ZERO_LOSS = 1e-9  # nats: a smaller loss counts as zero


def findings(frame: pl.DataFrame, settings: DepthConditioningSettings) -> StudyFindings:
    """Returns the charts, the table and the sentences on them."""
    flows, whitening = frame.filter(what="flow"), frame.filter(what="whitening")
    deepest = flows.filter(depth=max(settings.depths))
    absent = [name for name in settings.libraries if name not in set(flows["library"])]
    return StudyFindings(
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
    medians = table.group_by("library", maintain_order=True).agg(value=value.median())
    return dict(medians.select("library", "value").iter_rows())


def _compared(values: dict[str, float], digits: int = 2) -> str:
    """Returns the number of our flow, and the smallest and the largest of the others."""
    parts = [f"kappaflow {significant(values[OURS], digits)}"] if OURS in values else []
    others = sorted((value, name) for name, value in values.items() if name != OURS)
    for value, name in dict.fromkeys((others[0], others[-1])) if others else ():
        parts.append(f"{name} {significant(value, digits)}")
    return ", ".join(parts)


def _on_condition(deepest: pl.DataFrame, settings: DepthConditioningSettings) -> list[str]:
    condition, at_start, after = pl.col("condition_median"), [], []
    for distribution in settings.distributions:
        rows = deepest.filter(law=distribution)
        start, trained = (_by_library(rows.filter(when=when), condition) for when in TIMES)
        at_start.append(f"on the {distribution} {_compared(start)}")
        exact = significant(rows["reference"].median(), 2)
        after.append(f"{ends(trained.values(), 2)} on the {distribution} (an exact map: {exact})")
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
    for distribution in settings.distributions:
        means = (
            trained.filter(law=distribution).group_by("library", "depth").agg(pl.col("gap").mean())
        )
        least = means.group_by("library").agg(pl.col("gap").min())
        parts.append(f"on the {distribution} {_compared(dict(least.iter_rows()))}")
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
        of[scheme].filter(pl.col("worst") < ZERO_LOSS)["layer"].min()
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


def _table(deepest: pl.DataFrame, settings: DepthConditioningSettings) -> StudyTable:
    rows = []
    for distribution in settings.distributions:
        for library in deepest["library"].unique(maintain_order=True):
            flows = deepest.filter(law=distribution, library=library)
            start, trained = (flows.filter(when=when) for when in TIMES)
            rows.append([
                f"{distribution}, {library}",
                *(
                    significant(median(table[f"{column}_median"]))
                    for table in (start, trained)
                    for column in ("condition", "condition_product")
                ),
                with_error(trained["gap"].mean(), trained["gap_error"].mean()),
                significant(start["finite_share"].mean(), 4),
            ])
    return StudyTable(
        title=f"Flows with {max(settings.depths)} couplings",
        columns=[
            "distribution, library", "condition number at the start", "product of the layers'",
            "condition number trained", "product of the layers'", "nats a point lacking",
            "share finite in float32 at the start",
        ],
        rows=rows,
        caption="Medians over points. Measured in float64; trained in float32.",
    )  # fmt: skip


TIMES = {"start": "at the start", "trained": "trained"}
TONES = {"kappaflow": 0, "zuko": 1, "nflows": 2, "normflows": 3, "FrEIA": 7}
INK = 6
MAX_DRAWN = 1e9  # some flows of 64 couplings reach 1e94
CLIPPING_NOTE = f"Values above {MAX_DRAWN:.0e} are drawn there."
MIN_DRAWN_LOSS = 1e-3  # nats: smallest drawn loss of ideal layers
COUPLINGS = "couplings"


def charts(
    flows: pl.DataFrame, whitening: pl.DataFrame, settings: DepthConditioningSettings
) -> list[Chart]:
    """Returns the charts of flows, at the start and trained, and of ideal couplings."""
    names, present = list(settings.distributions), set(flows["library"])
    libraries = [name for name in reversed(TONES) if name in present]  # ours is drawn last
    ideal = whitening.filter(scheme=ROTATIONS)
    deepest = max(settings.depths)
    return [
        Chart(
            name="products",
            title="Singular values of the whole, and products of the layers'",
            caption="Trained flows, medians over points. Dashed: the product over the layers, an "
            "upper bound for the largest and a lower bound for the smallest singular value.",
            panels=[
                _products(flows, name, end, libraries) for name in names for end in ("max", "min")
            ],
            columns=2,
        ),
        Chart(
            name="condition",
            title="Condition number against depth",
            caption="From data to latent: the median over points, and the quantiles of 5 % and "
            f"95 % as a band. Dotted: an exact map to the standard normal. {CLIPPING_NOTE}",
            panels=[_condition(flows, name, when, libraries) for name in names for when in TIMES],
            columns=2,
            share_y=True,
        ),
        Chart(
            name="likelihood",
            title="Gap in likelihood",
            caption="Nats per test point below the true density, and two standard errors as a "
            "band. Dotted: as many ideal layers with random rotations, down to "
            f"{MIN_DRAWN_LOSS:g}. {CLIPPING_NOTE}",
            panels=[_likelihood(flows, ideal, name, libraries) for name in names],
            columns=2,
        ),
        Chart(
            name="gradients",
            title="Gradients by layer",
            caption="Norm of the gradient of the mean loss by the weights of a layer, for flows "
            f"with {deepest} couplings; a block of FrEIA has two. {CLIPPING_NOTE}",
            panels=[
                _gradients(flows.filter(depth=deepest), name, when, libraries, deepest)
                for name in names
                for when in TIMES
            ],
            columns=2,
            share_y=True,
        ),
        Chart(
            name="whitening",
            title="Ideal couplings, one after the other",
            caption=f"{settings.whitening_draws} Gaussians with {settings.features} features: "
            "mean, and quartiles as a band. Binary digits and permutations end at rounding. "
            "Dashed: the bound on the mean after a rotated layer.",
            panels=[_whitening(whitening), _factors(ideal, settings.features)],
            columns=2,
        ),
    ]


def _medians(table: pl.DataFrame, name: str) -> pl.DataFrame:
    """Returns medians over flows of the three quantiles over points, a row for each depth."""
    ends = [pl.col(f"{name}_{end}").median() for end in ("low", "median", "high")]
    return table.group_by("depth").agg(*ends).sort("depth")


def _condition(flows: pl.DataFrame, distribution: str, when: str, libraries: list[str]) -> Panel:
    of_distribution, y = flows.filter(law=distribution), "condition_median"
    series = []
    for library in libraries:
        medians = _medians(of_distribution.filter(when=when, library=library), "condition")
        style = {"name": library, "tone": TONES[library], "most": MAX_DRAWN}
        band = ("condition_low", "condition_high")
        series.append(column_series(medians, "depth", y, band=band, **style))
    exact = of_distribution.group_by("depth").agg(pl.col("reference").median()).sort("depth")
    style = {"name": "exact map", "tone": INK}
    series.append(column_series(exact, "depth", "reference", kind="dotted", **style))
    title = f"{distribution}, {TIMES[when]}"
    return panel(title, COUPLINGS, "condition number", series)


def _likelihood(
    flows: pl.DataFrame, ideal: pl.DataFrame, distribution: str, libraries: list[str]
) -> Panel:
    series: list[Series] = []
    gap, error = pl.col("gap"), 2 * pl.col("gap_error").mean() / pl.len().sqrt()
    for library in libraries:
        table = flows.filter(law=distribution, when="trained", library=library).group_by("depth")
        means = table.agg(gap.mean(), error=error).sort("depth")
        means = means.with_columns(low=gap - pl.col("error"), high=gap + pl.col("error"))
        style = {"name": library, "tone": TONES[library], "band": ("low", "high")}
        series.append(column_series(means, "depth", "gap", most=MAX_DRAWN, **style))
    if distribution == "Gaussian":
        layers = flows["depth"].unique().to_list()
        shown = pl.col("layer").is_in(layers), pl.col("loss") > MIN_DRAWN_LOSS
        losses = _means(ideal, "loss").filter(*shown)
        style = {"name": "ideal layers", "tone": INK, "kind": "dotted"}
        series.append(column_series(losses, "layer", "loss", **style))
    return panel(distribution, COUPLINGS, "nats a point", series)


def _products(flows: pl.DataFrame, distribution: str, end: str, libraries: list[str]) -> Panel:
    series = []
    for library in libraries:
        table = flows.filter(law=distribution, when="trained", library=library)
        for column, name, kind in (
            (f"sigma_{end}", library, "line"),
            (f"product_{end}", f"{library}, product", "dashed"),
        ):
            style = {"name": name, "tone": TONES[library], "kind": kind}
            y = f"{column}_median"
            series.append(column_series(_medians(table, column), "depth", y, **style))
    title = f"{distribution}, {'largest' if end == 'max' else 'smallest'}"
    return panel(title, COUPLINGS, "singular value", series)


def _gradients(
    flows: pl.DataFrame, distribution: str, when: str, libraries: list[str], depth: int
) -> Panel:
    series = []
    for library in libraries:
        norms = (
            flows.filter(law=distribution, when=when, library=library)
            .select(norm=pl.col("gradient_norms"))
            .with_columns(place=pl.int_ranges(1, pl.col("norm").list.len() + 1))
            .explode("norm", "place")
        )
        each = norms.group_by("place").agg(pl.col("norm").median()).sort("place")
        couplings = depth / max(1, len(each))  # couplings per layer
        each = each.with_columns(pl.col("place") * couplings)
        style = {"name": library, "tone": TONES[library], "most": MAX_DRAWN}
        series.append(column_series(each, "place", "norm", **style))
    title, x = f"{distribution}, {TIMES[when]}", "coupling, from the data"
    return panel(title, x, "norm", series, log="y")


def _means(table: pl.DataFrame, column: str) -> pl.DataFrame:
    """Returns the mean of a column over the Gaussians, and its quartiles, a row for each layer."""
    value = pl.col(column)
    quartiles = {end: value.quantile(q, "linear") for end, q in (("low", 0.25), ("high", 0.75))}
    return table.group_by("layer").agg(value.mean(), **quartiles).sort("layer")


def _whitening(whitening: pl.DataFrame) -> Panel:
    series = []
    for tone, scheme in enumerate(SCHEMES):
        table = _means(whitening.filter(scheme=scheme), "loss")
        style = {"name": scheme, "tone": tone, "band": ("low", "high")}
        series.append(column_series(table, "layer", "loss", **style))
    bound = _means(whitening.filter(scheme=ROTATIONS), "expected")
    style = {"name": "bound for rotations", "tone": 0, "kind": "dashed"}
    series.append(column_series(bound, "layer", "expected", **style))
    return panel("loss", "layers", "nats", series, log="y")


def _factors(ideal: pl.DataFrame, features: int) -> Panel:
    table = _means(ideal, "loss").join(_means(ideal, "expected"), on="layer").sort("layer")
    before = pl.col("loss").shift(1)
    table = table.with_columns(
        measured=pl.col("loss") / before,
        bound=pl.col("expected") / before,
        exact=pl.lit(last_whitening_factor(features, features // 2)),
    )[1:]
    lines: tuple[tuple[str, str, int, SeriesKind], ...] = (
        ("measured", ROTATIONS, 0, "line"),
        ("bound", "bound for rotations", 0, "dashed"),
        ("exact", "exact limit", INK, "dotted"),
    )
    series = [
        column_series(table, "layer", y, name=name, tone=tone, kind=kind)
        for y, name, tone, kind in lines
    ]
    return panel("factor of a rotated layer", "layers", "mean loss after / before", series, log="")
