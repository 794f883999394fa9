"""What a run is asked to do, and the tables that follow from it."""

from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from kappaflow.data import Table, drop_duplicate_rows, load_table, prepare, split
from kappaflow.data.domains import domains_of, put_back, within
from kappaflow.data.repair import jitter_columns
from kappaflow.domains import Interval
from kappaflow.errors import ArgumentError, DataError

FRACTIONS = (0.8, 0.1, 0.1)


@dataclass(frozen=True)
class Source:
    """Where the rows of a run come from.

    Attributes:
        data: A path or a shipped name.
        columns: Columns to model; None for all of numbers.
        exclude: Columns to leave out.
        context: Columns that the density is conditioned on.
        where: Conditions on the rows, such as "class=g".
        against: A condition on other rows of the same data, which are never trained on and should
            score lower; None for no such comparison.
        repair: "drop" or "jitter" where the data has no density.
        jitter: Columns that are given Gaussian noise of 1e-3 of their standard deviation.
        bounds: Domains of columns, such as "mass=positive" and "p=0,1".
        split_seed: Decides which rows train (80 %), validate (10 %) and test (10 %).
    """

    data: str
    columns: list[str] | None = None
    exclude: list[str] = field(default_factory=list)
    context: list[str] = field(default_factory=list)
    where: list[str] = field(default_factory=list)
    against: str | None = None
    repair: Literal["drop", "jitter"] | None = None
    split_seed: int = 0
    jitter: list[str] | None = None
    bounds: list[str] | None = None


@dataclass(frozen=True)
class Tables:
    """The rows of a run, by what they are for, and what was said about them."""

    train: Table
    validation: Table
    test: Table
    against: Table | None
    loaded: int
    duplicates: int
    notes: tuple[str, ...]
    domains: dict[str, Interval] = field(default_factory=dict)


def tables_of(source: Source) -> Tables:
    """Returns the rows of a run: loaded, examined, without duplicate rows, split.

    Args:
        source: Where they come from.

    Returns:
        Training, validation and test rows; no two of them are equal.
    """
    if source.against is not None and source.data == "-":
        raise ArgumentError("'against' needs data that can be read twice, not standard input.")
    whole = load_table(
        source.data,
        columns=source.columns,
        exclude=source.exclude,
        context=source.context,
        where=source.where or None,
    )
    against, notes = _against(source, whole)
    if against is not None:
        whole = whole.select(~np.isin(whole.rows, against.rows))
    table, duplicates = drop_duplicate_rows(whole)
    domains = domains_of(source.bounds, table)
    table, moved = within(table, domains, repair=source.repair)
    table, said = prepare(table, repair=source.repair)
    said = moved + said
    if duplicates:
        notes += (f"{duplicates} rows that repeat earlier ones were dropped before the split",)
    if source.jitter:
        table = jitter_columns(table, source.jitter)
        notes += (f"added Gaussian noise of 1e-3 of the spread to {', '.join(source.jitter)}",)
    table = put_back(table, domains)
    train, validation, test = split(table, fractions=FRACTIONS, seed=source.split_seed)
    if against is not None:
        against, _ = drop_duplicate_rows(against)
        against = against.without_columns(set(against.columns) - set(table.columns))
        refuse_gaps(against, source.data)
        against = within(against, domains, repair=source.repair)[0]
    return Tables(train, validation, test, against, len(whole), duplicates, notes + said, domains)


def _against(source: Source, whole: Table) -> tuple[Table | None, tuple[str, ...]]:
    """Returns the rows to compare with, and what to say where training would have seen them."""
    if source.against is None:
        return None, ()
    against = load_table(
        source.data,
        columns=list(whole.columns),
        context=source.context,
        where=source.against,
    )
    both = int(np.isin(whole.rows, against.rows).sum())
    said = (f"{both} rows that meet {source.against!r} are compared with, and not trained on",)
    return against, said if both else ()


def refuse_gaps(table: Table, data: str) -> None:
    """Refuses a table with a value that is missing or infinite, and names the first."""
    parts = table.values if table.context is None else np.hstack([table.values, table.context])
    bad = ~np.isfinite(parts)
    if bad.any():
        row, column = np.argwhere(bad)[0]
        name = [*table.columns, *table.context_columns][column]
        raise DataError(
            f"column {name!r} of {data} should hold finite numbers, row {table.rows[row]} has "
            f"{parts[row, column]}."
        )
