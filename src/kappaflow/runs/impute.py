"""`impute_run`: the rows of a table with their missing values filled in, by a run."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kappaflow._checks import natural_int
from kappaflow.data import check_writable
from kappaflow.data.write import table_writer
from kappaflow.errors import ArgumentError
from kappaflow.options import option
from kappaflow.runs.mixed_data import AUTO, is_mixed, read_some, table_model
from kappaflow.runs.stored import open_run


@dataclass(frozen=True)
class Imputed:
    """The result of `impute_run`.

    Attributes:
        rows: Rows of the table.
        completed: Rows that had a gap.
        uncertain: Completed rows that were chosen from fewer than 10 effective draws.
    """

    rows: int
    completed: int
    uncertain: int


def impute_run(
    folder: str | Path,
    data: str,
    out: str,
    *,
    seed: int = 0,
    **text: Any,  # noqa: ANN401
) -> Imputed:
    """Writes the rows of a table with each missing value drawn given the rest of its row.

    Returns:
        A summary.

    Raises:
        ArgumentError: The run has no model of mixed columns, or `out` cannot be written.
        DataError: A column is missing, or a label was not among the training rows.
    """
    natural_int("seed", seed)
    check_writable(out, read=data)
    run = open_run(Path(folder), None, finished=True)
    if not is_mixed(run.config):
        raise ArgumentError(
            "'run' should be one with kinds of columns, which models missing values: fit the "
            f"table with {option('kinds', AUTO)}."
        )
    raw = read_some(run.config, data, "complete", **text)
    completed = table_model(run).impute(raw, seed=seed)
    with table_writer(out) as writer:
        writer.append(completed.frame)
    sizes = completed.effective_size
    return Imputed(len(sizes), int(np.isfinite(sizes).sum()), int((sizes < 10).sum()))
