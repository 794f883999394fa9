"""What a finished run is used for: to sample, to score rows, to be examined again."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from kappaflow._checks import positive_int
from kappaflow.diagnosis import Diagnosis, doctor
from kappaflow.errors import ArgumentError, FileError, KappaflowError
from kappaflow.files import load
from kappaflow.runs.job import matching_table, read_run, source_of, tables_of
from kappaflow.training import log_prob_of, read_result, rows_of

Columns = dict[str, np.ndarray]
ROWS_AT_ONCE = 65_536


def sample_run(folder: Path, n: int, *, context: str | None = None, seed: int = 0) -> Columns:
    """Returns n samples of a run's flow, by column, in the units of the data.

    Args:
        folder: The run folder.
        n: How many; for each row of `context`, where there is one.
        context: Data with the context columns, for a conditional flow.
        seed: Of the draws.

    Returns:
        The modelled columns, and the context columns beside them.

    Raises:
        ArgumentError: n is below 1, or a context is missing or not wanted.
    """
    positive_int("n", n)
    flow, run = load(folder), read_run(folder)
    names = run["context_columns"]
    if bool(names) != (context is not None):
        wanted = (
            f"name data with {', '.join(names)}" if names else "be left out: the flow has none"
        )
        raise ArgumentError(f"'context' should {wanted}.")
    generator = torch.Generator().manual_seed(seed)
    if context is None:
        sizes = [min(ROWS_AT_ONCE, n - start) for start in range(0, n, ROWS_AT_ONCE)]
        drawn = torch.cat([flow.sample(size, generator=generator) for size in sizes])
        return _by_column(run["columns"], drawn.numpy())
    given = matching_table(context, {"columns": names, "context_columns": []}).values
    rows = torch.from_numpy(given).to(flow.dtype)
    drawn = flow.sample(n, rows, generator=generator).flatten(0, 1)
    return _by_column(run["columns"], drawn.numpy()) | _by_column(names, np.tile(given, (n, 1)))


def score_run(folder: Path, data: str) -> Columns:
    """Returns log_prob (nats, in the units of the data) and percentile of each row of some data.

    The percentile is that of the training rows' scores: 1 means that 99 % of the training rows
    have a higher density.

    Args:
        folder: The run folder.
        data: A path or a shipped name, with the columns of the run.

    Returns:
        Two columns, a row for each row of the data.
    """
    flow, run, result = load(folder), read_run(folder), read_result(folder)
    table = matching_table(data, run)
    scores = log_prob_of(flow, rows_of(table, flow)).numpy()
    quantiles = result.get("train_log_prob_quantiles")
    if quantiles is None:
        raise FileError(
            f"{folder} is not finished: run the fit again, and it goes on where it stopped."
        )
    levels = np.linspace(0, 100, len(quantiles))
    return {"log_prob": scores, "percentile": np.interp(scores, quantiles, levels)}


def examine_run(folder: Path, data: str | None = None) -> tuple[Diagnosis, str]:
    """Returns the doctor's diagnosis of a run's flow, and at which points it was made, in words.

    Args:
        folder: The run folder, or any saved model.
        data: Data with the columns of the run; its held-out test rows if left out and still to be
            found, else samples of the flow.

    Returns:
        The diagnosis and the points.
    """
    flow = load(folder)
    if data is not None:
        rows = rows_of(matching_table(data, read_run(folder)), flow)
        return doctor(flow, rows.x, rows.context), f"rows of {data}"
    try:
        run = read_run(folder)
        rows = rows_of(tables_of(source_of(run, folder)).test, flow)
        return doctor(flow, rows.x, rows.context), "held-out rows of the run"
    except KappaflowError:
        return doctor(flow), "samples of the flow (its data was not found)"


def _by_column(names: list[str], values: np.ndarray) -> dict[str, Any]:
    return {name: values[:, i] for i, name in enumerate(names)}
