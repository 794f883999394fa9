"""How deep flows of real tables have to be: the full grid of depths, for each way of mixing.

Three questions: how many couplings do real tables need, does a learned mixing layer pay, and is
the last half of a deep flow only polishing?
"""

import time
from functools import partial
from itertools import pairwise
from pathlib import Path

import polars as pl
import torch
from torch import Tensor

import kappaflow as kf
from benchmarks.lines import Line, append_line, append_machine, key_of, read_lines, write_results
from benchmarks.machine import machine
from benchmarks.processes import console
from benchmarks.suite import KEPT
from benchmarks.tables_suite import data
from benchmarks.tables_suite.command import log_look
from kappaflow.runs.depth_curve import (
    PARTITIONS,
    WORTH,
    Examples,
    Kind,
    Plan,
    examples_of,
    flow_of_rows,
    rewritten_at,
    trained_at,
)
from kappaflow.training import Settings, loop
from kappaflow.training.measure import standard_error
from kappaflow.training.settings import OF_TABLES

DEPTHS = (2, 4, 8, 16, 32)
REWRITTEN = 4  # couplings with learned linear maps, as couplings of one partition
IMAGES = "digits"
MODELS: tuple[Kind, ...] = ("spline", "real_nvp")
STEPS = 1_000  # of each training, at all depths
MOST_TRAINED, MOST_TESTED = 20_000, 5_000  # rows
EXAMINED = 1_000  # rows at which the gains of layers are measured
KEY = ("table", "model", "seed", "steps", "hidden")
WIDTH = 64  # of the hidden layers of conditioners


def depth_on_real_data(
    *,
    part: data.Part = "development",
    models: list[Kind] = list(MODELS),  # noqa: B006
    partitions: list[str] = list(PARTITIONS),  # noqa: B006
    seeds: list[int] = [0],  # noqa: B006
    steps: int = STEPS,
    hidden: int = WIDTH,
    only: list[str] | None = None,
    results: Path = KEPT,
) -> None:
    """Train flows of 2 to 32 couplings on real tables, each way of mixing, from the start.

    Results that are in the file are not measured again. Each use of the judged tables is logged.

    Parameters
    ----------
    part
        Tables to measure: "development" or "judged".
    models
        Kinds of couplings.
    partitions
        Ways of mixing.
    seeds
        Seeds of the weights and the batches.
    steps
        Steps of each training, at all depths.
    hidden
        Width of the two hidden layers of each conditioner, for tables.
    only
        Names of tables, instead of all; "digits" for a Glow of the shipped images.
    results
        Folder of the files of results.
    """
    torch.set_num_threads(1)
    loop.clock = time.process_time
    file = results / f"depth-{part}.jsonl"
    append_machine(file, machine())
    if part == "judged":
        compared = f"depth-on-real-data: {', '.join(models)}, {steps} steps, {len(seeds)} seeds"
        log_look(results / "judged-looks.jsonl", compared)
    for seed in seeds:
        for table in only or data.names(part):
            for model in ("glow",) if table == IMAGES else models:
                done = {key_of(line, KEY) for line in read_lines(file)[0]}
                if (table, model, seed, steps, hidden) not in done:
                    line = measured(table, model, partitions, seed, steps, hidden)
                    append_line(file, line)
                    console.print(_said(line))
    lines, machines = read_lines(file)
    latest = [*{key_of(line, KEY): line for line in lines}.values()]
    write_results(file.with_suffix(".json"), {"machine": machines[-1], "lines": latest})


def measured(
    table: str, model: Kind, partitions: list[str], seed: int, steps: int, hidden: int
) -> Line:
    """Returns the figures of all depths and ways of mixing for one table and one seed."""
    examples = _examples(table)
    rows = len(examples.train)
    settings = Settings(**examples.defaults, seed=seed)
    epochs = max(1, round(steps / -(-rows // settings.rows_a_step(rows))))
    settings = settings.model_copy(update={"max_epochs": epochs})
    images = table == IMAGES
    depths, widths = (DEPTHS[:-1], None) if images else (DEPTHS, (hidden, hidden))
    plan = Plan(model, widths, depths[-1], WORTH, settings, None, progress=False)
    line: Line = {"table": table, "rows": rows, "model": model, "seed": seed, "steps": steps}
    line["hidden"] = hidden
    scores: dict[tuple[str, int], Tensor] = {}
    points = []
    for partition in partitions:
        for depth in depths:
            point, flow, scores[partition, depth] = trained_at(examples, plan, partition, depth)
            points.append(point.model_dump(exclude_none=True))
            if not images:
                points[-1] |= _by_layer(flow, examples)
            if partition == "mixing" and model == "real_nvp" and depth == REWRITTEN:
                other = rewritten_at(flow, examples, depth)
                line["rewritten"] = None if other is None else other.model_dump()
        for half, depth in pairwise(depths):
            point = next(p for p in points if (p["partition"], p["depth"]) == (partition, depth))
            point["gain"], point["gain_error"] = _difference(
                scores[partition, depth], scores[partition, half]
            )
    versus = {
        f"{partition} {depth}": _difference(scores[partition, depth], scores["random", depth])
        for partition, depth in scores
        if partition != "random" and ("random", depth) in scores
    }
    return line | {"points": points, "against_random": versus}


def _examples(table: str) -> Examples:
    """Returns the rows of a table of the suite, or the shipped images of that name."""
    if table == IMAGES:
        return examples_of(table)
    parts = data.load(table)
    train, validation, test = (
        kf.load_table(pl.DataFrame(rows[:most], schema=list(parts.columns)))
        for rows, most in (
            (parts.train, MOST_TRAINED),
            (parts.validation, MOST_TESTED),
            (parts.test, MOST_TESTED),
        )
    )
    build = partial(flow_of_rows, train, {})
    return Examples(train, validation, test, build, table, (), OF_TABLES)


def _difference(better: Tensor, worse: Tensor) -> tuple[float, float]:
    difference = better - worse
    return difference.mean().item(), standard_error(difference, None)


def _by_layer(flow: kf.Flow, examples: Examples) -> Line:
    """Returns the nats and the condition number that the first half of the layers has reached."""
    x = examples.test.batches(flow).x
    gains = kf.depth_gains(flow, x[:EXAMINED])
    half = len(gains.layers) // 2
    reached = (gains.log_prob[:-1] - gains.log_prob[0]).mean(1)
    return {
        "gain_of_half": reached[half].item(),
        "gain_of_all": reached[-1].item(),
        "condition_of_half": gains.condition_number[half - 1].item(),
        "idle": len(gains.idle),
    }


def _said(line: Line) -> str:
    best = min(line["points"], key=lambda point: point["nll"])
    return (
        f"{line['table']}, {line['model']}, seed {line['seed']}: best {best['partition']}, "
        f"{best['depth']} couplings, {best['nll']:.3f}"
    )
