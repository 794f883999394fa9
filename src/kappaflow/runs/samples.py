"""Samples of a run on a table, a chunk at a time."""

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Unpack

import numpy as np
import torch

from kappaflow.data import Table
from kappaflow.data.chunks import chunk_size
from kappaflow.data.labels import labels_of
from kappaflow.data.load import read_table
from kappaflow.data.naming import require_finite
from kappaflow.data.raw import Reading, quoted
from kappaflow.data.rounding import rounded_samples
from kappaflow.errors import ArgumentError
from kappaflow.runs.ranges import by_column, rows_outside
from kappaflow.runs.written import Chunked, Columns
from kappaflow.table_options import TextFormat

if TYPE_CHECKING:
    from kappaflow.runs.kinds import OpenRun

ROWS_AT_ONCE = 65_536


class Samples(Chunked):
    """Samples from a run on a table; `sample_run` describes the arguments.

    `at_once` samples are made at once: chunks of a multiple of it hold the same samples as one
    chunk.
    """

    title, kind = "sampling", "context rows"

    def __init__(
        self,
        run: "OpenRun",
        n: int,
        *,
        context: str | None = None,
        class_name: str | None = None,
        temperature: float = 1.0,
        seed: int = 0,
        **text: Unpack[TextFormat],
    ) -> None:
        if class_name is not None:
            raise ArgumentError("'class' should be left out: this run is not on images.")
        self._run, self._flow, self._n = run.config, run.flow, n
        self._temperature, self._seed = temperature, seed
        self._context, self.counted = None, 1
        names = self._run.context_columns
        if bool(names) != (context is not None):
            needed = f"name a table with {quoted(names)}: samples of this run depend on it"
            what = needed if names else "be left out: the flow has none"
            raise ArgumentError(f"'context' should {what}.")
        if context is not None:
            table = finite_table(context, names, [], self._run.reading("sample", **text))
            self.outside = rows_outside(by_column(table), run.calibration.ranges)
            self._context, self.counted = table.values, len(table)
        self.rows = n * self.counted

    def __iter__(self) -> Iterator[Columns]:
        generator = torch.Generator().manual_seed(self._seed)
        at_once = max(1, ROWS_AT_ONCE // self.counted)
        width = len(self._run.columns) + len(self._run.context_columns)
        size = chunk_size(width, at_once * self.counted) // self.counted
        for start in range(0, self._n, size):
            end = min(self._n, start + size)
            sizes = [min(at_once, end - first) for first in range(start, end, at_once)]
            yield self._drawn(sizes, generator)

    def _drawn(self, sizes: list[int], generator: torch.Generator) -> Columns:
        """Returns samples for each context, some at once, by column."""
        run, flow, context = self._run, self._flow, self._context
        rows = None if context is None else torch.from_numpy(context).to(flow.device, flow.dtype)
        options = {"temperature": self._temperature, "generator": generator}
        samples = torch.cat([flow.sample(size, rows, **options) for size in sizes]).cpu().numpy()
        samples = samples.reshape(-1, samples.shape[-1])
        samples = rounded_samples(samples, run.columns, run.grids)
        columns = dict(zip(run.columns, samples.T, strict=True))
        if context is None:
            return columns
        contexts = np.tile(context, (sum(sizes), 1))
        return columns | labels_of(dict(zip(run.context_columns, contexts.T, strict=True)))


def finite_table(data: str, columns: list[str], context: list[str], reading: Reading) -> Table:
    """Returns named columns of some data, or raises an error if a value is not finite."""
    names = {"columns": tuple(columns), "context": tuple(context)}
    table = read_table(data, replace(reading, **names))
    require_finite(table, data)
    return table
