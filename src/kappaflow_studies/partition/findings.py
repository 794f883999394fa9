"""The results of the study, as sentences and tables."""

import polars as pl

from kappaflow.report.numbers import fixed, significant
from kappaflow_studies.engine.report import Findings, Table
from kappaflow_studies.partition.charts import (
    DECIMALS,
    KINDS,
    charts,
    common,
    describe_value,
    medians,
    unit,
    with_twins,
)
from kappaflow_studies.partition.measure import HALVES, ONE, PartitionSettings
from kappaflow_studies.training import that_ended


def findings(frame: pl.DataFrame, settings: PartitionSettings) -> Findings:
    """Returns the charts, the tables and the sentences on them."""
    frame, stopped = that_ended(frame)
    sets = sorted(frame["data"].unique())
    parts = {name: frame.filter(pl.col("data") == name) for name in sets}
    return Findings(
        found=[
            *(text for name in sets for text in _on_loss(name, parts[name], settings.seeds)),
            *_on_twins(frame),
            *(text for name, part in parts.items() for text in _on_training(name, part)),
            *_on_conditioning(parts),
            *stopped,
        ],
        differs=[
            "The networks, the data and the number of steps are ours; the source compares "
            "partitions on images of 32 x 32 pixels and larger, and trains for longer.",
            "All flows of one depth have equally many parameters here, those of the maps "
            "included: the hidden layers of flows with maps are narrower by as many.",
            "Fixed halves of images are the same Glow with its 1x1 convolutions replaced by an "
            "exchange of the halves: no checkerboards, and no other networks.",
        ],
        charts=[] if frame.is_empty() else charts(frame),
        tables=[table(frame) for table in (_losses, _conditions, _twins, _parameters) if sets],
    )


def _deepest(part: pl.DataFrame) -> pl.DataFrame:
    """Returns the rows of the largest depth that each kind has, medians over seeds."""
    shared = common(part)
    at = shared.filter(pl.col("depth") == shared["depth"].max())
    return medians(at, "kind").sort("loss")


def _on_loss(name: str, part: pl.DataFrame, seeds: int) -> list[str]:
    at = _deepest(part)
    if HALVES not in at["kind"]:
        return []
    couplings = int(at["couplings"][0])
    values = dict(zip(at["kind"], at["loss"], strict=True))
    others = [
        f"{kind} {fixed(values[kind], DECIMALS)}" for kind in at["kind"][1:] if kind != HALVES
    ]
    best = at["kind"][0]
    of = "one seed" if seeds == 1 else f"the median of {seeds} seeds"
    if best == HALVES:
        return [
            f"{name}, {couplings} couplings, {unit(name)}: the fixed halves are best, "
            f"{fixed(values[HALVES], DECIMALS)}; {', '.join(others)} ({of})."
        ]
    return [
        f"{name}, {couplings} couplings, {unit(name)}: {best} {fixed(values[best], DECIMALS)}, "
        f"fixed halves {fixed(values[HALVES], DECIMALS)}; {', '.join(others)} ({of})."
    ]


def _on_twins(frame: pl.DataFrame) -> list[str]:
    mixed = frame.filter(pl.col("kind") != HALVES)
    twins = with_twins(mixed)
    if twins.is_empty():
        return []
    halves = twins.filter((pl.col("kind") != ONE) & (pl.col("twin_maps") > 0))
    more = (
        (halves["twin_couplings_after"] - halves["twin_couplings_before"]) / halves["twin_maps"]
    ).to_list()
    worse = (twins["twin_worst_layer"] / twins["worst_layer"]).to_list()
    sentences = [
        f"{len(twins)} of {len(mixed)} trained flows were rewritten with one partition. Their "
        f"log_prob differs by at most {significant(twins['twin_difference_float64'].max(), 2)} "
        f"nats in float64, {significant(twins['twin_difference_float32'].max(), 2)} in float32; "
        f"the worst conditioned layer of a twin is {significant(min(worse), 2)} to "
        f"{significant(max(worse), 2)} times as badly conditioned as that of the flow."
    ]
    if more:
        sentences.append(
            f"On halves a permutation or a map costs {significant(min(more), 2)} to "
            f"{significant(max(more), 2)} couplings more, those that bring the features back at "
            "the end counted."
        )
    return sentences


def _on_training(name: str, part: pl.DataFrame) -> list[str]:
    """Returns sentences that separate the effects of representation and optimization.

    They use the best twin of the largest depth for which fixed halves were trained with at least
    the depth of the twin: these can represent the twin.
    """
    trained = medians(part.filter(pl.col("kind") == HALVES), "couplings")
    twins = with_twins(part).filter(pl.col("kind") != ONE)
    if twins.is_empty() or trained.is_empty():
        return []
    twins = twins.filter(pl.col("twin_couplings_after") <= trained["couplings"].max())
    if twins.is_empty():
        return []
    deepest = twins.filter(pl.col("depth") == twins["depth"].max())
    best = medians(deepest, "kind").sort("twin_loss").row(0, named=True)
    depth = best["twin_couplings_after"]
    own = trained.filter(pl.col("couplings") >= depth).row(0, named=True)
    gap = own["loss"] - best["twin_loss"]
    verdict = (
        f"{fixed(gap, DECIMALS)} worse: the optimizer is the limit, not the representation"
        if gap > 0
        else f"{fixed(-gap, DECIMALS)} better: trained, that depth is worth more than the maps"
    )
    larger = significant(own["parameters"] / best["parameters"], 2)
    return [
        f"{name}: the twin of the flow of {int(best['couplings'])} couplings with {best['kind']} "
        f"has {int(depth)} of fixed halves and {describe_value(name, best['twin_loss'])}. Fixed "
        f"halves trained from the start with {int(own['couplings'])}, and {larger} times the "
        f"parameters of that flow, end at {fixed(own['loss'], DECIMALS)}, {verdict}."
    ]


def _on_conditioning(parts: dict[str, pl.DataFrame]) -> list[str]:
    sentences = []
    for name, part in parts.items():
        at = _deepest(part).sort("condition_middle")
        if HALVES not in at["kind"]:
            continue
        halves = at.filter(pl.col("kind") == HALVES)["condition_middle"][0]
        low, high = at.row(0, named=True), at.row(-1, named=True)
        sentences.append(
            f"{name} from {significant(low['condition_middle'])} ({low['kind']}) to "
            f"{significant(high['condition_middle'])} ({high['kind']}), fixed halves "
            f"{significant(halves)}"
        )
    if not sentences:
        return []
    return [f"Median condition numbers at the largest depth: {'; '.join(sentences)}."]


def _losses(frame: pl.DataFrame) -> Table:
    depths = sorted(common(frame)["depth"].unique())
    rows = []
    for (name, kind), of_kind in _groups(common(frame)):
        cells = []
        for depth in depths:
            losses = of_kind.filter(pl.col("depth") == depth)["loss"]
            cells.append(_with_range(losses) if len(losses) else "")
        rows.append([f"{name}, {kind}", *cells])
    return Table(
        title="Held-out loss",
        columns=["set, kind", *(f"depth {depth}" for depth in depths)],
        rows=rows,
        caption="Median over seeds, and the least and the largest where there are several. Tables "
        "in nats, images in bits per dimension; depth counts couplings, of images the steps in "
        "each of two levels.",
    )


def _with_range(losses: pl.Series) -> str:
    middle = fixed(losses.median(), DECIMALS)
    if len(losses) == 1:
        return middle
    return f"{middle} ({fixed(losses.min(), DECIMALS)} to {fixed(losses.max(), DECIMALS)})"


def _conditions(frame: pl.DataFrame) -> Table:
    depths = sorted(common(frame)["depth"].unique())
    rows = []
    for (name, kind), of_kind in _groups(common(frame)):
        cells = []
        for depth in depths:
            at = medians(of_kind.filter(pl.col("depth") == depth), "depth")
            ends = [significant(at[f"condition_{end}"].first()) for end in ("low", "high")]
            middle = significant(at["condition_middle"].first())
            cells.append("" if at.is_empty() else f"{middle} ({' to '.join(ends)})")
        rows.append([f"{name}, {kind}", *cells])
    return Table(
        title="Conditioning",
        columns=["set, kind", *(f"depth {depth}" for depth in depths)],
        rows=rows,
        caption="Condition numbers of whole flows: median over held-out points, and the quantiles "
        "of 5 % and 95 %; of several seeds the medians of these.",
    )


def _twins(frame: pl.DataFrame) -> Table:
    columns = [
        "set, kind, depth",
        "couplings",
        "of the twin",
        "difference, nats",
        "worst layer",
        "of the twin",
        "worst on the way",
        "of the twin",
    ]
    rows = []
    for (name, kind), of_kind in _groups(frame.filter(pl.col("kind") != HALVES)):
        for depth in sorted(of_kind["depth"].unique()):
            at = of_kind.filter(pl.col("depth") == depth)
            found = with_twins(at)
            if found.is_empty():
                rows.append([f"{name}, {kind}, {depth}", str(at["couplings"][0]), "none found"])
                rows[-1] += [""] * (len(columns) - 3)
                continue
            middle = medians(found, "depth").row(0, named=True)
            rows.append([
                f"{name}, {kind}, {depth}",
                str(at["couplings"][0]),
                f"{middle['twin_couplings_after']:g}",
                significant(found["twin_difference_float64"].max(), 2),
                *(
                    significant(middle[column])
                    for column in ("worst_layer", "twin_worst_layer", "peak", "twin_peak")
                ),
            ])
    return Table(
        title="Twins on one partition",
        columns=columns,
        rows=rows,
        caption="The difference is the largest of log_prob, in float64. Condition numbers, "
        "medians over points and seeds: of the worst layer, and of the worst composition of all "
        f"layers up to one. Twins are on halves; those of {ONE!r} on that partition.",
    )


def _parameters(frame: pl.DataFrame) -> Table:
    depths = sorted(common(frame)["depth"].unique())
    rows = []
    for (name, kind), of_kind in _groups(common(frame)):
        cells = []
        for depth in depths:
            at = of_kind.filter(pl.col("depth") == depth)
            if at.is_empty():
                cells.append("")
                continue
            count, equal = at["parameters"][0], at["of_halves"][0]
            widths = " x ".join(map(str, at["widths"][0]))
            cells.append(f"{count:,} ({fixed(100 * (count / equal - 1), 1)} %), {widths}")
        rows.append([f"{name}, {kind}", *cells])
    return Table(
        title="Parameters",
        columns=["set, kind", *(f"depth {depth}" for depth in depths)],
        rows=rows,
        caption="Numbers that are trained, how much more than of the fixed halves, and the widths "
        "of the hidden layers.",
    )


def _groups(frame: pl.DataFrame) -> list[tuple[tuple[str, str], pl.DataFrame]]:
    """Returns the rows of each set and kind, in their order."""
    found = []
    for name in sorted(frame["data"].unique()):
        for kind in KINDS:
            rows = frame.filter((pl.col("data") == name) & (pl.col("kind") == kind))
            if not rows.is_empty():
                found.append(((name, kind), rows))
    return found
