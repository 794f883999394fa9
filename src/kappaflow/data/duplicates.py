"""Finds duplicate rows, estimates how many rounding explains, and drops or weights them.

Rows that were pasted twice can hide among the duplicates that rounding creates. Their order gives
them away: they repeat consecutive rows of the table in the same order.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import get_args

import numpy as np

from kappaflow.data.rounding import listed_steps, mixed, resolution
from kappaflow.data.table import (
    BoolArray,
    FloatArray,
    IntArray,
    Table,
    describe_rows,
    named_rows,
    plural,
)
from kappaflow.errors import ArgumentError
from kappaflow.options import Duplicates

DUPLICATES: tuple[Duplicates, ...] = get_args(Duplicates)
DEVIATIONS = 4  # standard deviations above the expected number from which repeats are not chance
SHIFTED_COLUMNS = 4  # columns that are shifted by a step to estimate chance repeats
CHANCE = 1e-3  # probability of reporting pasted rows in a table without any
LONGEST_WINDOW = 1000  # the largest number of rows compared in order
SHARE_STEPS = 20  # iterations after which the share of equal pairs hardly changes
FEWEST_VALUES = 20  # values a rounded column needs for a step to be a small change


@dataclass(frozen=True)
class PastedBlock:
    """A block of rows that repeats an earlier block of a table in the same order.

    `first` and `source` are the indices of the first rows of the later and the earlier block.
    """

    first: int
    source: int
    rows: int

    def describe(self, name_rows: Callable[[list[int]], list[str]]) -> str:
        """Returns a clause with the names that `name_rows` gives to rows counted from 0."""
        further = self.rows - 1
        names = name_rows([self.first, self.first + further, self.source, self.source + further])
        words, numbers = plural(names)
        return (
            f"{words} {' to '.join(numbers[:2])} repeat {words} {' to '.join(numbers[2:])} in the "
            "same order, as rows do that were pasted twice"
        )


@dataclass(frozen=True)
class Repeats:
    """Counts of the rows of a table that repeat earlier rows.

    Attributes:
        total: Number of repeated rows.
        expected: Number that rounding alone predicts. None if the columns have so few values that
            most rows repeat others.
        unexpected: Whether there are more than rounding alone explains.
        steps: Resolutions of the rounded columns.
        pasted: The first block of rows that repeats an earlier block and is too long to be chance;
            None if there is none.
    """

    total: int
    expected: float | None
    unexpected: bool
    steps: tuple[float, ...]
    pasted: PastedBlock | None = None

    def describe(self) -> str:
        """Returns a clause that compares the number of repeats with what rounding predicts."""
        verb = "row repeats an earlier row" if self.total == 1 else "rows repeat earlier rows"
        result = f"{self.total:,} {verb}"
        if self.expected is None:
            return f"{result}, as rows of columns with few different values do"
        rounding = f"rounding to {listed_steps(self.steps)}" if self.steps else "rounding"
        if not self.unexpected or self.total <= self.expected:
            return f"{result}, about as many as {rounding} predicts ({self.expected:,.0f})"
        if self.expected < 0.5:
            return f"{result}, and rounding predicts none"
        more = self.total - self.expected
        return f"{result}, {more:,.0f} more than {rounding} predicts ({self.expected:,.0f})"


def describe_repeats(table: Table, repeats: Repeats) -> str:
    """Returns a sentence about repeated rows, which names those that rounding does not explain."""
    text = repeats.describe()
    if repeats.pasted is not None:
        return f"{text}; {repeats.pasted.describe(lambda rows: describe_rows(table, rows))}"
    if not repeats.unexpected:
        return text
    return f"{text} ({named_rows(table, repeated_rows(table))})"


def groups_of(table: Table) -> IntArray:
    """Returns the index of the first equal row for each row, (rows,), counted from 0.

    Compares values and context. NaN equals NaN, and 0.0 equals -0.0.

    Example:
        >>> from kappaflow.data import load_table
        >>> groups_of(load_table(np.array([[0.5], [1.5], [0.5]])))
        array([0, 1, 0])
    """
    import polars as pl

    parts = table.all_values
    places = np.arange(len(table))
    if not parts.shape[1] or not len(parts):
        return places
    frame = pl.from_numpy(np.ascontiguousarray(parts), orient="row")
    first = pl.col("place").first().over(frame.columns)
    grouped = frame.with_columns(pl.Series("place", places)).select(first)
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

    Example:
        >>> from kappaflow.data import load_table
        >>> table = load_table(np.array([[0.5], [1.5], [0.5]]))
        >>> [len(settle_duplicates(table, how)) for how in ("keep", "drop", "weigh")]
        [3, 2, 3]
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


def repeats_of(table: Table) -> Repeats:
    """Returns the number of rows that repeat earlier ones, and how many of them rounding explains.

    The estimate shifts every row by one step of a column's resolution, up or down, and counts the
    rows that then equal an earlier one. If the density changes little over a step, this is the
    number that chance produces. No model of the density is needed. All values must be finite.

    Example:
        >>> from kappaflow.data import load_table
        >>> x = np.random.default_rng(0).normal(size=(20_000, 2))
        >>> x = np.stack([x[:, 0].round(2), x[:, 1].round(1)], axis=1)
        >>> found = repeats_of(load_table(x))
        >>> found.total, round(found.expected), found.unexpected
        (9035, 8998, False)
    """
    groups = groups_of(table)
    total = int((groups != np.arange(len(table))).sum())
    if not total:
        return Repeats(0, 0.0, unexpected=False, steps=())
    parts = table.all_values
    codes, steps = zip(*(_codes(column) for column in parts.T), strict=True)
    rounded = tuple(step for step in steps if step is not None)
    on_grid = np.array([step is not None for step in steps])
    by_chance = _repeats_by_chance(np.stack(codes, axis=1), on_grid)
    if by_chance is None:
        pasted = pasted_block(groups)
        return Repeats(total, None, pasted is not None, rounded, pasted)
    expected, most = by_chance
    alone = int((np.bincount(groups, minlength=len(table)) == 1).sum())
    # The number of occupied cells has no larger variance than either, for any density.
    variance = min(2 * expected, alone * (1 - alone / len(table)))
    unexpected = total > most + DEVIATIONS * math.sqrt(variance)
    pasted = pasted_block(groups, independent=unexpected)
    return Repeats(total, expected, unexpected or pasted is not None, rounded, pasted)


def pasted_block(groups: IntArray, *, independent: bool = False) -> PastedBlock | None:
    """Returns the first block of rows that repeats an earlier one in the same order, if any.

    Chance produces such blocks too. Each further row makes them rarer by a factor: the share of
    equal pairs of rows that are followed by another equal pair. A block is reported if it is so
    long that chance produces one in at most one of a thousand tables. Rows that equal the row
    before them are skipped, so that sorted rows and constant stretches do not look like copies.
    `groups` are those of `groups_of`. With `independent`, successive rows are assumed to be
    independent; this is for tables with more repeats than chance produces, where the block itself
    raises the share.

    Example:
        >>> rows = np.random.default_rng(0).integers(100, size=2000)
        >>> pasted_block(rows)
        >>> pasted_block(np.concatenate([rows, rows[300:340]]))
        PastedBlock(first=2000, source=300, rows=40)
    """
    kept = np.flatnonzero(np.diff(groups, prepend=groups[0] - 1)) if len(groups) else groups
    rows = groups[kept]
    pairs, in_order = (_equal_pairs(_windows(rows, length)) for length in (1, 2))
    if not in_order:
        return None
    share = in_order / pairs
    if independent:
        share = min(share, _share_by_chance(groups))
    if share >= 1:
        return None
    length = max(3, 1 + math.ceil(math.log(pairs / CHANCE) / -math.log(share)))
    if length > min(LONGEST_WINDOW, len(rows) // 2):
        return None
    hashes = _windows(rows, length)
    _, earliest, which = np.unique(hashes, return_index=True, return_inverse=True)
    source = earliest[which]
    later = np.flatnonzero(source + length <= np.arange(len(hashes)))
    if not len(later):
        return None
    start = int(later[0])
    other = int(source[start])
    same = rows[other : other + len(rows) - start] == rows[start:]
    longest = int(np.argmin(same)) if not same.all() else len(same)
    longest = min(longest, start - other)
    last = min(kept[start + longest - 1] - kept[start], kept[other + longest - 1] - kept[other])
    return PastedBlock(int(kept[start]), int(kept[other]), int(last) + 1)


def _share_by_chance(groups: IntArray) -> float:
    """Returns the share of equal pairs followed by another one, in rows drawn independently.

    Rows that equal the row before them are skipped, so the next row differs from this one.
    """
    chances = np.unique(groups, return_counts=True)[1] / len(groups)
    pairs, share = (chances * (1 - chances)) ** 2, 1.0
    for _ in range(SHARE_STEPS):
        ahead = pairs / (1 - chances) ** 2
        following = chances**2 * (ahead.sum() - ahead)
        pairs, share = following / following.sum(), float(following.sum() / pairs.sum())
    return share


def _windows(rows: IntArray, length: int) -> np.ndarray:
    """Returns a hash of each window of `length` successive rows."""
    count = max(0, len(rows) - length + 1)
    factors = mixed(np.arange(1, length + 1)) | np.uint64(1)
    codes, hashes = mixed(rows), np.zeros(count, np.uint64)
    with np.errstate(over="ignore"):
        for place, factor in enumerate(factors):
            hashes += factor * codes[place : place + count]
    return hashes


def _equal_pairs(hashes: np.ndarray) -> float:
    """Returns the number of pairs with equal hashes."""
    counts = np.unique(hashes, return_counts=True)[1].astype(float)
    return float((counts * (counts - 1) / 2).sum())


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
    one = np.array([after(step) for step in steps])
    two = np.array([after(2 * step) for step in steps])
    return float(one.max()), float(max(one.max(), (2 * one - two).max()))


def _meet(moved: np.ndarray, known: np.ndarray, counts: IntArray) -> float:
    """Returns how many moved rows equal an earlier row, averaged over all orders of the rows.

    A row that equals m others comes first with probability 1 / (m + 1).
    """
    place = np.searchsorted(known, moved).clip(max=len(known) - 1)
    met = np.where(known[place] == moved, counts[place], 0)
    return float((met / (met + 1)).sum())
