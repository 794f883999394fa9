"""Scores of rows by a finished run, a chunk at a time."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

import numpy as np
import torch

from kappaflow.data import Table
from kappaflow.data.batches import domains_in
from kappaflow.data.chunks import open_chunks
from kappaflow.data.naming import describe_rows
from kappaflow.data.prepare import noisy
from kappaflow.data.raw import Reading
from kappaflow.errors import ArgumentError, DataError
from kappaflow.runs.ranges import by_column, rows_outside
from kappaflow.runs.written import Chunked, Columns
from kappaflow.storage import file_stamp
from kappaflow.table_options import TextFormat
from kappaflow.training import log_prob_of
from kappaflow.training.measure import rows_at_once, scoring_generator

if TYPE_CHECKING:
    from kappaflow.runs.kinds import OpenRun


class Scores(Chunked):
    """The scores of the rows of a table; `score_run` describes the arguments.

    A text file is converted to a parquet file in the folder `scratch` first.
    """

    def __init__(
        self,
        run: "OpenRun",
        data: str,
        *,
        identifier: str | None = None,
        scratch: Path | None = None,
        **text: Unpack[TextFormat],
    ) -> None:
        self._open, self.run, self.flow = run, run.config, run.flow
        self._data = data
        reading = self._reading(identifier, text)
        self._chunks = open_chunks(
            data, reading, multiple=rows_at_once(self.flow), scratch=scratch
        )
        self.rows = self.counted = self._chunks.rows

    def _reading(self, identifier: str | None, text: TextFormat) -> Reading:
        """Returns how to read data to score; a column `identifier` is kept as text."""
        if identifier in (*self.run.columns, *self.run.context_columns):
            raise ArgumentError(
                f"'id' should name a column that the run does not use, got {identifier!r}."
            )
        return replace(
            self.run.reading("score", **text),
            columns=tuple(self.run.columns),
            context=tuple(self.run.context_columns),
            texts=() if identifier is None else (identifier,),
            lenient=True,
        )

    def __iter__(self) -> Iterator[Columns]:
        chunks, generator = self._chunks, scoring_generator()
        before = file_stamp(chunks.path) if chunks.path.is_file() else None
        for number in range(len(chunks)):
            table = chunks.read(number)
            self.outside += rows_outside(by_column(table), self._open.calibration.ranges)
            columns, gaps = self.of(table, generator)
            if before is not None and file_stamp(chunks.path) != before:
                raise DataError(
                    f"{self._data} has changed while it was read: score it when it is whole."
                )
            if gaps.any() and not self.first_name:
                self.first_name = describe_rows(table, np.flatnonzero(gaps)[:1])[0]
            yield columns

    def of(self, table: Table, generator: torch.Generator) -> tuple[Columns, np.ndarray]:
        """Returns the scores of rows, and a mask of the rows without one, which is NaN.

        Rounded columns get the same noise as the rows of the run. The generator continues from
        chunk to chunk of a table.
        """
        filled, gaps = _without_gaps(table, self.flow.dtype)
        filled = noisy(filled, self.run.grids, domains_in(self.flow, filled))
        scores = log_prob_of(self.flow, filled.batches(self.flow), generator=generator).numpy()
        scores[gaps] = np.nan
        return self._open.columns({"row": table.rows, **table.texts}, scores), np.isnan(scores)


def _without_gaps(table: Table, dtype: torch.dtype) -> tuple[Table, np.ndarray]:
    """Returns a table whose rows can all be scored, and a mask of the rows that were replaced.

    A row with gaps gets the values of the first row without gaps. So the batch keeps its size, on
    which the rounding of its other rows depends.
    """
    gaps = ~np.logical_and.reduce(np.abs(table.all_values) <= torch.finfo(dtype).max, axis=1)
    if not gaps.any():
        return table, gaps
    first = int(np.argmin(gaps))

    def filled(part: np.ndarray) -> np.ndarray:
        other = np.zeros_like(part[0]) if gaps[first] else part[first]
        return np.where(gaps[:, None], other, part)

    context = None if table.context is None else filled(table.context)
    return replace(table, values=filled(table.values), context=context), gaps
