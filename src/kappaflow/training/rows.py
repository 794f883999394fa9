"""Reads tabular data of any kind that `fit` takes, as tables whose columns match each other."""

import dataclasses
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from kappaflow.data import Table, weighted
from kappaflow.data.load import check_same_order, read_table
from kappaflow.data.naming import require_finite
from kappaflow.data.problems import problems_of
from kappaflow.data.raw import READ_ALL, Reading, quoted
from kappaflow.errors import ArgumentError, DataError
from kappaflow.flows import Flow
from kappaflow.training.torch_data import is_torch_data, read_torch_data


def as_table(
    data: Any, reading: Reading = READ_ALL, weights: Any = None, *, every: bool = False
) -> Table:
    """Returns tabular data of any kind as a table; `every` keeps all columns of numbers."""
    if is_torch_data(data):
        data = read_torch_data(data, None)
    if not isinstance(data, Table | tuple):
        return read_table(data, replace(reading, every=every), weights)
    if isinstance(data, tuple):
        refuse_reading(reading, "a pair (x, context)", but=("exclude", "missing"))
        table = _pair(data, reading)
    else:
        refuse_reading(reading, "a Table", but=("exclude",))
        table = data
    lacking = [name for name in reading.exclude if name not in table.columns]
    if lacking:
        raise ArgumentError(
            f"'exclude' names column {lacking[0]!r}, which is not modeled: the columns are "
            f"{quoted(table.columns)}."
        )
    return weighted(table.without_columns(reading.exclude), weights)


def refuse_reading(reading: Reading, kind: str, but: Sequence[str] = ()) -> None:
    """Raises ArgumentError for an option of reading that does not apply to a kind of data."""
    for field in dataclasses.fields(reading):
        if field.name not in but and getattr(reading, field.name) != field.default:
            raise ArgumentError(
                f"'{field.name}' should be left out for {kind}: it is for a path, a name, a data "
                "frame or an array."
            )


def _pair(data: tuple[Any, ...], reading: Reading) -> Table:
    """Returns x and context as one table."""
    if len(data) != 2:
        raise ArgumentError(
            f"'data' should be x or a pair (x, context), got a tuple of {len(data)}."
        )
    check_same_order(*data, "context")
    only = Reading(missing=reading.missing, every=True)
    table, context = (read_table(part, only) for part in data)
    if len(table) != len(context):
        raise ArgumentError(
            f"'context' should have as many rows as 'x', {len(table)}, got {len(context)}."
        )
    taken = {*table.columns, *map("x{}".format, range(len(context.columns)))}
    names = tuple(f"context_{name}" if name in taken else name for name in context.columns)
    return replace(table, context=context.values, context_columns=names)


def rows_for(flow: Flow, data: Any, like: Table | None = None) -> Table:
    """Returns finite rows of any kind that fit a flow, with the columns of `like` by name."""
    if len(flow.event_shape) > 1:
        raise ArgumentError("'flow' should be a flow of a table, got one of images.")
    table = None if like is None else as_table(data, every=True)
    if like is not None and table is not None and set(like.columns) <= set(table.columns):
        table = _columns_of(table, like)
    else:
        table = as_table(data)
    require_finite(table, table.source)
    table.batches(flow)
    table.check(flow)
    return table


def _columns_of(table: Table, like: Table) -> Table:
    """Returns a table with the columns of another one, in its order."""
    values = table.values[:, [table.columns.index(name) for name in like.columns]]
    return replace(table, values=values, columns=like.columns, integer_columns=())


def held_out_like(validation: Table, train: Table) -> Table:
    """Returns validation rows with the columns of the training rows; all have to be finite."""
    lacking = [name for name in train.columns if name not in validation.columns]
    if lacking or validation.context_columns != train.context_columns:
        raise DataError(
            f"the validation rows should have the columns of the training rows, "
            f"{', '.join(train.columns + train.context_columns)}; they have "
            f"{', '.join(validation.columns + validation.context_columns)}."
        )
    validation = _columns_of(validation, train)
    problems = problems_of(validation, with_repeats=False)
    bad = [p.message for p in problems if p.code in {"missing", "infinite"}]
    if bad:
        raise DataError(f"the validation rows cannot be scored: {bad[0]}.")
    return validation
