"""Finds duplicate rows, estimates how many rounding explains, and drops or weights them."""

import math
from dataclasses import dataclass, replace
from typing import get_args

import numpy as np

from kappaflow.data.naming import BoolArray, FloatArray, IntArray, named_rows
from kappaflow.data.rounding import listed_steps, mixed, resolution
from kappaflow.data.table import Table
from kappaflow.errors import ArgumentError
from kappaflow.options import Duplicates

DUPLICATES: tuple[Duplicates, ...] = get_args(Duplicates)
DEVIATIONS = 4  # standard deviations above the expected number from which repeats are not chance
SHIFTED_COLUMNS = 4  # columns that are shifted by a step to estimate chance repeats
FEWEST_VALUES = 20  # values a rounded column needs for a step to be a small change


@dataclass(frozen=True)
class Repeats:
    """How many rows of a table repeat earlier rows, and a sentence about them.

    `expected` is the number that rounding alone predicts; None if the columns have so few values
    that most rows repeat others. They are unexpected if there are more than rounding explains.
    """

    total: int
    expected: float | None
    unexpected: bool
    sentence: str


def repeats_of(table: Table) -> Repeats:
    """Returns the number of rows that repeat earlier ones, and how many of them rounding explains.

    The estimate shifts every row by one step of a column's resolution, up or down, and counts the
    rows that then equal an earlier one. If the density changes little over a step, this is the
    number that chance produces. No model of the density is needed. All values must be finite.
    """
    groups = groups_of(table)
    repeated = groups != np.arange(len(table))
    total = int(repeated.sum())
    if not total:
        return Repeats(0, 0.0, unexpected=False, sentence="")
    codes, steps = zip(*(_codes(column) for column in table.all_values.T), strict=True)
    on_grid = np.array([step is not None for step in steps])
    by_chance = _repeats_by_chance(np.stack(codes, axis=1), on_grid)
    text = "1 row repeats an earlier row" if total == 1 else f"{total:,} rows repeat earlier rows"
    if by_chance is None:
        sentence = f"{text}, as rows of columns with few different values do"
        return Repeats(total, None, unexpected=False, sentence=sentence)
    expected, most = by_chance
    alone = int((np.bincount(groups, minlength=len(table)) == 1).sum())
    # The number of occupied cells has no larger variance than either, for any density.
    variance = min(2 * expected, alone * (1 - alone / len(table)))
    unexpected = total > most + DEVIATIONS * math.sqrt(variance)
    known = [step for step in steps if step is not None]
    rounding = f"rounding to {listed_steps(known)}" if known else "rounding"
    more = f"about as many as {rounding} predicts ({expected:,.0f})"
    if unexpected:
        more = f"{total - expected:,.0f} more than {rounding} predicts ({expected:,.0f})"
        more = "and rounding predicts none" if expected < 0.5 else more
        more += f" ({named_rows(table, repeated)})"
    return Repeats(total, expected, unexpected, f"{text}, {more}")


def groups_of(table: Table) -> IntArray:
    """Returns the index of the first equal row for each row, (rows,), counted from 0.

    Compares values and context. NaN equals NaN, and 0.0 equals -0.0.
    """
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


def _codes(column: FloatArray) -> tuple[IntArray, float | None]:
    """Returns a column as integers that differ by 1 for neighboring values.

    Neighboring values are one resolution step apart, or adjacent floating-point numbers if the
    column is not rounded. Also returns the resolution, or None.
    """
    step = resolution(column)
    if step is not None:
        return np.rint((column - column.min()) / step).astype(np.int64), step
    column = column + 0.0  # -0.0 becomes 0.0
    with np.errstate(over="ignore"):
        single = column.astype(np.float32)
    if np.array_equal(single, column):
        bits = single.view(np.int32).astype(np.int64)
        return np.where(bits < 0, -(bits & 0x7FFFFFFF), bits), None
    bits = column.view(np.int64)
    return np.where(bits < 0, -(bits & 0x7FFFFFFFFFFFFFFF), bits), None


def _repeats_by_chance(codes: IntArray, on_grid: BoolArray) -> tuple[float, float] | None:
    """Returns how many rows should repeat an earlier one by chance, and an upper estimate.

    The first number counts the rows that equal an earlier one after a step in one column. It is
    the maximum over a few columns, because a step in a column that depends on the others leads
    away from all rows. The second number extrapolates from two steps and one step to zero steps,
    for densities with an edge or a ridge that a step leaves.
    """
    values = np.array([len(np.unique(column)) for column in codes.T])
    columns = np.argsort(-values, kind="stable")[:SHIFTED_COLUMNS]
    columns = columns[(values[columns] >= FEWEST_VALUES) | ~on_grid[columns]]
    if not len(columns):
        return None
    # With a sum of odd random factors as the hash, a step just adds to the hash.
    odd = mixed(np.arange(1, codes.shape[1] + 1)) | np.uint64(1)
    hashes = (codes.astype(np.uint64) * odd).sum(axis=1, dtype=np.uint64)
    known, counts = np.unique(hashes, return_counts=True)

    def after(step: np.ndarray) -> float:
        both = (_meet(moved, known, counts) for moved in (hashes + step, hashes - step))
        return sum(both) / 2

    steps = odd[columns][:, None]
    once = np.array([after(step) for step in steps])
    twice = np.array([after(2 * step) for step in steps])
    return float(once.max()), float(max(once.max(), (2 * once - twice).max()))


def _meet(moved: np.ndarray, known: np.ndarray, counts: IntArray) -> float:
    """Returns how many moved rows equal an earlier row, averaged over all orders of the rows.

    A row that equals m others comes first with probability 1 / (m + 1).
    """
    index = np.searchsorted(known, moved).clip(max=len(known) - 1)
    met = np.where(known[index] == moved, counts[index], 0)
    return float((met / (met + 1)).sum())
