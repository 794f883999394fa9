"""Samples of a run on a table, in memory or written in chunks."""

from dataclasses import replace
from typing import Any

import numpy as np
import torch

from kappaflow.data import Table, check_writable, load_table
from kappaflow.data.chunks import chunk_size
from kappaflow.data.naming import require_finite
from kappaflow.data.raw import Decimal, Reading
from kappaflow.data.write import table_writer
from kappaflow.errors import ArgumentError
from kappaflow.runs.kinds import OpenRun
from kappaflow.runs.ranges import Outside, rows_outside
from kappaflow.runs.written import Columns, Written, write_chunks

ROWS_AT_ONCE = 65_536


def table_samples(
    run: OpenRun,
    n: int,
    *,
    context: str | None = None,
    temperature: float = 1.0,
    seed: int = 0,
    decimal: Decimal | None = None,
) -> Columns:
    """Returns samples, by column; warns if many contexts are outside of the training range."""
    samples = Samples(run, context, temperature, decimal)
    samples.outside.warn(samples.contexts, "context rows")
    return samples.draw(n, torch.Generator().manual_seed(seed))


class Samples:
    """Samples from a run on a table, in chunks; `sample_run` describes the arguments.

    `contexts` is the number of context rows; 1 without a context. `outside` counts those outside
    of the range of the training rows. `at_once` samples are made at
    once: chunks of a multiple of it hold the same samples as one chunk.
    """

    def __init__(
        self,
        run: OpenRun,
        context: str | None,
        temperature: float,
        decimal: Decimal | None = None,
    ) -> None:
        self.flow, self.run = run.flow, run.config
        names = self.run.context_columns
        if bool(names) != (context is not None):
            raise ArgumentError(
                "'context' should "
                + (
                    f"name data with {', '.join(names)}."
                    if names
                    else "be left out: the flow has none."
                )
            )
        reading = self.run.reading(decimal)
        table = None if context is None else finite_table(context, names, [], reading)
        ranges = run.calibration.ranges
        self.outside = Outside() if table is None else rows_outside(table, ranges)
        self._given = None if table is None else table.values
        self._temperature = temperature
        self.contexts = 1 if table is None else len(table)
        self.at_once = max(1, ROWS_AT_ONCE // self.contexts)

    def draw(self, n: int, generator: torch.Generator) -> Columns:
        """Returns n samples for each context, by column."""
        given, run = self._given, self.run
        rows = (
            None
            if given is None
            else torch.from_numpy(given).to(self.flow.device, self.flow.dtype)
        )
        sizes = [min(self.at_once, n - start) for start in range(0, n, self.at_once)]
        samples = torch.cat([
            self.flow.sample(size, rows, temperature=self._temperature, generator=generator)
            for size in sizes
        ])
        samples = samples.cpu().numpy()
        if given is None:
            return _by_column(run.columns, samples)
        samples = samples.reshape(-1, samples.shape[-1])
        contexts = _by_column(run.context_columns, np.tile(given, (n, 1)))
        return _by_column(run.columns, samples) | contexts


def write_table_samples(
    run: OpenRun,
    n: int,
    out: str,
    *,
    context: str | None = None,
    class_name: str | None = None,
    temperature: float = 1.0,
    seed: int = 0,
    decimal: Decimal | None = None,
) -> Written:
    """Returns a summary of samples, which are written a chunk at a time."""
    check_writable(out, read=context)
    if class_name is not None:
        raise ArgumentError("'class' should be left out: this run is not on images.")
    samples = Samples(run, context, temperature, decimal)
    result = _write_rows(samples, n, out, seed)
    return replace(result, outside=samples.outside)


def _write_rows(samples: "Samples", n: int, out: str, seed: int) -> Written:
    """Returns a summary of written samples of rows; many are written in chunks."""
    generator = torch.Generator().manual_seed(seed)
    width = len(samples.run.columns) + len(samples.run.context_columns)
    contexts = samples.contexts
    size = chunk_size(width, samples.at_once * contexts) // contexts
    sizes = [min(size, n - start) for start in range(0, n, size)]
    drawn = (samples.draw(count, generator) for count in sizes)
    with table_writer(out) as writer:
        return write_chunks("sampling", n * contexts, drawn, writer)


def finite_table(data: str, columns: list[str], context: list[str], reading: Reading) -> Table:
    """Returns named columns of some data, or raises an error if a value is not finite."""
    table = load_table(
        data, columns=columns, context=context, decimal=reading.decimal, missing=reading.missing
    )
    require_finite(table, data)
    return table


def _by_column(names: list[str], values: np.ndarray) -> dict[str, Any]:
    return {name: values[:, i] for i, name in enumerate(names)}
