"""From what a user calls data to the rows that a training reads."""

import dataclasses
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from kappaflow.data import Table, examine, load_table
from kappaflow.data.domains import within
from kappaflow.data.load import load_every_column
from kappaflow.data.problem import describe_rows
from kappaflow.data.raw import quoted
from kappaflow.domains import Interval
from kappaflow.errors import ArgumentError, DataError
from kappaflow.flows import Flow


@dataclass(frozen=True)
class Rows:
    """Points (N, D) and their contexts (N, C) or None, of the flow's type and device.

    Where rows count differently, their weights (N,), of mean 1 over the table, in float64.
    """

    x: Tensor
    context: Tensor | None
    weights: Tensor | None = None

    def __len__(self) -> int:
        return len(self.x)

    def at(self, index: Tensor | slice) -> "Rows":
        """Returns some of the rows; an index lies on the CPU."""
        where = index.to(self.x.device) if isinstance(index, Tensor) else index
        context, weights = (
            None if part is None else part[where] for part in (self.context, self.weights)
        )
        return Rows(self.x[where], context, weights)

    def examples(self) -> "Rows":
        """Returns all rows."""
        return self

    def mean(self, values: Tensor) -> Tensor:
        """Returns the mean of a number for each row, (N,), by their weights."""
        if self.weights is None:
            return values.mean()
        return (values * self.weights.to(values)).mean()


class AnyRows(Protocol):
    """What a training reads: so many points, some of them at a time."""

    @property
    def weights(self) -> Tensor | None:
        """How much each of them counts, of mean 1; None where all count alike."""
        ...

    def __len__(self) -> int:
        """Returns how many there are."""
        ...

    def at(self, index: Tensor | slice) -> Rows:
        """Returns some of the points; an index lies on the CPU."""
        ...

    def examples(self) -> Rows:
        """Returns points to fit to what a flow begins with: all, or some of many."""
        ...


def as_table(data: Any, *, every: bool = False) -> Table:  # noqa: ANN401
    """Returns data of any accepted kind as a table.

    Args:
        data: A table, tensor, array, data frame, path or shipped name; with a context, a pair (x,
            context).
        every: Leave out no column of numbers or booleans, as for a pair.

    Returns:
        The table.

    Raises:
        ArgumentError: x and context have different numbers of rows.
    """
    if isinstance(data, Table):
        return data
    if not isinstance(data, tuple):
        return load_every_column(data) if every else load_table(data)
    if len(data) != 2:
        raise ArgumentError(
            f"'data' should be x or a pair (x, context), got a tuple of {len(data)}."
        )
    table, context = load_every_column(data[0]), load_every_column(data[1])
    if len(table) != len(context):
        raise ArgumentError(
            f"'context' should have as many rows as 'x', {len(table)}, got {len(context)}."
        )
    names = tuple(f"context_{name}" for name in context.columns)
    return dataclasses.replace(table, context=context.values, context_columns=names)


def held_out_like(validation: Table, train: Table) -> Table:
    """Returns the given validation rows, with the columns that are trained on, all finite."""
    lacking = [name for name in train.columns if name not in validation.columns]
    if lacking or validation.context_columns != train.context_columns:
        raise DataError(
            f"the validation rows should have the columns of the training rows, "
            f"{', '.join(train.columns + train.context_columns)}; they have "
            f"{', '.join(validation.columns + validation.context_columns)}."
        )
    order = [validation.columns.index(name) for name in train.columns]
    validation = dataclasses.replace(
        validation,
        values=validation.values[:, order],
        columns=train.columns,
        integer_columns=(),
    )
    bad = [p.message for p in examine(validation) if p.code in {"missing", "infinite"}]
    if bad:
        raise DataError(f"the validation rows cannot be scored: {bad[0]}.")
    return validation


def rows_of(table: Table, flow: Flow) -> Rows:
    """Returns a table as rows for a flow, or says how their widths differ."""
    wanted = flow.event_shape
    if wanted != (len(table.columns),):
        left = f"; left out: {quoted(table.left_out)}" if table.left_out else ""
        raise ArgumentError(
            f"'data' should have {' x '.join(map(str, wanted))} columns, as the flow has "
            f"features; {table.source} has {len(table.columns)}: "
            f"{', '.join(table.columns[:12])}{left}."
        )
    if len(table.context_columns) != flow.context_features:
        raise ArgumentError(
            f"'data' should have {flow.context_features} context columns, as the flow has; "
            f"{table.source} has {len(table.context_columns)}."
        )
    context = None if table.context is None else _tensor(table.context, flow)
    weights = None
    if table.weights is not None:
        weights = torch.from_numpy(table.weights / table.weights.mean()).to(flow.device)
    return Rows(_tensor(table.values, flow), context, weights)


def refuse_collapsed(table: Table, flow: Flow) -> None:
    """Refuses a column whose values the flow's float type cannot hold or tell apart."""
    for name, column in zip(table.columns, table.values.T, strict=True):
        cast = torch.from_numpy(column.copy()).to(flow.dtype).double().numpy()
        dtype = str(flow.dtype).removeprefix("torch.")
        if not np.isfinite(cast).all():
            raise DataError(
                f"column {name!r} holds values up to {np.abs(column).max():.3g}, which {dtype} "
                "cannot hold: measure it in another unit."
            )
        with np.errstate(over="ignore"):
            spread = column.std()
        if np.ptp(column) and np.abs(cast - column).max() > 0.05 * spread:
            raise DataError(
                f"column {name!r} varies by {spread:.3g} around {column.mean():.3g}, which "
                f"{dtype} cannot tell apart: store the difference from {column.mean():.6g} in "
                "the data, leave the column out, or in Python give a float64 flow."
            )


def domains_in(flow: Flow, table: Table) -> dict[str, Interval]:
    """Returns the domains that a flow has, by the columns of a table of as many."""
    if flow.domain is None or flow.event_shape != (len(table.columns),):
        return {}
    pairs = zip(table.columns, flow.domain.domains, strict=False)
    return {name: domain for name, domain in pairs if domain is not None}


def refuse_outside(table: Table, flow: Flow) -> None:
    """Refuses values outside of the domains of a flow, or on an end in the flow's float type."""
    domains, domain = domains_in(flow, table), flow.domain
    if domain is None:
        return
    within(table, domains)
    for name, place in zip(table.columns, range(len(table.columns)), strict=True):
        if name not in domains:
            continue
        x = torch.tensor(domain.inside, dtype=flow.dtype).repeat(len(table), 1)
        x[:, place] = torch.from_numpy(table.values[:, place].copy()).to(flow.dtype)
        outside = domain.outside(x.to(flow.device)).cpu().numpy()
        if outside.any():
            row = int(np.flatnonzero(outside)[0])
            raise DataError(
                f"column {name!r} should lie {domains[name].in_words}, and "
                f"{str(flow.dtype).removeprefix('torch.')} rounds {int(outside.sum()):,} of its "
                f"values to an end, such as {float(table.values[row, place])!r} in "
                f"{describe_rows(table, [row])[0]}: give 1 - x where x is next to 1, or use a "
                "float64 flow."
            )


def _tensor(values: np.ndarray, flow: Flow) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values)).to(flow.device, flow.dtype)
