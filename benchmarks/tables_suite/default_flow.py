"""The flow that `kappaflow fit TABLE` trains by default, on rows that are split already."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from kappaflow import Flow
from kappaflow.data import Table, load_table
from kappaflow.runs.model_search import ModelSearch, search_model
from kappaflow.runs.recipes import build_flow
from kappaflow.training import checked_settings, fit_split, loop


@dataclass(frozen=True)
class Default:
    """The default flow after training.

    Attributes:
        flow: Takes rows in the units of the table.
        steps: Steps of the optimizer in the final training.
        chosen: The model that was chosen, as text.
        history: The figures of each epoch of the final training, as in metrics.jsonl.
        stopped_because: Why the final training ended, such as "max_time_s".
    """

    flow: Flow
    steps: int
    chosen: str
    history: Sequence[Mapping[str, Any]]
    stopped_because: str


def table_of(rows: np.ndarray, columns: Sequence[str]) -> Table:
    """Returns rows (N, D) as a table with named columns."""
    return load_table(pl.DataFrame(dict(zip(columns, rows.T, strict=True))))


def default_flow(train: Table, validation: Table, seconds: float, seed: int) -> Default:
    """Trains the default flow of `kappaflow fit` within a time limit."""
    loop.clock = time.process_time  # all models of the suite get the same processor time
    settings = checked_settings(seed=seed, max_time_s=seconds)
    choice, start = search_model(train, validation, ModelSearch(), settings, progress=False)
    flow, settings = build_flow(choice.model, train, seed), choice.settings(settings)
    result = fit_split(flow, train, validation, settings, progress=False, start=start)
    steps = len(result.history) * -(-len(train) // settings.rows_a_step(len(train)))
    return Default(result.flow, steps, str(choice), result.history, result.stopped_because)
