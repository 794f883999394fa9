"""`Written`: a summary of the scores or samples that a command has written, chunk by chunk."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch

from kappaflow import __version__
from kappaflow.data.write import TableWriter
from kappaflow.native import describe
from kappaflow.runs.ranges import Outside
from kappaflow.training.progress import rows_shown

SCORES = ("log_prob", "joint_log_prob")  # whose infinite and empty values are counted
Columns = dict[str, np.ndarray]


@dataclass(frozen=True)
class Written:
    """A summary of written columns.

    `infinite` and `empty` count scores that are -inf or empty; the first row with an empty score
    has a number and a name such as "line 4". `dropped` rows were left out. `outside` counts rows,
    or context rows of samples, outside of the range of the training rows.
    """

    rows: int
    columns: tuple[str, ...]
    infinite: int
    empty: int = 0
    first_empty: int | None = None
    first_name: str = ""
    dropped: int = 0
    outside: Outside = field(default_factory=Outside)


def written(columns: Mapping[str, np.ndarray]) -> Written:
    """Returns a summary of columns; NaN counts as empty."""
    count = len(next(iter(columns.values())))
    scores = next((np.ma.getdata(columns[name]) for name in SCORES if name in columns), None)
    if scores is None:
        return Written(count, tuple(columns), 0)
    empty = np.flatnonzero(np.isnan(scores))
    first = int(columns["row"][empty[0]]) if len(empty) and "row" in columns else None
    return Written(count, tuple(columns), int(np.isneginf(scores).sum()), len(empty), first)


def write_chunks(title: str, rows: int, chunks: Iterable[Columns], writer: TableWriter) -> Written:
    """Returns a summary of chunks, which are appended to a file, with a progress bar."""
    parts = []
    with rows_shown(title, rows) as show:
        for columns in chunks:
            writer.append(columns)
            parts.append(written(columns))
            show(parts[-1].rows)
    return _together(parts)


def _together(parts: list[Written]) -> Written:
    """Returns the summary of several chunks."""
    first = next((part.first_empty for part in parts if part.first_empty is not None), None)
    return Written(
        rows=sum(part.rows for part in parts),
        columns=parts[0].columns,
        infinite=sum(part.infinite for part in parts),
        empty=sum(part.empty for part in parts),
        first_empty=first,
    )


def versions() -> str:
    """Returns the versions and the backend that numbers depend on, to rounding."""
    return f"kappaflow {__version__}, torch {torch.__version__}, {describe()}"
