"""The results of the study, as sentences, charts and tables."""

from collections.abc import Callable

import polars as pl
from polars.selectors import numeric

from kappaflow.report.charts import Chart, Panel, Series
from kappaflow.report.numbers import fixed, significant
from kappaflow_studies.engine.charts import (
    column_series,
    ends,
    groups,
    panel,
    quantile_series,
    ranged,
)
from kappaflow_studies.engine.report import StudyFindings, StudyTable
from kappaflow_studies.partition.measure import (
    HALVES,
    IMAGE_KINDS,
    LAST_CHANGES,
    TABLE_KINDS,
    PartitionSettings,
)
from kappaflow_studies.training import completed

DECIMALS = 3


def findings(frame: pl.DataFrame, settings: PartitionSettings) -> StudyFindings:
    """Returns the charts, the tables and the sentences on them."""
    frame, stopped = completed(frame)
    parts = groups(frame, "data", sorted(frame["data"].unique()))
    pairs = ((name, _against_twin(rows)) for name, rows in parts.items())
    compared = {name: pair for name, pair in pairs if pair is not None}
    return StudyFindings(
        found=[
            *_verdict(parts, compared),
            *(line for name in parts for line in _on_loss(name, parts[name], settings.seeds)),
            *(_on_training(name, *pair) for name, pair in compared.items()),
            *_on_twins(frame),
            *_on_conditioning(parts),
            *stopped,
        ],
        differs=[
            "The source trains longer, on images of 32 x 32 pixels and larger.",
            "At each depth our flows have equally many parameters, maps included. On images, "
            "fixed halves exchange the halves of the channels and use no checkerboards.",
        ],
        charts=charts(parts) if parts else [],
        tables=[table(frame) for table in (_losses, _conditions, _twins, _parameters) if parts],
    )


def _deepest(part: pl.DataFrame) -> pl.DataFrame:
    """Returns the rows of the largest depth that each kind has, medians over seeds."""
    shared = common(part)
    return medians(shared.filter(depth=shared["depth"].max()), "kind").sort("loss")


def _verdict(parts: dict[str, pl.DataFrame], compared: dict[str, tuple[dict, dict]]) -> list[str]:
    best = [rows["kind"][0] for rows in map(_deepest, parts.values()) if HALVES in rows["kind"]]
    if not best or not compared:
        return []
    maps = sum(kind != HALVES for kind in best)
    missed = sum(trained["loss"] > twin["twin_loss"] for twin, trained in compared.values())
    return [
        f"At equal depth another partition, or maps, beat fixed halves on {maps} of {len(best)} "
        "data sets. Fixed halves trained at the depth of the rewritten flow end worse than it on "
        f"{missed} of {len(compared)}: there the optimizer is the limit, not the representation."
    ]


def _on_loss(name: str, part: pl.DataFrame, seeds: int) -> list[str]:
    deepest = _deepest(part)
    if HALVES not in deepest["kind"]:
        return []
    losses = [fixed(loss, DECIMALS) for loss in deepest["loss"]]
    values = dict(zip(deepest["kind"], losses, strict=True))
    best, *others = deepest["kind"]
    listed = ", ".join(f"{kind} {values[kind]}" for kind in others if kind != HALVES)
    first = (
        f"the fixed halves are best, {values[HALVES]}"
        if best == HALVES
        else f"{best} {values[best]}, fixed halves {values[HALVES]}"
    )
    average = "one seed" if seeds == 1 else f"the median of {seeds} seeds"
    return [
        f"{name}, {int(deepest['couplings'][0])} couplings, {unit(name)}: {first}; "
        f"{listed} ({average})."
    ]


def _against_twin(part: pl.DataFrame) -> tuple[dict, dict] | None:
    """Returns the best twin, and fixed halves at least as deep; None if there are none."""
    trained = medians(part.filter(kind=HALVES), "couplings")
    twins = with_twins(part).filter(pl.col("kind") != LAST_CHANGES)
    if twins.is_empty() or trained.is_empty():
        return None
    twins = twins.filter(pl.col("twin_couplings_after") <= trained["couplings"].max())
    if twins.is_empty():
        return None
    deepest = twins.filter(pl.col("depth") == twins["depth"].max())
    best = medians(deepest, "kind").sort("twin_loss").row(0, named=True)
    deep_enough = trained.filter(pl.col("couplings") >= best["twin_couplings_after"])
    return best, deep_enough.row(0, named=True)


def _on_training(name: str, twin: dict, trained: dict) -> str:
    gap = trained["loss"] - twin["twin_loss"]
    verdict = (
        f"{fixed(gap, DECIMALS)} worse: the optimizer is the limit"
        if gap > 0
        else f"{fixed(-gap, DECIMALS)} better: trained, that depth is worth more than the maps"
    )
    couplings, depth, kind = (twin[key] for key in ("couplings", "twin_couplings_after", "kind"))
    larger = significant(trained["parameters"] / twin["parameters"], 2)
    return (
        f"{name}: {int(couplings)} couplings with {kind} equal {int(depth)} of fixed halves, with "
        f"{fixed(twin['twin_loss'], DECIMALS)}. Fixed halves trained with "
        f"{int(trained['couplings'])} couplings, and {larger} times the parameters, end at "
        f"{fixed(trained['loss'], DECIMALS)}, {verdict}."
    )


def _on_twins(frame: pl.DataFrame) -> list[str]:
    mixed = frame.filter(pl.col("kind") != HALVES)
    twins = with_twins(mixed)
    if twins.is_empty():
        return []
    halves = twins.filter((pl.col("kind") != LAST_CHANGES) & (pl.col("twin_maps") > 0))
    more = (halves["twin_couplings_after"] - halves["twin_couplings_before"]) / halves["twin_maps"]
    cost = ends(more, 2) if len(more) else ""
    costs = f"On halves each permutation or map costs {cost} couplings. " if cost else ""
    float64, float32 = (twins[f"twin_difference_{kind}"].max() for kind in ("float64", "float32"))
    return [
        f"{len(twins)} of {len(mixed)} trained flows were rewritten with one partition. {costs}"
        f"log_prob changes by at most {significant(float64, 2)} nats in float64, "
        f"{significant(float32, 2)} in float32; the worst layer is "
        f"{ends(twins['twin_worst_layer'] / twins['worst_layer'], 2)} times as badly conditioned."
    ]


def _on_conditioning(parts: dict[str, pl.DataFrame]) -> list[str]:
    sentences = []
    for name, part in parts.items():
        deepest = _deepest(part).sort("condition_middle")
        kinds = deepest["kind"].to_list()
        if HALVES in kinds:
            values = [significant(value) for value in deepest["condition_middle"]]
            halves = values[kinds.index(HALVES)]
            sentences.append(
                f"{name} from {values[0]} ({kinds[0]}) to {values[-1]} ({kinds[-1]}), "
                f"fixed halves {halves}"
            )
    if not sentences:
        return []
    return [f"Median condition numbers at the largest depth: {'; '.join(sentences)}."]


def _sets_and_kinds(frame: pl.DataFrame) -> dict[str, pl.DataFrame]:
    """Returns the rows of each set and kind, by their names."""
    sets = groups(frame, "data", sorted(frame["data"].unique()))
    return {
        f"{name}, {kind}": rows
        for name, part in sets.items()
        for kind, rows in groups(part, "kind", KINDS).items()
    }


def _by_depth(
    frame: pl.DataFrame, title: str, caption: str, cell: Callable[[pl.DataFrame], str]
) -> StudyTable:
    """Returns a table with a row for each set and kind, and a column for each shared depth."""
    shared, rows = common(frame), []
    depths = sorted(shared["depth"].unique())
    for name, part in _sets_and_kinds(shared).items():
        tables = groups(part, "depth", depths)
        rows.append([name, *(cell(tables[depth]) if depth in tables else "" for depth in depths)])
    columns = ["set, kind", *(f"depth {depth}" for depth in depths)]
    return StudyTable(title=title, columns=columns, rows=rows, caption=caption)


def _losses(frame: pl.DataFrame) -> StudyTable:
    def cell(rows: pl.DataFrame) -> str:
        loss = rows["loss"]
        middle, *limits = (fixed(v, DECIMALS) for v in (loss.median(), loss.min(), loss.max()))
        return middle if len(rows) == 1 else ranged(middle, *limits)

    caption = (
        "Median over seeds, and the smallest and the largest. Tables in nats, images in bits per "
        "dimension; depth counts couplings, of images the steps in each of two levels."
    )
    return _by_depth(frame, "Held-out loss", caption, cell)


CONDITION_COLUMNS = ("condition_middle", "condition_low", "condition_high")


def _conditions(frame: pl.DataFrame) -> StudyTable:
    def cell(rows: pl.DataFrame) -> str:
        middle = medians(rows, "depth")
        return ranged(*(significant(middle[column][0]) for column in CONDITION_COLUMNS))

    caption = (
        "Condition numbers of whole flows: median over held-out points, and the quantiles of 5 % "
        "and 95 %; medians over seeds."
    )
    return _by_depth(frame, "Conditioning", caption, cell)


def _parameters(frame: pl.DataFrame) -> StudyTable:
    def cell(rows: pl.DataFrame) -> str:
        count, equal = rows["parameters"][0], rows["of_halves"][0]
        widths = " x ".join(map(str, rows["widths"][0]))
        return f"{count:,} ({fixed(100 * (count / equal - 1), 1)} %), {widths}"

    caption = "Trained numbers, how many more than of the fixed halves, and the hidden widths."
    return _by_depth(frame, "Parameters", caption, cell)


TWIN_COLUMNS = [
    "set, kind, depth", "couplings", "of the twin", "difference, nats", "worst layer",
    "of the twin", "worst on the way", "of the twin",
]  # fmt: skip


def _twins(frame: pl.DataFrame) -> StudyTable:
    rows, conditions = [], ("worst_layer", "twin_worst_layer", "peak", "twin_peak")
    for name, part in _sets_and_kinds(frame.filter(pl.col("kind") != HALVES)).items():
        for depth, flows in groups(part, "depth", sorted(part["depth"].unique())).items():
            rewritten, row = with_twins(flows), [f"{name}, {depth}", str(flows["couplings"][0])]
            if rewritten.is_empty():
                rows.append([*row, "none found", *[""] * (len(TWIN_COLUMNS) - 3)])
                continue
            middle = medians(rewritten, "depth").row(0, named=True)
            rows.append([
                *row,
                f"{middle['twin_couplings_after']:g}",
                significant(rewritten["twin_difference_float64"].max(), 2),
                *(significant(middle[column]) for column in conditions),
            ])
    return StudyTable(
        title="Twins on one partition",
        columns=TWIN_COLUMNS,
        rows=rows,
        caption="Largest difference of log_prob, in float64. Condition numbers (medians over "
        "points and seeds) of the worst layer, and of the worst composition of the first layers. "
        f"Twins of {LAST_CHANGES!r} are on that partition, all others on halves.",
    )


KINDS = tuple(dict.fromkeys((*TABLE_KINDS, *IMAGE_KINDS)))
TONES = {kind: tone for tone, kind in enumerate(KINDS)}
RANGE = (0.0, 1.0)  # quantiles of a band over all seeds
COUPLINGS, CONDITION = "couplings", "condition number"
BANDED = (HALVES, "LU maps")  # kinds with a band; more bands would hide each other


def charts(parts: dict[str, pl.DataFrame]) -> list[Chart]:
    """Returns the charts of the rows of each set."""
    return [
        Chart(
            name="loss",
            title="Held-out loss against depth",
            caption="Median over seeds, and all of them as a band, with equally many parameters "
            "at each depth. For bananas the loss is the KL divergence from the known density.",
            panels=[_loss_panel(name, common(part)) for name, part in parts.items()],
        ),
        Chart(
            name="twins",
            title="Fixed halves: trained, and rewritten from another flow",
            caption="The line is trained from the start; each point is the twin of another flow. "
            "A point below the line: fixed halves can represent it, and training missed it.",
            panels=[_twin_panel(name, part) for name, part in parts.items()],
        ),
        Chart(
            name="conditioning",
            title="Conditioning against depth",
            caption="The whole flow, from standardized data to latent: the median over held-out "
            f"points, and of {' and '.join(BANDED)} the quantiles of 5 % and 95 % as a band. A "
            "twin is the same function and has the same.",
            panels=[_condition_panel(name, common(part)) for name, part in parts.items()],
            share_y=True,
        ),
        Chart(
            name="layers",
            title="The worst conditioned layer, before and after rewriting",
            caption="Median over points of the largest condition number of a layer: the trained "
            "flow, and dashed its twin, at the depth of the flow.",
            panels=[_layer_panel(name, with_twins(part)) for name, part in parts.items()],
            share_y=True,
        ),
    ]


def common(frame: pl.DataFrame) -> pl.DataFrame:
    """Returns the rows at depths that each kind has."""
    return frame.filter(pl.col("kind").n_unique().over("depth") > 1)


def with_twins(frame: pl.DataFrame) -> pl.DataFrame:
    """Returns the rows of flows that have a twin."""
    return frame.drop_nulls("twin_loss") if "twin_loss" in frame.columns else frame.clear()


def medians(frame: pl.DataFrame, by: str) -> pl.DataFrame:
    """Returns the medians of all numbers for each value of a column, ascending."""
    return frame.group_by(by).agg(numeric().exclude(by).median()).sort(by)


def unit(name: str) -> str:
    """Returns the name of the loss of a set, with its unit."""
    if name.startswith("bananas-"):
        return "KL divergence, nats"
    return "bits per dimension" if name == "digits" else "held-out NLL, nats"


def _loss_panel(name: str, part: pl.DataFrame) -> Panel:
    series = [
        quantile_series(rows, "couplings", "loss", name=kind, tone=TONES[kind], spread=RANGE)
        for kind, rows in groups(part, "kind", KINDS).items()
    ]
    return panel(name, COUPLINGS, unit(name), series, log="x")


def _twin_panel(name: str, part: pl.DataFrame) -> Panel:
    halves, trained = part.filter(kind=HALVES), f"{HALVES}, trained"
    series = [
        quantile_series(
            halves, "couplings", "loss", name=trained, tone=TONES[HALVES], spread=RANGE
        )
    ]
    for kind, rows in groups(with_twins(part), "kind", KINDS).items():
        if kind != LAST_CHANGES:
            middle, x, y = medians(rows, "depth"), "twin_couplings_after", "twin_loss"
            title, tone = f"twin of {kind}", TONES[kind]
            series.append(column_series(middle, x, y, name=title, tone=tone, kind="points"))
    return panel(name, COUPLINGS, unit(name), series, log="x")


def _condition_panel(name: str, part: pl.DataFrame) -> Panel:
    series = []
    for kind, rows in groups(part, "kind", KINDS).items():
        band = ("condition_low", "condition_high") if kind in BANDED else (None, None)
        middle, y = medians(rows, "couplings"), "condition_middle"
        series.append(
            column_series(middle, "couplings", y, name=kind, tone=TONES[kind], band=band)
        )
    return panel(name, COUPLINGS, CONDITION, series)


def _layer_panel(name: str, twins: pl.DataFrame) -> Panel:
    series: list[Series] = []
    for kind, rows in groups(twins, "kind", KINDS).items():
        x, style = "couplings", {"tone": TONES[kind], "spread": None}
        twin = f"{kind}, twin"
        series.append(quantile_series(rows, x, "worst_layer", name=kind, **style))
        series.append(
            quantile_series(rows, x, "twin_worst_layer", name=twin, kind="dashed", **style)
        )
    return panel(name, COUPLINGS, CONDITION, series)
