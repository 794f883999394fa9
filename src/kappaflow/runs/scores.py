"""Scores of rows by a finished run, in memory or written in chunks."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from kappaflow.data import Table
from kappaflow.data.batches import domains_in
from kappaflow.data.chunks import Chunks, open_chunks
from kappaflow.data.load import read_table
from kappaflow.data.naming import describe_rows
from kappaflow.data.prepare import noisy
from kappaflow.data.raw import Decimal, Reading
from kappaflow.data.write import TableWriter, table_writer
from kappaflow.errors import ArgumentError, DataError
from kappaflow.runs.kinds import OpenRun
from kappaflow.runs.ranges import Outside, rows_outside
from kappaflow.runs.written import SCORES, Columns, Written, write_chunks, written
from kappaflow.storage import file_stamp
from kappaflow.training import log_prob_of
from kappaflow.training.measure import rows_at_once, scoring_generator


def table_scores(
    run: OpenRun, data: str, *, identifier: str | None = None, decimal: Decimal | None = None
) -> Columns:
    """Returns the scores of rows; warns if many are outside of the range of the training rows."""
    scores = Scores(run)
    table = read_table(data, scores.reading(identifier, decimal))
    scores.outside(table).warn(len(table))
    return scores.of(table)


class Scores:
    """Scores the rows of tables by a finished run."""

    def __init__(self, run: OpenRun) -> None:
        self._open, self.run, self.flow = run, run.config, run.flow

    def reading(self, identifier: str | None, decimal: Decimal | None = None) -> Reading:
        """Returns how to read data to score; a column `identifier` is kept as text.

        Raises:
            ArgumentError: The identifier is one of the columns of the run.
        """
        if identifier in (*self.run.columns, *self.run.context_columns):
            raise ArgumentError(
                f"'id' should name a column that the run does not use, got {identifier!r}."
            )
        texts = () if identifier is None else (identifier,)
        return replace(
            self.run.reading(decimal),
            columns=tuple(self.run.columns),
            context=tuple(self.run.context_columns),
            texts=texts,
            lenient=True,
        )

    def outside(self, table: Table) -> Outside:
        """Returns how many rows lie outside of the range of the training rows."""
        return rows_outside(table, self._open.calibration.ranges)

    def of(self, table: Table, *, generator: torch.Generator | None = None) -> Columns:
        """Returns the scores of rows; NaN for a row that cannot be scored.

        Rounded columns get the same noise as the rows of the run. The generator continues from
        chunk to chunk of a table.
        """
        filled, gaps = _without_gaps(table, self.flow.dtype)
        filled = noisy(filled, self.run.widths, domains_in(self.flow, filled))
        scores = log_prob_of(self.flow, filled.batches(self.flow), generator=generator).numpy()
        scores[gaps] = np.nan
        return self._open.columns({"row": table.rows, **table.texts}, scores)


def _without_gaps(table: Table, dtype: torch.dtype) -> tuple[Table, np.ndarray]:
    """Returns a table whose rows can all be scored, and a mask of the rows that were replaced.

    A row with gaps gets the values of the first row without gaps. So the batch keeps its size, on
    which the rounding of its other rows depends.
    """
    parts = [part for part in (table.values, table.context) if part is not None]
    most = torch.finfo(dtype).max
    gaps = ~np.logical_and.reduce([(np.abs(part) <= most).all(axis=1) for part in parts])
    if not gaps.any():
        return table, gaps
    first = int(np.argmin(gaps))

    def filled(part: np.ndarray) -> np.ndarray:
        other = np.zeros_like(part[0]) if gaps[first] else part[first]
        return np.where(gaps[:, None], other, part)

    context = None if table.context is None else filled(table.context)
    return replace(table, values=filled(table.values), context=context), gaps


def write_table_scores(
    run: OpenRun,
    data: str,
    out: str,
    *,
    identifier: str | None = None,
    repair: Literal["drop"] | None = None,
    decimal: Decimal | None = None,
) -> Written:
    """Returns a summary of the scores of rows, which are written a chunk at a time."""
    if identifier is not None and Path(out).suffix.lower() in (".npy", ".npz"):
        raise ArgumentError(
            f"'out' should be a csv, parquet or arrow file where 'id' names a column, got "
            f"{out!r}: identifiers are text, and such a file holds numbers."
        )
    scores = Scores(run)
    with table_writer(out) as writer:
        chunks = open_chunks(
            data,
            scores.reading(identifier, decimal),
            multiple=rows_at_once(scores.flow),
            scratch=writer.folder,
        )
        return _score_chunks(scores, chunks, data, repair, writer)


def _score_chunks(
    scores: Scores, chunks: Chunks, data: str, repair: Literal["drop"] | None, writer: TableWriter
) -> Written:
    """Returns a summary of the scores of a table, which are appended to a file."""
    generator = None if scores.flow.augment is None else scoring_generator()
    before = file_stamp(chunks.path) if chunks.path.is_file() else None
    outside, names = Outside(), []

    def scored() -> Iterator[Columns]:
        nonlocal outside
        for number in range(len(chunks)):
            table = chunks.read(number)
            outside += scores.outside(table)
            columns = scores.of(table, generator=generator)
            if before is not None and file_stamp(chunks.path) != before:
                raise DataError(
                    f"{data} has changed while it was read: score it when it is whole."
                )
            first = written(columns).first_empty
            if first is not None and not names:
                names.append(describe_rows(table, [first - int(table.rows[0])])[0])
            yield _repaired(columns, repair)

    result = write_chunks("scoring", chunks.rows, scored(), writer)
    dropped = chunks.rows - result.rows
    return replace(result, outside=outside, first_name="".join(names), dropped=dropped)


def _repaired(columns: Columns, repair: Literal["drop"] | None) -> Columns:
    """Returns scores with NaN masked, or without the rows that have NaN."""
    scores = next(columns[name] for name in SCORES if name in columns)
    gaps = np.isnan(scores)
    if not gaps.any():
        return columns
    if repair == "drop":
        return {name: values[~gaps] for name, values in columns.items()}
    return {
        name: np.ma.masked_array(values, gaps) if name in (*SCORES, "percentile") else values
        for name, values in columns.items()
    }
