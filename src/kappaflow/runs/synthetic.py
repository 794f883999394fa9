"""`synthetic_run`: whether samples of a run are copies of its rows, and of what use they are."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from kappaflow._checks import natural_int, positive_int
from kappaflow.data import Table
from kappaflow.errors import ArgumentError
from kappaflow.files import load
from kappaflow.goodness import Copies, Usefulness, copies, usefulness
from kappaflow.goodness.pooled import samples_of, to_array
from kappaflow.results import to_plain
from kappaflow.runs.stored import read_run, reload_data, run_kind
from kappaflow.runs.table_data import TableData
from kappaflow.runs.tables import TableRunConfig
from kappaflow.storage import write_bytes

SYNTHETIC = "synthetic.json"


@dataclass(frozen=True)
class SyntheticData:
    """Samples of a run, compared with its training and its test rows."""

    copies: Copies  # whether they are copies of training rows
    usefulness: Usefulness | None = None  # what a model learns from them; None without a target

    def to_json(self) -> dict[str, Any]:
        """Returns plain values for JSON."""
        return to_plain(self)


def synthetic_run(
    folder: str | Path, *, target: str | None = None, n: int = 5_000, seed: int = 0
) -> SyntheticData:
    """Compares samples of a run on a table with its rows, and writes synthetic.json next to it.

    Training and test rows are those of the run, read again. Samples of rounded columns are
    rounded back. Samples of a conditional flow are drawn at the contexts of validation rows, which
    join the samples: those of training or test rows would move samples towards these rows.

    Args:
        folder: The run.
        target: Name of a column to predict, as for `kappaflow.usefulness`; None to leave it out.
        n: Number of samples.
        seed: Seed of the samples.

    Returns:
        The results of `kappaflow.copies` and `kappaflow.usefulness`.

    Raises:
        ArgumentError: The run is not on a table, or an argument is wrong.
        FileError: The data of the run is missing or has changed, or a file cannot be written.
    """
    folder = Path(folder)
    positive_int("n", n)
    natural_int("seed", seed)
    config = read_run(folder)
    data = reload_data(config) if isinstance(config, TableRunConfig) else None
    if not isinstance(data, TableData):
        raise ArgumentError(
            f"'run' should be one on a table, it is one on {run_kind(folder).plural}: copies "
            "are searched for in tables only."
        )
    flow, context = load(folder), data.validation.context
    contexts = rows = None
    if context is not None:
        rows = context[np.random.default_rng(seed).permutation(n) % len(context)]
        contexts = torch.from_numpy(rows).to(flow.dtype)
    values = to_array(samples_of(flow, n, contexts, torch.Generator().manual_seed(seed)))
    samples = Table(
        values=values,
        columns=data.train.columns,
        rows=np.arange(n) + 1,
        source="samples",
        context=rows,
        context_columns=data.train.context_columns,
        grids=data.train.grids,
    )
    result = SyntheticData(
        copies(samples, data.train, data.test, seed=seed),
        None
        if target is None
        else usefulness(samples, data.train, data.test, target=target, seed=seed),
    )
    text = json.dumps(result.to_json(), indent=2) + "\n"
    write_bytes(folder / SYNTHETIC, text.encode())
    return result
