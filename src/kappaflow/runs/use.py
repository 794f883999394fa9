"""What a finished run is used for: to sample, to score rows, to be examined again."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from kappaflow._checks import finite_float, natural_int, positive_int
from kappaflow.data import Table, load_table
from kappaflow.data.gaps import refuse_gaps
from kappaflow.data.load import load_to_score
from kappaflow.data.prepare import noisy
from kappaflow.data.problem import describe_values
from kappaflow.data.raw import Decimal, ReadOptions
from kappaflow.diagnosis import Diagnosis, Progress, diagnose_flow, quietly, with_findings
from kappaflow.errors import ArgumentError, FileError, KappaflowError
from kappaflow.files import load
from kappaflow.flows import Flow
from kappaflow.runs.stored import read_finished, read_run, tables_again
from kappaflow.runs.stored_findings import stored_findings
from kappaflow.training import log_prob_of, rows_of
from kappaflow.training.rows import domains_in

Columns = dict[str, np.ndarray]
ROWS_AT_ONCE = 65_536


def sample_run(
    folder: Path,
    n: int,
    *,
    context: str | None = None,
    temperature: float = 1.0,
    seed: int = 0,
    decimal: Decimal | None = None,
) -> Columns:
    """Returns n samples of a run's flow, by column, in the units of the data.

    Args:
        folder: The run folder.
        n: How many; for each row of `context`, where there is one.
        context: Data with the context columns, for a conditional flow.
        temperature: Deviation of the latents.
        seed: Of the draws.
        decimal: The decimal sign of the context; as in the run's data if None.

    Returns:
        The modelled columns, and the context columns beside them.

    Raises:
        ArgumentError: An argument is out of its range, or a context is missing or not wanted.
    """
    check_draws(n, temperature, seed)
    draws = Draws(folder, context, temperature, decimal)
    return draws.draw(n, torch.Generator().manual_seed(seed))


class Draws:
    """What is needed to draw from a run, as often as is asked for.

    Args:
        folder: The run folder.
        context: Data with the context columns, for a conditional flow.
        temperature: Deviation of the latents.
        decimal: The decimal sign of the context; as in the run's data if None.

    Attributes:
        run: What was asked of the run.
        contexts: How many rows each draw is made for.
        at_once: How many draws are made at once: those of a generator come in this order, so
            that draws in pieces of a multiple of it are those of one piece.
        fingerprint: That of the context.
    """

    def __init__(
        self,
        folder: Path,
        context: str | None,
        temperature: float,
        decimal: Decimal | None = None,
    ) -> None:
        self._flow, self.run = load(folder), read_run(folder)
        names = self.run.context_columns
        if bool(names) != (context is not None):
            wanted = (
                f"name data with {', '.join(names)}" if names else "be left out: there is none"
            )
            raise ArgumentError(f"'context' should {wanted}.")
        options = self.run.reading(decimal)
        table = None if context is None else finite_table(context, names, [], options)
        self._given = None if table is None else table.values
        self._temperature = temperature
        self.contexts = 1 if table is None else len(table)
        self.at_once = max(1, ROWS_AT_ONCE // self.contexts)
        self.fingerprint = None if table is None else table.fingerprint()

    def draw(self, n: int, generator: torch.Generator) -> Columns:
        """Returns n draws for each context, by column."""
        given, run = self._given, self.run
        rows = None if given is None else torch.from_numpy(given).to(self._flow.dtype)
        sizes = [min(self.at_once, n - start) for start in range(0, n, self.at_once)]
        drawn = torch.cat([
            self._flow.sample(size, rows, temperature=self._temperature, generator=generator)
            for size in sizes
        ]).numpy()
        if given is None:
            return _by_column(run.columns, drawn)
        drawn = drawn.reshape(-1, drawn.shape[-1])
        behind = _by_column(run.context_columns, np.tile(given, (n, 1)))
        return _by_column(run.columns, drawn) | behind


def score_run(
    folder: Path,
    data: str,
    *,
    identifier: str | None = None,
    decimal: Decimal | None = None,
) -> Columns:
    """Returns log_prob (nats, in the units of the data) and percentile of each row of some data.

    A row with a value that is missing, text, or outside of the range of the flow's float type
    cannot be scored: both are NaN.

    Of a flow whose padding has no density there is no log_prob of a row; the first column is then
    joint_log_prob, of a row and its padding.

    The percentile is that of the training rows' scores: 1 means that 99 % of the training rows
    have a higher density.

    Args:
        folder: The run folder.
        data: A path or a shipped name, with the columns of the run.
        identifier: A column of the data that is copied, as text.
        decimal: The decimal sign of the data; as in the run's data if None.

    Returns:
        The columns row (1-based number in the data), the identifier if one is named, log_prob and
        percentile, a row for each row of the data.
    """
    scores = Scores(folder)
    run, options = scores.run, scores.reading(identifier, decimal)
    return scores.of(load_to_score(data, run.columns, run.context_columns, options))


class Scores:
    """What is needed to score rows by a finished run.

    Args:
        folder: The run folder.

    Attributes:
        run: What was asked of the run.
        flow: Its flow.
    """

    def __init__(self, folder: Path) -> None:
        result, self.run, self.flow = read_finished(folder), read_run(folder), load(folder)
        self._quantiles = checked_quantiles(result.train_log_prob_quantiles, folder)

    def reading(self, identifier: str | None, decimal: Decimal | None = None) -> ReadOptions:
        """Returns how data to score is read, with a column that names the rows if there is one.

        Args:
            identifier: The column, which is kept as text; None for no such column.
            decimal: The decimal sign of the data; as in the run's data if None.

        Returns:
            The options.

        Raises:
            ArgumentError: The identifier is one of the columns of the run.
        """
        if identifier in (*self.run.columns, *self.run.context_columns):
            raise ArgumentError(
                f"'id' should name a column that the run does not use, got {identifier!r}."
            )
        texts = () if identifier is None else (identifier,)
        return replace(self.run.reading(decimal), texts=texts, lenient=True)

    def of(self, table: Table, *, generator: torch.Generator | None = None) -> Columns:
        """Returns the scores of rows, NaN where a row cannot be scored.

        Columns that were rounded are given the same noise as the rows of the run.

        Args:
            table: The rows.
            generator: Draws what is random; continues from chunk to chunk of a table.

        Returns:
            The columns of `score_run`.
        """
        filled, gaps = _without_gaps(table, self.flow.dtype)
        filled = noisy(filled, self.run.widths, domains_in(self.flow, filled))
        scores = log_prob_of(self.flow, rows_of(filled, self.flow), generator=generator).numpy()
        scores[gaps] = np.nan
        return {
            "row": table.rows,
            **table.texts,
            column_of(self.flow): scores,
            "percentile": percentiles(scores, self._quantiles),
        }


def _without_gaps(table: Table, dtype: torch.dtype) -> tuple[Table, np.ndarray]:
    """Returns a table whose rows can all be scored, and which of them hold other values.

    Such a row has the values of the first row without gaps, so that a batch keeps its size, on
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


def column_of(flow: Flow) -> str:
    """Returns what the scores of a flow are called: a joint density is no log_prob of a row."""
    return "joint_log_prob" if flow.likelihood == "joint" else "log_prob"


def check_draws(n: int, temperature: float, seed: int) -> None:
    """Says which of what is asked of samples is out of its range, before the work is done."""
    positive_int("n", n)
    if finite_float("temperature", temperature) < 0:
        raise ArgumentError(f"'temperature' should be 0 or more, got {temperature}.")
    if natural_int("seed", seed) >= 2**63:
        raise ArgumentError(f"'seed' should be below 2**63, got {seed}.")


def checked_quantiles(quantiles: list[float | None], folder: Path) -> np.ndarray:
    """Returns the stored distribution of training scores, or says that there is none."""
    if None in quantiles:
        raise FileError(
            f"{folder} has training rows whose score is not finite: there is no percentile."
        )
    return np.array(quantiles, dtype=float)


def percentiles(scores: np.ndarray, quantiles: np.ndarray) -> np.ndarray:
    """Returns where scores lie in a distribution that evenly spaced quantiles give, 0 to 100."""
    return np.interp(scores, quantiles, np.linspace(0, 100, len(quantiles)))


def examine_run(
    folder: Path,
    data: str | None = None,
    *,
    progress: Progress = quietly,
    decimal: Decimal | None = None,
) -> tuple[Diagnosis, str]:
    """Returns the doctor's diagnosis of a run's flow, and at which points it was made, in words.

    Args:
        folder: The run folder, or any saved model.
        data: Data with the columns of the run; its held-out test rows if left out and still to be
            found, else samples of the flow.
        progress: Is told what is measured, before it is.
        decimal: The decimal sign of the data; as in the run's data if None.

    Returns:
        The diagnosis and the points.
    """
    flow = load(folder)
    if data is not None:
        run = read_run(folder)
        table = finite_table(data, run.columns, run.context_columns, run.reading(decimal))
        table = noisy(table, run.widths, domains_in(flow, table))
        return _examined_at(flow, table, progress), f"rows of {data}"
    try:
        tables = tables_again(read_run(folder))
    except KappaflowError:
        said = "samples of the flow (its data was not found as it was)"
        return diagnose_flow(flow, progress=progress), said
    found = _examined_at(flow, tables.test, progress)
    more = stored_findings(folder, tables.warnings)
    return with_findings(found, *more), "held-out rows of the run"


def _examined_at(flow: Flow, table: Table, progress: Progress) -> Diagnosis:
    """Returns the diagnosis at the rows of a table, which findings name with their values."""
    rows = rows_of(table, flow)
    return diagnose_flow(
        flow,
        rows.x,
        rows.context,
        progress=progress,
        names=lambda i: describe_values(table, i),
    )


def finite_table(data: str, columns: list[str], context: list[str], options: ReadOptions) -> Table:
    """Returns the named columns of some data, all finite."""
    table = load_table(
        data, columns=columns, context=context, decimal=options.decimal, missing=options.missing
    )
    refuse_gaps(table, data)
    return table


def _by_column(names: list[str], values: np.ndarray) -> dict[str, Any]:
    return {name: values[:, i] for i, name in enumerate(names)}
