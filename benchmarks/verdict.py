"""Fits tables of known density badly, moderately and well, and compares verdicts and truth."""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from benchmarks.verdict_tables import VerdictTable
from kappaflow.runs import ModelSearch, TableConfig, fit_run
from kappaflow.runs.recipes import LEARNING_RATE, ModelConfig

BAD = ModelConfig("real_nvp", {"depth": 2, "hidden": (8,)})  # of two epochs
MODERATE_S, GOOD_S, LARGE_S = 10.0, 45.0, 90.0  # seconds of a training; LARGE_S for many rows
SEARCHED = 0.25  # share of these seconds for the model search
MANY_ROWS = 50_000
FITS = ("bad", "moderate", "good")


def fitted(known: VerdictTable, seed: int, fit: str, folder: Path) -> Path:
    """Returns the folder of a run on a table, which is trained if it is not there yet."""
    table, run = folder / "table.parquet", folder / fit
    if not table.exists():
        folder.mkdir(parents=True, exist_ok=True)
        rows = known.density.sample(known.rows, np.random.default_rng(seed))
        pl.DataFrame(rows, schema=names(rows)).write_parquet(table)
    columns = names(np.zeros((0, pl.read_parquet_schema(table).__len__())))
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


def names(rows: np.ndarray) -> list[str]:
    """Returns the names of the columns."""
    return [f"x{i + 1}" for i in range(rows.shape[1])]
