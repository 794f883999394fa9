"""Fits tables of known density badly, moderately and well, and compares verdicts and truth."""

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch

from benchmarks.lines import (
    Line,
    append_line,
    append_machine,
    key_of,
    read_lines,
    write_results,
)
from benchmarks.machine import machine
from benchmarks.processes import console
from benchmarks.right_flows import right_flows
from benchmarks.suite import KEPT
from benchmarks.tables import markdown
from benchmarks.verdict_tables import DEVELOPMENT, JUDGED, Rows, VerdictTable
from kappaflow import Flow, load
from kappaflow.data import load_table
from kappaflow.runs import ModelSearch, TableConfig, diagnose_run, fit_run
from kappaflow.runs.derived_run import StoredRun
from kappaflow.runs.recipes import ModelConfig
from kappaflow.runs.table_content import table_matcher
from kappaflow.training import batch_of, log_prob_of
from kappaflow.training.settings import LEARNING_RATE

BAD = ModelConfig("real_nvp", {"depth": 2, "hidden": (8,)})  # of two epochs
MODERATE_S, GOOD_S, LARGE_S = 10.0, 45.0, 90.0  # seconds of a training; LARGE_S for many rows
SEARCHED = 0.25  # share of these seconds for the model search
MANY_ROWS = 50_000
FITS = ("bad", "moderate", "good")
FRESH = 50_000  # rows for the divergence
PARTS = {"development": DEVELOPMENT, "judged": JUDGED}
FIRST_SEED = {"development": 100, "judged": 150}
RIGHT = 1_500  # comparisons of right flows
KEY = ("part", "table", "fit")
WRONG = 0.05  # nats from which no verdict may be good, at 20,000 rows or more
LEAST_ROWS = 20_000


def verdict(
    *,
    part: str = "development",
    only: list[str] | None = None,
    fits: Path = Path("build/verdict"),
    results: Path = KEPT,
) -> None:
    """Fit tables of known density badly, moderately and well, and compare verdicts and truth.

    Trained runs stay in a folder and are not trained again; verdicts are measured each time.

    Parameters
    ----------
    part
        "development", whose tables decided the thresholds, "judged", or "right": 1,500 comparisons
        of flows with rows drawn from them.
    only
        Names of tables to fit, instead of all of the part.
    fits
        Folder of the runs.
    results
        Folder of the file of results.
    """
    torch.set_num_threads(1)
    file = results / "verdict.jsonl"
    append_machine(file, machine())
    if part == "right":
        counts = right_flows(RIGHT)
        append_line(file, {"part": part, "table": "", "fit": "", "levels": counts})
    for number, (name, known) in enumerate(PARTS.get(part, {}).items()):
        for fit in FITS if only is None or name in only else ():
            seed = FIRST_SEED[part] + number
            folder = fits / part / name.replace(" ", "_").replace(",", "")
            run = fitted(known, seed, fit, folder)
            line = {"part": part, "table": name, "fit": fit, **measured(known, seed, run)}
            append_line(file, line)
            console.print(
                f"{name}, {fit}: {line['kl']:.3f} nats, {line['level']}. {line['verdict']}",
                markup=False,
                soft_wrap=True,
            )
    lines, machines = read_lines(file)
    latest = {key_of(line, KEY): line for line in lines}
    right = latest.pop(("right", "", ""), {}).get("levels", {})
    values = {"machine": machines[-1], "lines": [*latest.values()], "right": right}
    write_results(file.with_suffix(".json"), values)


def fitted(known: VerdictTable, seed: int, fit: str, folder: Path) -> Path:
    """Returns the folder of a run on a table, which is trained if it is not there yet."""
    table, run = folder / "table.parquet", folder / fit
    if (run / "report.html").exists():
        return run
    if not table.exists():
        folder.mkdir(parents=True, exist_ok=True)
        rows = known.density.sample(known.rows, np.random.default_rng(seed))
        pl.DataFrame(rows, schema=names(rows)).write_parquet(table)
    columns = list(pl.read_parquet_schema(table))
    options: dict[str, Any] = dict(known.options) if fit == "good" else {}
    if known.context:
        options["context"] = columns[: known.context]
    source = TableConfig(str(table), **options)
    seconds = MODERATE_S if fit == "moderate" else GOOD_S
    if fit == "good" and known.rows > MANY_ROWS:
        seconds = LARGE_S
    settings: dict[str, Any] = {"max_time_s": seconds, "learning_rate": LEARNING_RATE}
    model: ModelConfig | ModelSearch = ModelSearch(seconds=SEARCHED * seconds)
    if fit == "bad":
        model, settings = BAD, {"max_epochs": 2}
    fit_run(source, model, run, progress=False, seed=seed, **settings)
    return run


def names(rows: Rows) -> list[str]:
    """Returns the names of the columns."""
    return [f"x{i + 1}" for i in range(rows.shape[1])]


def measured(known: VerdictTable, seed: int, run: Path) -> Line:
    """Returns the divergence of a run from the truth, and its verdict on held-out rows."""
    flow = load(run)
    fresh = known.density.sample(FRESH, np.random.default_rng([seed, 1]))
    differences = known.density.log_prob(fresh) - known.cells_log_prob(
        lambda rows: _log_prob(known, flow, rows), fresh
    )
    diagnosis, _ = diagnose_run(run)
    result = diagnosis.goodness and diagnosis.goodness.two_sample
    return {
        "rows": known.rows,
        "held_out": diagnosis.measured["rows"],
        "kl": float(differences.mean()),
        "kl_error": float(differences.std() / np.sqrt(FRESH)),
        "level": diagnosis.level,
        "nats": result and result.nats,
        "smallest_nats": result and result.smallest_nats,
        "verdict": diagnosis.verdict,
        "compared_s": _seconds(run, flow),
        "fit_s": json.loads((run / "result.json").read_text("utf-8"))["time_s"],
    }


def _seconds(run: Path, flow: Flow) -> float:
    """Returns the seconds that the comparisons with held-out rows take."""
    data: Any = StoredRun(run).data
    rows, match = data.test.batches(flow), table_matcher(flow, data.test, data.train)
    start = time.perf_counter()
    match(flow, rows.x, rows.context)
    return time.perf_counter() - start


def _log_prob(known: VerdictTable, flow: Flow, rows: Rows) -> Rows:
    columns = names(rows)
    frame = pl.DataFrame(rows, schema=columns)
    table = load_table(frame, context=columns[: known.context])
    return log_prob_of(flow, batch_of(table, flow)).numpy()


def verdict_values(results: dict[str, Any]) -> dict[str, Any]:
    """Returns the values for the page."""
    lines: list[Line] = results["lines"]
    wrong = [line for line in lines if line["kl"] > WRONG and line["rows"] >= LEAST_ROWS]
    good = [line for line in lines if line["fit"] == "good"]
    green = [line for line in wrong if line["level"] == "good"]
    return {
        "tables": len({(line["part"], line["table"]) for line in lines}),
        "wrong": len(wrong),
        "green": ", ".join(f"{line['table']} ({line['fit']})" for line in green) or "none",
        "levels": _levels(lines),
        "right": _right(results.get("right", {})),
        "seconds": float(np.median([line["compared_s"] for line in good])),
        "most_seconds": max(line["compared_s"] for line in good),
        "share": sum(line["compared_s"] for line in good) / sum(line["fit_s"] for line in good),
    }


def _levels(lines: list[Line]) -> str:
    cells = {key_of(line, KEY): _cell(line) for line in lines}
    return markdown(
        ["table", "part", "rows", *FITS],
        [
            [name, part, f"{known.rows:,}", *(cells.get((part, name, fit), "") for fit in FITS)]
            for part, tables in PARTS.items()
            for name, known in tables.items()
        ],
    )


def _right(counts: dict[str, dict[str, int]]) -> str:
    """Returns a sentence on right flows, from the number of each level by kind."""
    if not counts:
        return ""
    flows = sum(sum(levels.values()) for levels in counts.values())
    alarms = flows - sum(levels.get("good", 0) for levels in counts.values())
    return (
        f"Of {flows:,} comparisons of flows of {len(counts)} kinds with rows drawn from them, "
        f"{alarms} were not good."
    )


def _cell(line: Line) -> str:
    return f"{line['kl']:.3f} {line['level']}"
