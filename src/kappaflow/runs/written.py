"""Scores and samples a chunk at a time: joined in memory, or written with a summary."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

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
    """A summary of written columns."""

    rows: int
    columns: tuple[str, ...]
    infinite: int  # number of scores that are -inf
    empty: int = 0  # number of empty scores
    first_empty: int | None = None  # the first row with one
    first_name: str = ""  # its name, such as "line 4"
    dropped: int = 0  # rows that were left out
    # Rows, or contexts of samples, outside of the training range
    outside: Outside = field(default_factory=Outside)


class Chunked(ABC):
    """Columns in chunks of rows, which are computed as they are read.

    `outside` and `first_name` are those of `Written`, and `counted` is the number of rows that
    `outside` is about, called `kind`. They are known after the last chunk.
    """

    title, kind = "scoring", "rows"
    rows: int
    counted: int
    outside = Outside()
    first_name = ""

    @abstractmethod
    def __iter__(self) -> Iterator[Columns]:
        """Yields the chunks."""

    def together(self) -> Columns:
        """Returns all rows; warns if many lie outside of the range of the training rows."""
        chunks = list(self)
        self.outside.warn(self.counted, self.kind)
        return {name: np.concatenate([part[name] for part in chunks]) for name in chunks[0]}

    def write(self, writer: TableWriter, repair: Literal["drop"] | None = None) -> Written:
        """Returns a summary of the chunks, which are appended to a file, with a progress bar."""
        parts = []
        with rows_shown(self.title, self.rows) as show:
            for chunk in self:
                columns = _repaired(chunk, repair)
                writer.append(columns)
                parts.append(written(columns))
                show(len(next(iter(chunk.values()))))
        rows = sum(part.rows for part in parts)
        return replace(
            next((part for part in parts if part.first_empty is not None), parts[0]),
            rows=rows,
            infinite=sum(part.infinite for part in parts),
            empty=sum(part.empty for part in parts),
            first_name=self.first_name,
            dropped=self.rows - rows,
            outside=self.outside,
        )


class OneChunk(Chunked):
    """Columns that are in memory already."""

    def __init__(self, columns: Columns) -> None:
        self._columns = columns
        self.rows = self.counted = len(next(iter(columns.values())))

    def __iter__(self) -> Iterator[Columns]:
        yield self._columns


def written(columns: Mapping[str, np.ndarray]) -> Written:
    """Returns a summary of columns; NaN counts as empty."""
    count = len(next(iter(columns.values())))
    scores = next((np.ma.getdata(columns[name]) for name in SCORES if name in columns), None)
    if scores is None:
        return Written(count, tuple(columns), 0)
    empty = np.flatnonzero(np.isnan(scores))
    first = int(columns["row"][empty[0]]) if len(empty) and "row" in columns else None
    return Written(count, tuple(columns), int(np.isneginf(scores).sum()), len(empty), first)


def _repaired(columns: Columns, repair: Literal["drop"] | None) -> Columns:
    """Returns scores with NaN masked, or without the rows that have NaN."""
    scores = next((columns[name] for name in SCORES if name in columns), None)
    gaps = None if scores is None else np.isnan(scores)
    if gaps is None or not gaps.any():
        return columns
    if repair == "drop":
        return {name: values[~gaps] for name, values in columns.items()}
    return {
        name: np.ma.masked_array(values, gaps) if name in (*SCORES, "percentile") else values
        for name, values in columns.items()
    }


def versions() -> str:
    """Returns the versions and the backend that numbers depend on, to rounding."""
    return f"kappaflow {__version__}, torch {torch.__version__}, {describe()}"
