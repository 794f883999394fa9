"""Rows that repeat earlier ones: found, explained by rounding or not, dropped or weighted."""

from dataclasses import dataclass, replace
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from kappaflow.data.naming import BoolArray, FloatArray, IntArray, named_rows
from kappaflow.data.rounding import splitmix64
from kappaflow.data.table import Table
from kappaflow.errors import ArgumentError
from kappaflow.options import Duplicates

DUPLICATES: tuple[Duplicates, ...] = get_args(Duplicates)
HARDLY_REPEATS = 0.9  # values of a column for each different row: such columns meet by no chance
FEWEST_VALUES = 20  # that such a column has


@dataclass(frozen=True)
class Repeats:
    """How many rows of a table repeat earlier rows, and a sentence about them."""

    total: int
    unexpected: bool  # two columns or more hardly repeat values: rounding explains no repeat
    sentence: str


def repeats_of(table: Table) -> Repeats:
    """Returns the number of rows that repeat earlier ones, and whether rounding explains them."""
    repeated = repeated_rows(table)
    total = int(repeated.sum())
    if not total:
        return Repeats(0, unexpected=False, sentence="")
    text = "1 row repeats an earlier row" if total == 1 else f"{total:,} rows repeat earlier rows"
    values = np.array([len(np.unique(column)) for column in table.all_values.T])
    enough = max(FEWEST_VALUES, HARDLY_REPEATS * (len(table) - total))
    if (values >= enough).sum() < 2:
        return Repeats(total, unexpected=False, sentence=text)
    sentence = f"{text}, which rounding does not explain ({named_rows(table, repeated)})"
    return Repeats(total, unexpected=True, sentence=sentence)


def groups_of(table: Table) -> IntArray:
    """Returns the index of the first equal row of each; NaN equals NaN, and 0.0 equals -0.0."""
    import polars as pl

    parts = table.all_values
    rows = np.arange(len(table))
    if not parts.shape[1] or not len(parts):
        return rows
    frame = pl.from_numpy(np.ascontiguousarray(parts), orient="row")
    first = pl.col("row").first().over(frame.columns)
    grouped = frame.with_columns(pl.Series("row", rows)).select(first)
    return grouped.to_series().to_numpy().astype(np.int64)


def repeated_rows(table: Table) -> BoolArray:
    """Returns a mask of the rows that equal an earlier one, as `groups_of` compares them."""
    return groups_of(table) != np.arange(len(table))


def drop_duplicate_rows(table: Table) -> tuple[Table, int]:
    """Returns the table without rows that repeat an earlier one.

    Do not drop rows that are equal only because of rounding: samples of a flow fitted to the rest
    are too wide. (`split` puts equal rows in the same part.)

    Args:
        table: The table. Rows are equal if both values and context are.

    Returns:
        The first row of each set of equal rows, in their order, and the number of dropped rows. A
        table with weights is returned unchanged, since equal rows may have different weights.

    Example:
        >>> from kappaflow.data import load_table
        >>> table, dropped = drop_duplicate_rows(load_table("magic"))
        >>> len(table), dropped
        (18905, 115)
    """
    if table.weights is not None:
        return table, 0
    repeated = repeated_rows(table)
    return table.select(~repeated), int(repeated.sum())


def weigh_duplicate_rows(table: Table) -> tuple[Table, int]:
    """Returns the table with one row of each set of equal rows, weighted by their number.

    Args:
        table: The table. Rows are equal if both values and context are.

    Returns:
        The first row of each set of equal rows, in their order, weighted by the sum of the
        weights of the set; and the number of rows that were merged into others. Without weights
        in the table, and if all sums are equal, the result has no weights either.

    Example:
        >>> from kappaflow.data import load_table
        >>> table, counted = weigh_duplicate_rows(load_table(np.array([[0.5], [1.5], [0.5]])))
        >>> table.rows, table.weights, counted
        (array([1, 2]), array([2., 1.]), 1)
    """
    groups = groups_of(table)
    first = groups == np.arange(len(table))
    counts = np.ones(len(table)) if table.weights is None else table.weights
    sums = np.bincount(groups, counts, minlength=len(table))[first]
    alike = table.weights is None and len(sums) and np.ptp(sums) == 0
    result = replace(table.select(first), weights=None if alike else sums)
    return result, int((~first).sum())


def settle_duplicates(table: Table, how: Duplicates = "keep") -> Table:
    """Returns a table whose equal rows are marked or dropped, before noise makes them different.

    "keep" and "weigh" mark equal rows, so that `split` puts them in the same part; with "weigh",
    `weigh_duplicate_rows` later merges those in the training rows. "drop" keeps the first of each
    set, and raises ArgumentError if rows have weights, which may differ between equal rows.
    """
    from kappaflow._checks import one_of

    if one_of("duplicates", how, DUPLICATES) == "drop":
        if table.weights is not None:
            raise ArgumentError(
                "'duplicates' should be 'keep' or 'weigh' with weights, by which equal rows may "
                "count differently, got 'drop'."
            )
        return drop_duplicate_rows(table)[0]
    return replace(table, groups=groups_of(table))


def row_hashes(values: FloatArray) -> NDArray[np.uint64]:
    """Returns a hash of 64 bits for each row (rows, columns); 0.0 and -0.0 are equal."""
    bits = np.ascontiguousarray(values + 0.0).view(np.uint64)
    result = np.full(len(values), bits.shape[1], dtype=np.uint64)
    for column in bits.T:
        result = splitmix64(result ^ column)
    return result
