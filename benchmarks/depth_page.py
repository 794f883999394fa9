"""What depths on real data come to: tables and a chart of the page."""

from collections.abc import Iterable
from itertools import pairwise
from operator import itemgetter
from statistics import mean, median
from typing import Any

import numpy as np

from benchmarks.depth_on_real_data import WIDTH
from benchmarks.lines import Line, grouped
from benchmarks.tables import text_table
from kappaflow.report.charts import DATA, SAMPLES, SQUEEZE, Chart, Panel, line
from kappaflow.report.depth import DepthCurve, DepthPoint, pays
from kappaflow.report.numbers import significant
from kappaflow.runs.depth_curve import PARTITIONS, WORTH

Results = dict[str, Any]
TONES = dict(zip(PARTITIONS, (DATA, SAMPLES, SQUEEZE), strict=True))
OF_POINT = DepthPoint.model_fields
CERTAIN = 2  # standard errors
KINDS = {"real_nvp": "affine", "spline": "spline", "glow": "glow"}
OF_PRUNED = [
    "number", "couplings", "removed", "none removed", "time of a score", "test loss [nats]",
]  # fmt: skip


def depth_values(results: Results) -> Results:
    """Returns the values of the page; any of its files may be missing."""
    development = results.get("depth-development", {"lines": []})
    judged, pruned = results.get("depth-judged"), results.get("pruning")
    lines = sorted(_with_kinds(development["lines"]), key=itemgetter("model", "table"))
    of_tables = [one for one in lines if one["model"] != "glow"]
    tables = [one for one in of_tables if one["hidden"] == WIDTH]
    others = [one for one in of_tables if one["hidden"] != WIDTH]
    return {
        "other_widths": sorted({one["hidden"] for one in others}),
        "of_widths": sorted({one["table"] for one in others}),
        "doublings": _table_of_doublings(tables),
        "widths": _table_of_widths(of_tables),
        "depths": _table_of_depths(tables),
        "found": _found(tables),
        "strict": mean(map(_strictly_behind, tables)) if tables else 0.0,
        "mixing": _table_of_mixing(tables),
        "halves": _table_of_halves(tables),
        "rewritten": _table_of_rewritten(tables),
        "images": _table_of_images([one for one in lines if one["model"] == "glow"]),
        "judged": None if judged is None else judged_table(judged["lines"]),
        "pruning": None if pruned is None else pruning_values(pruned["lines"]),
        "steps": lines[0]["steps"] if lines else 0,
        "count": len({one["table"] for one in tables}),
        "seeds": 1 + max((one["seed"] for one in lines), default=0),
    }


def _with_kinds(lines: list[Line]) -> list[Line]:
    """Returns the lines with the kind of coupling as the name of the model."""
    return [one | {"model": KINDS[one["model"]]} for one in lines]


def curve_of(one: Line, *, partitions: Iterable[str] = tuple(PARTITIONS)) -> DepthCurve:
    """Returns the curve up to the first depth that gains too little, as it would be measured."""
    points = []
    for partition in partitions:
        for point in _points(one, partition):
            points.append(point)
            if point.gain is not None and not pays(point, WORTH):
                break
    return DepthCurve(data=one["table"], model=[], nats=WORTH, rows=0, points=points)


def _points(one: Line, partition: str) -> list[DepthPoint]:
    """Returns the whole grid of one partition."""
    values = [point for point in one["points"] if point["partition"] == partition]
    return [
        DepthPoint(**{name: value for name, value in point.items() if name in OF_POINT})
        for point in values
    ]


def _best(one: Line) -> DepthPoint:
    points = [point for name in PARTITIONS for point in _points(one, name)]
    return min(points, key=lambda point: point.nll)


def _strictly_behind(one: Line) -> float:
    """Returns how far depths whose gains are significant are behind the best, in nats."""
    least = []
    for partition in PARTITIONS:
        kept, *deeper = _points(one, partition)
        for point in deeper:
            if (point.gain or 0.0) <= max(WORTH, CERTAIN * (point.gain_error or 0.0)):
                break
            kept = point
        least.append(kept.nll)
    return min(least) - _best(one).nll


def _table_of_depths(lines: list[Line]) -> str:
    """Returns the recommended depth of each table, and the best of the whole grid."""
    rows = []
    for (table, model), seeds in grouped(lines, ("table", "model")).items():
        chosen = [curve_of(one).best for one in seeds]
        best = [_best(one) for one in seeds]
        rows.append([
            table,
            model,
            _unique(chosen),
            f"{mean(point.nll for point in chosen):.3f}",
            significant(median(point.condition_number for point in chosen)),
            _unique(best),
            f"{mean(a.nll - b.nll for a, b in zip(chosen, best, strict=True)):.3f}",
        ])
    head = [
        "table", "couplings", "recommended", "test NLL", "condition 95 %", "best of the grid",
        "nats behind it",
    ]  # fmt: skip
    return text_table(head, rows)


def _unique(points: list[DepthPoint]) -> str:
    """Returns the partitions and depths of the points, each once."""
    return ", ".join(dict.fromkeys(f"{point.partition} {point.depth}" for point in points))


def _found(lines: list[Line]) -> Results:
    """Returns the figures of the sentences, by kind of coupling."""
    found = {}
    for (model,), some in grouped(lines, ("model",)).items():
        chosen, best = [curve_of(one).best for one in some], [_best(one) for one in some]
        behind = [a.nll - b.nll for a, b in zip(chosen, best, strict=True)]
        found[model] = {
            "least": min(point.depth for point in chosen),
            "median": median(point.depth for point in chosen),
            "most": max(point.depth for point in chosen),
            "behind": median(behind),
            "worst": max(behind),
        }
    return found


def _table_of_doublings(lines: list[Line]) -> str:
    """Returns what twice the couplings gain and cost, with a random order of the columns."""
    rows = []
    for (model,), some in grouped(lines, ("model",)).items():
        for depths in pairwise(
            sorted({point["depth"] for one in some for point in one["points"]})
        ):
            pairs = [
                [next(p for p in _points(one, "random") if p.depth == depth) for depth in depths]
                for one in some
            ]
            gains = [deeper.gain or 0.0 for _, deeper in pairs]
            certain = sum(
                (deeper.gain or 0.0) > CERTAIN * (deeper.gain_error or 0.0) for _, deeper in pairs
            )
            condition = median(b.condition_number / a.condition_number for a, b in pairs)
            time = median(b.score_s / a.score_s for a, b in pairs)
            rows.append(
                [model, " -> ".join(map(str, depths)), f"{median(gains):+.3f}",
                 f"{certain} of {len(pairs)}", f"{condition:.2f}", f"{time:.2f}"]
            )  # fmt: skip
    head = [
        "couplings", "number", "median gain", "beyond two errors", "condition number",
        "time of a score",
    ]  # fmt: skip
    return text_table(head, rows)


def _table_of_widths(lines: list[Line]) -> str:
    """Returns how far widths and depths are behind the best of them, on tables with all widths."""
    lines = [one for one in lines if one["seed"] == 0]  # the only one of the other widths
    widths = sorted({one["hidden"] for one in lines})
    by = {
        table: {one["hidden"]: _points(one, "random") for one in some}
        for (table,), some in grouped(
            [one for one in lines if one["model"] == "spline"], ("table",)
        ).items()
    }
    by = {table: points for table, points in by.items() if len(points) == len(widths)}
    if len(widths) < 2 or not by:
        return ""
    best = {
        table: min(point.nll for some in points.values() for point in some)
        for table, points in by.items()
    }
    depths = [point.depth for point in by[next(iter(by))][widths[0]]]
    rows = []
    for width in widths:
        cells = []
        for i in range(len(depths)):
            behind = median(points[width][i].nll - best[table] for table, points in by.items())
            condition = median(points[width][i].condition_number for points in by.values())
            cells.append(f"{behind:.3f} ({significant(condition)})")
        rows.append([str(width), *cells])
    return text_table(["width", *(f"{depth} couplings" for depth in depths)], rows)


def _table_of_mixing(lines: list[Line]) -> str:
    """Returns how many nats each partition gains over a random order, at equal depth."""
    rows = []
    for (model,), some in grouped(lines, ("model",)).items():
        depths = sorted({point["depth"] for one in some for point in one["points"]})
        for partition in ("mixing", "half"):
            for depth in depths:
                pairs = [one["against_random"][f"{partition} {depth}"] for one in some]
                better = sum(nats > CERTAIN * error for nats, error in pairs)
                worse = sum(nats < -CERTAIN * error for nats, error in pairs)
                gain = median(nats for nats, _ in pairs)
                time = median(_ratio(one, partition, depth) for one in some)
                rows.append(
                    [model, partition, str(depth), f"{gain:+.3f}",
                     f"{better} / {worse} of {len(pairs)}", f"{time:.2f}"]
                )  # fmt: skip
    head = ["couplings", "partition", "depth", "median gain", "better / worse", "time of a score"]
    return text_table(head, rows)


def _ratio(one: Line, partition: str, depth: int) -> float:
    """Returns the time of a score, over that with a random order."""
    times = {
        name: next(p.score_s for p in _points(one, name) if p.depth == depth)
        for name in (partition, "random")
    }
    return times[partition] / times["random"]


def _table_of_halves(lines: list[Line]) -> str:
    """Returns what the first half of the layers has reached, by depth."""
    rows = []
    for (model,), some in grouped(lines, ("model",)).items():
        points = [point for one in some for point in one["points"] if "gain_of_all" in point]
        for depth in sorted({point["depth"] for point in points}):
            of = [point for point in points if point["depth"] == depth]
            shares = [point["gain_of_half"] / point["gain_of_all"] for point in of]
            later = [point["gain_of_all"] - point["gain_of_half"] for point in of]
            spent = [np.log(p["condition_of_half"]) / np.log(p["condition_number"]) for p in of]
            idle = [point["idle"] for point in of]
            rows.append(
                [model, str(depth), f"{median(shares):.0%}", f"{median(later):.3f}",
                 f"{median(spent):.0%}", f"{mean(idle):.1f}"]
            )  # fmt: skip
    head = [
        "couplings", "depth", "of the gain, in the first half", "nats in the second half",
        "of the log condition number, in the first half", "layers not needed",
    ]  # fmt: skip
    return text_table(head, rows)


def _table_of_rewritten(lines: list[Line]) -> str:
    rows = []
    for (table,), some in grouped(lines, ("table",)).items():
        values = [one["rewritten"] for one in some if one.get("rewritten")]
        if values:
            counts = median(value["couplings"] for value in values)
            worst = max(value["layer_condition_number"] for value in values)
            rows.append([table, str(values[0]["depth"]), f"{counts:.0f}", significant(worst)])
    head = ["table", "with learned maps", "couplings of one partition", "worst condition number"]
    return text_table(head, rows) if rows else ""


def _table_of_images(lines: list[Line]) -> str:
    """Returns bits per dimension of each depth, the mean of the seeds."""
    if not lines:
        return ""
    rows = []
    depths = sorted({point["depth"] for one in lines for point in one["points"]})
    for partition in PARTITIONS:
        for depth in depths:
            of = [p for one in lines for p in _points(one, partition) if p.depth == depth]
            bits = [point.bits_per_dimension or 0.0 for point in of]
            spread = f" ± {np.std(bits, ddof=1) / len(bits) ** 0.5:.3f}" if len(bits) > 1 else ""
            rows.append(
                [partition, str(depth), f"{mean(bits):.3f}{spread}",
                 significant(median(point.condition_number for point in of)),
                 f"{median(point.time_s for point in of):.0f}"]
            )  # fmt: skip
    head = ["channels", "steps a level", "bits per dimension", "condition 95 %", "training [s]"]
    return text_table(head, rows)


def judged_table(lines: list[Line]) -> Results:
    """Returns what the recommended depth loses against the best of the grid, and its cost.

    The curve has a third of the steps of the grid; the recommended flow is that of the grid.
    """
    few, many = sorted({one["steps"] for one in lines})[:2]
    by = {(one["table"], one["model"], one["seed"], one["steps"]): one for one in lines}
    rows, losses, costs = [], [], []
    for (table, model, seed, steps), short in by.items():
        full = by.get((table, model, seed, many))
        if steps != few or full is None:
            continue
        partitions = [name for name in PARTITIONS if _points(short, name)]
        curve = curve_of(short, partitions=partitions)
        chosen = curve.best
        grid = [point for name in partitions for point in _points(full, name)]
        best = min(grid, key=lambda point: point.nll)
        trained = next(
            p for p in grid if (p.partition, p.depth) == (chosen.partition, chosen.depth)
        )
        losses.append(trained.nll - best.nll)
        costs.append(sum(point.time_s for point in curve.points) / best.time_s)
        rows.append(
            [table, f"{chosen.partition} {chosen.depth}", f"{trained.nll:.3f}",
             f"{best.partition} {best.depth}", f"{best.nll:.3f}", f"{losses[-1]:.3f}",
             f"{costs[-1]:.2f}"]
        )  # fmt: skip
    head = [
        "table", "recommended", "its NLL", "best of the grid", "its NLL", "nats behind",
        "cost of the curve",
    ]  # fmt: skip
    return {
        "table": text_table(head, rows),
        "within": sum(loss <= 0.03 for loss in losses),
        "count": len(losses),
        "worst": max(losses, default=0.0),
        "cost": median(costs) if costs else 0.0,
        "cheap": sum(cost < 1.5 for cost in costs),
        "few": few,
        "many": many,
    }


def pruning_values(lines: list[Line]) -> Results:
    """Returns the table of pruned flows, and the medians for each number of couplings before."""
    lines = sorted(_with_kinds(lines), key=itemgetter("table", "model", "depth"))
    rows = [
        [one["table"], one["model"], f"{one['depth']} -> {one['kept']}",
         f"{one['loss']:+.3f} ± {one['error']:.3f}", f"{one['time']:.2f}",
         " -> ".join(significant(number) for number in one["condition_numbers"])]
        for one in lines
    ]  # fmt: skip
    head = [
        "table",
        "couplings",
        "number",
        "test loss [nats]",
        "time of a score",
        "condition 95 %",
    ]
    groups = grouped(lines, ("depth", "model")) | grouped(lines, ("depth",))
    return {
        "table": text_table(head, rows),
        "summary": text_table(OF_PRUNED, [_pruned(*group) for group in groups.items()]),
        "depths": sorted({one["depth"] for one in lines}),
    }


def _pruned(group: tuple[Any, ...], lines: list[Line]) -> list[str]:
    """Returns the row of some flows of one depth: the medians."""
    depth, *models = group
    loss = median(one["loss"] for one in lines)
    return [
        str(depth),
        *(models or ["both"]),
        f"{median(1 - one['kept'] / depth for one in lines):.0%}",
        f"{sum(one['kept'] == depth for one in lines)} of {len(lines)}",
        f"{median(one['time'] for one in lines):.2f}",
        f"{loss:+.3f}",
    ]


def depth_chart(result: Results) -> Chart:
    """Returns how far each depth is behind the best of the grid, the median of all tables."""
    panels = []
    lines = _with_kinds(result["lines"])
    tables = [one for one in lines if one["model"] != "glow" and one["hidden"] == WIDTH]
    for (model,), some in grouped(tables, ("model",)).items():
        depths = sorted({point["depth"] for one in some for point in one["points"]})
        series = []
        for partition in PARTITIONS:
            behind = [
                median(
                    next(p.nll for p in _points(one, partition) if p.depth == depth)
                    - _best(one).nll
                    for one in some
                )
                for depth in depths
            ]
            series.append(line(partition, depths, behind, TONES[partition]))
        x = f"number of {model} couplings"
        panels.append(Panel(x=x, x_log=True, y="nats behind the best", series=series))
    return Chart(
        name="benchmarks-depth",
        title="Depth on real tables",
        caption="How many nats flows of each depth are behind the best of all depths and "
        "partitions on the same table: the median of the development tables and seeds.",
        panels=panels,
        columns=2,
    )
