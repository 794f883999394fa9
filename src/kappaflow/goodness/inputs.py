"""`Inputs`: the flow, rows and context of a comparison, in any form that users give them."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kappaflow.conditioning.points import checked_points, measuring
from kappaflow.data import Table
from kappaflow.data.batches import domains_in
from kappaflow.data.load import read_table
from kappaflow.data.prepare import noisy
from kappaflow.data.raw import Reading, quoted
from kappaflow.data.rounding import rounded_samples
from kappaflow.data.table import Grid
from kappaflow.errors import ArgumentError, KappaflowError, one_line
from kappaflow.flows import Flow
from kappaflow.flows.rows import PLAIN, Data, plain_tensors, read_rows
from kappaflow.foreign import Wrapped, wrap
from kappaflow.foreign.wrapped import own_flow
from kappaflow.goodness.scan import FloatArray

Rows = tuple[Tensor, Tensor | None]
LEAST_ROWS = 30  # with fewer rows nothing is compared


@dataclass(frozen=True)
class Inputs:
    """Rows of a table with their context, weights and names, as tensors for a flow."""

    x: Tensor
    context: Tensor | None = None
    train: Rows | None = None  # that the flow was trained on; None if they are not known
    weights: FloatArray | None = None
    columns: tuple[str, ...] = ()
    context_columns: tuple[str, ...] = ()
    train_weights: FloatArray | None = None
    grids: Mapping[str, Grid] = field(default_factory=dict)  # of columns whose rows have noise

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the columns; x0, x1, ... by default."""
        if len(self.columns) == self.x.shape[1]:
            return self.columns
        return tuple(f"x{i}" for i in range(self.x.shape[1]))

    def like_rows(self, flow: Flow, samples: Tensor) -> Tensor:
        """Returns samples with rounded values that have noise, as those of the rows."""
        grids = {name: self.grids[name] for name in self.names if name in self.grids}
        if not grids:
            return samples
        rounded = rounded_samples(samples.double().cpu().numpy(), self.names, grids)
        table = Table(rounded, self.names, -np.arange(len(rounded)), "samples")
        return samples.new_tensor(noisy(table, grids, domains_in(flow, table)).values)

    @property
    def context_names(self) -> tuple[str, ...]:
        """The names of the columns of the context; context_x0, ... by default."""
        count = 0 if self.context is None else self.context.shape[1]
        if len(self.context_columns) == count:
            return self.context_columns
        return tuple(f"context_x{i}" for i in range(count))


@contextmanager
def opened(
    flow: object, x: Data, context: Data = None, train: object = None
) -> Iterator[tuple[Flow, Inputs]]:
    """Yields a flow in evaluation mode, and the rows as it takes them."""
    known = own_flow(flow)
    named = known if isinstance(known, Flow) else None
    source = x if isinstance(x, PLAIN) else read_rows("x", x)
    rows, contexts = plain_tensors(named, source, context)
    own = wrap(flow, rows, contexts)
    weights = source.weights if isinstance(source, Table) else None
    columns, context_columns = own.columns, own.context_columns
    if isinstance(source, Table):
        columns = columns or source.columns
        context_columns = context_columns or source.context_columns
    errors = one_sentence_errors(own, contexts, "kappaflow cannot compare samples of")
    with errors, measuring(own), torch.random.fork_rng(devices=[]):
        if len(own.event_shape) != 1:
            raise ArgumentError(
                f"'flow' should be a flow of rows of a table, got one of {tuple(own.event_shape)}."
            )
        rows, contexts = checked_points(own, rows, contexts)
        if len(rows) < LEAST_ROWS:
            raise ArgumentError(
                f"'x' should hold at least {LEAST_ROWS} rows to compare samples with, got "
                f"{len(rows)}."
            )
        pair, train_weights = train_rows(named, train)
        rows = rows[:, : own.event_shape[0]]
        if pair is not None:
            check_train(rows, contexts, pair)
        grids = source.grids if isinstance(source, Table) else {}
        names = columns, context_columns
        yield own, Inputs(rows, contexts, pair, weights, *names, train_weights, grids)


@contextmanager
def one_sentence_errors(flow: Flow, context: Tensor | None, problem: str) -> Iterator[None]:
    """Converts an exception of another library to a short ArgumentError."""
    try:
        yield
    except KappaflowError:
        raise
    except Exception as error:
        if not isinstance(flow, Wrapped):
            raise
        hint = (
            "If it is conditional, pass its 'context'."
            if context is None
            else "If it is not conditional, leave 'context' out."
        )
        raise ArgumentError(
            f"{problem} this flow of {flow.library}, because it raised {one_line(error)}. {hint}"
        ) from error


def train_rows(flow: Flow | None, train: object) -> tuple[Rows | None, FloatArray | None]:
    """Returns training rows, or the pair (rows, context), as tensors, and their weights."""
    parts: tuple[Any, ...] = train if isinstance(train, tuple) else (train,)
    if len(parts) not in {1, 2}:
        raise ArgumentError(f"'train' should be rows or (rows, context), got {len(parts)} values.")
    if parts[0] is None:
        return None, None
    rows = parts[0] if isinstance(parts[0], PLAIN) else read_rows("train", parts[0])
    pair = plain_tensors(flow, rows, *parts[1:])
    return pair, rows.weights if isinstance(rows, Table) else None


def check_train(x: Tensor, context: Tensor | None, train: Rows) -> None:
    """Raises ArgumentError if training rows and their context do not fit held-out rows."""
    rows, context_rows = train
    if rows.dim() != 2 or rows.shape[1:] != x.shape[1:]:
        raise ArgumentError(
            f"'train' should hold rows of a table like 'x', (N, {x[0].numel()}), got "
            f"{tuple(rows.shape)}."
        )
    if not len(rows):
        raise ArgumentError("'train' should hold at least one row, got none.")
    expected = None if context is None else (len(rows), *context.shape[1:])
    if (None if context_rows is None else tuple(context_rows.shape)) != expected:
        raise ArgumentError(
            "'train' should be rows alone for a flow without a context, and (rows, context), with "
            "as many rows each, for one with a context."
        )
    if not all(torch.isfinite(part).all() for part in train if part is not None):
        raise ArgumentError("'train' should hold finite numbers only.")


def same_columns(**sources: Data) -> tuple[tuple[str, ...], list[FloatArray]]:
    """Returns the names and the values of the columns that several tables have in common.

    Tables, frames and files are matched by the names of the first of them, and arrays and tensors
    by position. Contexts join the columns, and values that noise was added to are rounded back.
    """
    tables = {
        name: read_table(source, Reading(every=True))
        if isinstance(source, PLAIN)
        else read_rows(name, source)
        for name, source in sources.items()
    }
    named = [name for name, source in sources.items() if not isinstance(source, PLAIN)]
    first = (named or [*tables])[0]
    columns, results = tables[first].all_columns, []
    for name, table in tables.items():
        values = rounded_samples(table.all_values, table.all_columns, table.grids)
        if name in named:
            lacking = [column for column in columns if column not in table.all_columns]
            if lacking:
                raise ArgumentError(
                    f"'{name}' should have the columns of '{first}', it lacks {quoted(lacking)}."
                )
            values = values[:, [table.all_columns.index(column) for column in columns]]
        if values.shape[1] != len(columns) or len(values) < LEAST_ROWS:
            raise ArgumentError(
                f"'{name}' should have at least {LEAST_ROWS} rows of the {len(columns)} columns "
                f"of '{first}', got shape {values.shape}."
            )
        if not np.isfinite(values).all():
            raise ArgumentError(f"'{name}' should hold finite numbers only.")
        results.append(values)
    return columns, results
