"""Splits tables in memory by their rows, and tables on disk before any row is read."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kappaflow.data.chunks import chunk_size
from kappaflow.data.duplicates import CHANCE, PastedBlock, groups_of
from kappaflow.data.rounding import mixed
from kappaflow.data.table import FloatArray, IntArray, Table
from kappaflow.errors import ArgumentError, DataError


def split(
    table: Table, *, fractions: tuple[float, ...] = (0.8, 0.1, 0.1), seed: int = 0
) -> tuple[Table, ...]:
    """Returns parts of a table that share no row and leave none out.

    Rows that are equal (values and context), or that have the same number in `table.groups`, stay
    in one part. A PCG64 generator with the given seed permutes the groups of rows; no part is
    empty.

    Args:
        table: At least as many different rows as parts.
        fractions: The shares of the rows, positive numbers that sum to 1. Parts differ from them
            by rounding, and by half of the largest group at most.
        seed: Seed of the permutation.

    Returns:
        As many tables as fractions; by default the training, validation and test part.

    Raises:
        ArgumentError: If the fractions are not positive numbers that sum to 1.
        DataError: If the table has fewer different rows than there are parts.

    Example:
        >>> from kappaflow.data import load_table
        >>> [len(part) for part in split(load_table("magic"))]
        [15216, 1902, 1902]
    """
    sizes = sizes_of_parts(len(table), fractions)
    groups = groups_of(table) if table.groups is None else table.groups
    _, group, counts = np.unique(groups, return_inverse=True, return_counts=True)
    if len(counts) < len(sizes):
        raise DataError(
            f"a table with {len(counts)} different {'row' if len(counts) == 1 else 'rows'} cannot "
            f"be split into {len(sizes)} parts: equal rows stay in one part."
        )
    generator = split_generator(seed)
    order = generator.permutation(len(counts))
    if len(counts) == len(table):
        return tuple(table.select(part) for part in np.split(order, np.cumsum(sizes)[:-1]))
    ends = ends_of_parts(counts[order], sizes)
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    rows = generator.permutation(len(table))  # so that equal rows are not neighbors
    part_of = np.searchsorted(ends, rank[group[rows]], side="right")
    return tuple(table.select(rows[part_of == part]) for part in range(len(sizes)))


def split_generator(seed: int) -> np.random.Generator:
    """Returns the generator whose first permutation orders what is split."""
    from kappaflow._checks import natural_int

    return np.random.Generator(np.random.PCG64(natural_int("seed", seed)))


def ends_of_parts(counts: IntArray, sizes: Sequence[int]) -> IntArray:
    """Returns where to cut a sequence of groups so that parts have about the requested sizes.

    `counts` are the rows of each group. The result is the first group after each part but the
    last: the nearest cut, with a group in each part.

    Example:
        >>> ends_of_parts(np.array([1, 1, 5, 1, 1, 1]), [2, 6, 2]).tolist()
        [2, 4]
    """
    rows = np.concatenate([[0], np.cumsum(counts)])
    expected = np.cumsum(sizes)[:-1]
    ends = np.searchsorted(rows, expected)
    ends -= expected - rows[ends - 1] < rows[ends] - expected
    fewest = np.arange(1, len(sizes))  # groups before each cut
    ends = np.maximum.accumulate(np.maximum(ends, fewest) - fewest) + fewest
    return np.minimum(ends, len(counts) - len(sizes) + fewest)


def sizes_of_parts(rows: int, fractions: tuple[float, ...]) -> list[int]:
    """Returns the rounded sizes of the parts, the rest to the first, at least a row to each."""
    shares = _shares(fractions)
    if rows < len(shares):
        raise DataError(
            f"a table of {rows} {'row' if rows == 1 else 'rows'} cannot be split into "
            f"{len(shares)} parts: give at least {len(shares)} rows."
        )
    sizes = [max(1, round(rows * share)) for share in shares[1:]]
    while sum(sizes) >= rows:
        sizes[sizes.index(max(sizes))] -= 1
    return [rows - sum(sizes), *sizes]


def _shares(fractions: tuple[float, ...]) -> list[float]:
    """Returns the fractions as floats; raises ArgumentError if they are wrong."""
    try:
        shares = [float(share) for share in fractions]
    except (TypeError, ValueError):
        shares = []
    if (
        len(shares) < 2
        or not all(share > 0 for share in shares)
        or not math.isclose(sum(shares), 1)
    ):
        raise ArgumentError(
            f"'fractions' should be two or more positive numbers that sum to 1, got {fractions!r}."
        )
    return shares


MOST_HELD_OUT = 100_000  # rows of a part, which stay in memory and are scored in each epoch
STREAM = 40961  # other draws than those of data made with default_rng(seed)


@dataclass(frozen=True, eq=False)
class Copies:
    """Rows of a table that repeat earlier rows, counted from 0.

    `places` are the rows, ascending, and `first` is the first row that equals each.
    """

    places: IntArray
    first: IntArray

    def __len__(self) -> int:
        return len(self.places)

    def of(self, rows: IntArray) -> IntArray:
        """Returns the copies of some rows."""
        return self.places[np.isin(self.first, rows)]

    def counts(self, rows: IntArray) -> IntArray:
        """Returns how often each of some rows occurs, itself included."""
        first = np.sort(self.first)
        ends = (np.searchsorted(first, rows, side=side) for side in ("right", "left"))
        return 1 + np.subtract(*ends)

    def pasted_block(self, rows: int) -> PastedBlock | None:
        """Returns the longest block that repeats earlier rows in the same order, if any.

        As `kappaflow.data.duplicates.pasted_block`, in memory for the copies alone. The share of
        equal pairs of rows that are followed by another one is that of all other copies, and at
        least that of independent rows.
        """
        follows = (np.diff(self.places) == 1) & (np.diff(self.first) == 1)
        starts = np.concatenate([[0], np.flatnonzero(~follows) + 1])
        lengths = np.diff(np.append(starts, len(self)))
        best = int(lengths.argmax())
        length, start = int(lengths[best]), int(starts[best])
        others = (int(follows.sum()) - length + 1) / max(1, len(self) - length)
        counts = np.unique(self.first, return_counts=True)[1] + 1.0
        alone = rows - counts.sum()
        share = max(others, float((counts**2).sum() + alone) / rows**2)
        if length < 3 or len(self) * share ** (length - 1) > CHANCE:
            return None
        return PastedBlock(int(self.places[start]), int(self.first[start]), length)


NO_COPIES = Copies(np.empty(0, np.int64), np.empty(0, np.int64))


def copies_of(hashes: NDArray[np.uint64]) -> Copies:
    """Returns the rows that repeat earlier ones, by hashes of 64 bits of all rows.

    Example:
        >>> found = copies_of(np.array([5, 7, 5, 5], dtype=np.uint64))
        >>> found.places.tolist(), found.first.tolist()
        ([2, 3], [0, 0])
    """
    ordered = np.sort(hashes)
    repeated = np.unique(ordered[1:][ordered[1:] == ordered[:-1]])
    del ordered
    if not len(repeated):
        return NO_COPIES
    at = np.searchsorted(repeated, hashes).clip(max=len(repeated) - 1)
    places = np.flatnonzero(repeated[at] == hashes)
    _, start, group = np.unique(hashes[places], return_index=True, return_inverse=True)
    first = places[start][group]
    again = first != places
    return Copies(places[again], first[again])


def row_hashes(values: FloatArray) -> NDArray[np.uint64]:
    """Returns a hash of 64 bits for each row (rows, columns); 0.0 and -0.0 are equal."""
    bits = np.ascontiguousarray(values + 0.0).view(np.uint64)
    result = np.full(len(values), bits.shape[1], dtype=np.uint64)
    for column in bits.T:
        result = mixed(result ^ column)
    return result


@dataclass(frozen=True, eq=False)
class Division:
    """Rows of a table, counted from 0, by their use.

    `held_out` are the rows of each part that is not trained on, in random order. `sample` are some
    training rows in random order, or all if they are few. `dropped` are rows without use,
    ascending.
    """

    rows: int
    held_out: tuple[IntArray, ...]
    sample: IntArray
    dropped: IntArray

    @property
    def train(self) -> int:
        """Number of training rows, including the sample."""
        return self.rows - len(self.not_trained_on)

    @property
    def not_trained_on(self) -> IntArray:
        """All rows that are held out or dropped, ascending."""
        return np.sort(np.concatenate([self.dropped, *self.held_out]))

    @property
    def kept(self) -> IntArray:
        """All rows that stay in memory: the parts one after the other, then the sample."""
        return np.concatenate([*self.held_out, self.sample])


def division(
    rows: int,
    width: int,
    fractions: tuple[float, ...],
    seed: int,
    copies: Copies = NO_COPIES,
    *,
    drop: bool = False,
) -> Division:
    """Returns a division of rows into parts, which depends on these arguments alone.

    Different rows are drawn, and the copies of a row follow it. A row with more copies than a part
    has rows is trained on. `width`, the number of columns, limits the number of rows in memory.
    `fractions` are the shares of the training rows and of each part that is held out, which has no
    more than 100,000 rows; without them, all rows are trained on. `drop` uses each row once.

    Example:
        >>> found = division(50, 3, (0.8, 0.1, 0.1), seed=0)
        >>> found.train, [len(part) for part in found.held_out], len(found.sample)
        (40, [5, 5], 40)
    """
    dropped = copies.places if drop else np.empty(0, np.int64)
    different = rows - len(copies)
    expected = sizes_of_parts(rows - len(dropped), fractions) if fractions else [rows]
    most = min(MOST_HELD_OUT, chunk_size(width))
    sizes = [min(size, most) for size in expected[1:]]
    generator = np.random.Generator(np.random.PCG64((seed, STREAM)))
    drawn = generator.choice(different, min(sum(sizes), different - 1), replace=False)
    if len(copies) and not drop:
        parts = _with_copies(places_of(drawn, copies.places), sizes, copies, generator)
    else:
        parts = np.split(places_of(drawn, dropped), np.cumsum(sizes, dtype=np.int64))[:-1]
    out = np.sort(np.concatenate([dropped, *parts]))
    left = rows - len(out)
    few = generator.choice(left, min(left, chunk_size(width)), replace=False)
    return Division(rows, tuple(parts), places_of(few, out), dropped)


def _with_copies(
    drawn: IntArray, sizes: list[int], copies: Copies, generator: np.random.Generator
) -> list[IntArray]:
    """Returns parts of about the requested sizes: random rows in order, with their copies."""
    counts = copies.counts(drawn)
    fits = counts <= min(sizes, default=0)
    drawn, ends = drawn[fits], np.cumsum(counts[fits])
    parts, start = [], 0
    for size in sizes:
        before = int(ends[start - 1]) if start else 0
        end = max(start + 1, int(np.searchsorted(ends, before + size, side="right")))
        chosen = drawn[start:end]
        if not len(chosen):
            raise DataError(
                f"a table with {len(copies.places):,} rows that repeat others has too few "
                f"different rows for {len(sizes) + 1} parts: equal rows stay in one part."
            )
        parts.append(generator.permutation(np.concatenate([chosen, copies.of(chosen)])))
        start = end
    return parts


def places_of(numbers: IntArray, held_out: IntArray) -> IntArray:
    """Returns the places, among all rows, of some of the rows that are trained on.

    `numbers` count the rows that are trained on; `held_out` are the places of all others,
    ascending.

    Example:
        >>> places_of(np.array([0, 1, 2]), held_out=np.array([1, 2])).tolist()
        [0, 3, 4]
    """
    before = held_out - np.arange(len(held_out))  # rows trained on before each that is not
    return numbers + np.searchsorted(before, numbers, side="right")
