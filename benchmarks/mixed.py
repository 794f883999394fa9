"""The command that measures models of mixed columns, and encodings of such columns."""

from itertools import product
from pathlib import Path
from typing import Literal, get_args

import torch

from benchmarks.lines import Line, append_line, append_machine, key_of, read_lines, write_results
from benchmarks.machine import machine
from benchmarks.mixed_encodings import encoded, encodings
from benchmarks.mixed_known import GAPS, KNOWN
from benchmarks.mixed_measures import DENSITIES, OURS, gaps, known
from benchmarks.mixed_quantiles import TABLES, quantiles, regressors
from benchmarks.mixed_real import IMPUTERS, imputation, large_tables
from benchmarks.processes import console
from benchmarks.suite import KEPT
from benchmarks.tables_suite import data
from benchmarks.tables_suite.command import log_look

What = Literal["known", "gaps", "imputation", "encodings", "quantiles"]
Names = list[str] | None
KEY = ("what", "table", "model", "seed", "seconds")
MEASURES = {
    "known": known,
    "gaps": gaps,
    "imputation": imputation,
    "encodings": encoded,
    "quantiles": quantiles,
}


def mixed(
    *,
    part: data.Part = "development",
    only: list[What] | None = None,
    tables: Names = None,
    models: Names = None,
    seconds: float = 30.0,
    seeds: int = 1,
    results: Path = KEPT,
) -> None:
    """Measure models of mixed columns and of quantiles, and what encodings of columns cost.

    Models get the same rows and processor time on one thread. Results that are in the file are
    not measured again.

    Parameters
    ----------
    part
        Real tables to complete: "development" or "judged". Each use of judged ones is logged.
    only
        What to measure, instead of all: "known" for log-densities, "gaps" for those of incomplete
        rows, "imputation" for completions, "encodings" for the conditioning of flows of encoded
        columns, "quantiles" for those of one column.
    tables
        Names of tables, instead of all.
    models
        Names of models, instead of all.
    seconds
        Processor time of each training.
    seeds
        Trainings of each model. A seed decides rows of known distributions and gaps too.
    results
        Folder of the files of results.
    """
    torch.set_num_threads(1)
    if part == "judged":
        log_look(results / "judged-looks.jsonl", f"mixed: completions, {seconds:g} s")
    file = results / ("mixed.jsonl" if part == "development" else f"mixed-{part}.jsonl")
    append_machine(file, machine())
    done = {key_of(line, KEY) for line in read_lines(file)[0]}
    for what in only or (get_args(What) if part == "development" else ("imputation",)):
        for seed, (table, model) in product(range(seeds), _pairs(what, part)):
            key = (what, table, model, seed, seconds)
            if key in done or table not in (tables or [table]) or model not in (models or [model]):
                continue
            job: Line = dict(zip(KEY, key, strict=True))
            append_line(file, job | MEASURES[what](job))
            console.print(f"{what}, {table}, {model}", markup=False)
    lines, machines = read_lines(file)
    latest = [*{key_of(line, KEY): line for line in lines}.values()]
    write_results(file.with_suffix(".json"), {"machine": machines[-1], "lines": latest})


def _pairs(what: What, part: data.Part) -> list[tuple[str, str]]:
    """Returns the tables and models of a measurement."""
    if what == "known":
        return [*product(KNOWN, DENSITIES)]
    if what == "gaps":
        return [*product(GAPS, (OURS,))]
    if what == "imputation":
        return [*product(large_tables(part), IMPUTERS)]
    if what == "encodings":
        return encodings()
    return [*product(TABLES, regressors())]
