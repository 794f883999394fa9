"""Prunes flows of the development tables, and measures what that costs on test rows."""

import time
from dataclasses import astuple
from pathlib import Path
from typing import Any

import torch

import kappaflow as kf
from benchmarks.depth_on_real_data import MOST_TESTED, MOST_TRAINED
from benchmarks.lines import Line, append_line, append_machine, key_of, read_lines, write_results
from benchmarks.machine import machine
from benchmarks.processes import console
from benchmarks.suite import KEPT
from benchmarks.tables_suite import data
from kappaflow.training import loop
from kappaflow.training.settings import OF_TABLES

MODELS: dict[str, dict[str, Any]] = {
    "spline": {"start": "gaussianize", "hidden": (64, 64)},
    "real_nvp": {"start": "whiten", "hidden": (96, 96)},
}
DEPTH = 16  # couplings of `kappaflow fit --model`
NATS = 0.02  # that pruning may cost
KEY = ("table", "model", "seed", "depth")


def pruning(
    *,
    seconds: float = 60.0,
    seed: int = 0,
    depth: int = DEPTH,
    only: list[str] | None = None,
    results: Path = KEPT,
) -> None:
    """Prune flows of the development tables, at a loss of 0.02 nats on validation rows.

    Results that are in the file are not measured again.

    Parameters
    ----------
    seconds
        Processor time of the training before; each training of pruning has a third of
        the epochs of `kappaflow fit`.
    seed
        Of the weights and the batches.
    depth
        Couplings before.
    only
        Names of tables, instead of all.
    results
        Folder of the files of results.
    """
    torch.set_num_threads(1)
    loop.clock = time.process_time
    file = results / "pruning.jsonl"
    append_machine(file, machine())
    done = {key_of(line, KEY) for line in read_lines(file)[0]}
    for table in only or data.names("development"):
        for model in MODELS:
            if (table, model, seed, depth) not in done:
                line = measured(table, model, seconds, seed, depth)
                append_line(file, line)
                cost = f"{line['loss']:+.3f} ± {line['error']:.3f} nats"
                console.print(f"{table}, {model}: {depth} -> {line['kept']} couplings, {cost}")
    lines, machines = read_lines(file)
    latest = [*{key_of(line, KEY): line for line in lines}.values()]
    write_results(file.with_suffix(".json"), {"machine": machines[-1], "lines": latest})


def measured(table: str, model: str, seconds: float, seed: int, depth: int) -> Line:
    """Returns what one flow loses on test rows by pruning, and what it gains."""
    parts = data.load(table)
    train, validation, test = (
        torch.from_numpy(rows[:most]).float()
        for rows, most in (
            (parts.train, MOST_TRAINED),
            (parts.validation, MOST_TESTED),
            (parts.test, MOST_TESTED),
        )
    )
    torch.manual_seed(seed)
    options: dict[str, Any] = {"depth": depth, "partition": "random-half", **MODELS[model]}
    flow = getattr(kf, model)(train.shape[1], **options)
    settings: dict[str, Any] = {**OF_TABLES, "seed": seed, "progress": False}
    kf.fit(flow, train, validation=validation, max_time_s=seconds, **settings)
    begun = time.process_time()
    pruned = kf.prune(flow.eval(), train, validation, nats=NATS, seed=seed, progress=False)
    seconds_of_pruning = time.process_time() - begun
    with torch.no_grad():
        losses = (flow.log_prob(test) - pruned.flow.log_prob(test)).double()
    return {
        "table": table,
        "model": model,
        "seed": seed,
        "depth": depth,
        "kept": pruned.kept,
        "loss": losses.mean().item(),
        "error": losses.std().item() / len(losses) ** 0.5,
        "validation_loss": pruned.loss,
        "trials": [astuple(trial) for trial in pruned.trials],
        "time": pruned.time,
        "condition_numbers": list(pruned.condition_numbers),
        "processor_s": round(seconds_of_pruning, 1),
    }
