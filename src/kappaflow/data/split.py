"""Splits tables in memory; equal rows stay in one part."""

import math
from collections.abc import Sequence

import numpy as np

from kappaflow.data.duplicates import groups_of
from kappaflow.data.naming import IntArray
from kappaflow.data.table import Table
from kappaflow.errors import ArgumentError, DataError


def split(
    table: Table, *, fractions: tuple[float, ...] = (0.8, 0.1, 0.1), seed: int = 0
) -> tuple[Table, ...]:
    """Returns parts of a table that share no row and leave none out.

    Rows that are equal (values and context), or that have the same number in `table.groups`, stay
    in one part. A PCG64 generator with the given seed permutes the groups of rows; no part is
    empty.

    Args:
        table: At least as many distinct rows as parts.
        fractions: The shares of the rows, positive numbers that sum to 1. Parts differ from them
            by rounding, and by half of the largest group at most.
        seed: Seed of the permutation.

    Returns:
        As many tables as fractions; by default the training, validation and test part.

    Raises:
        ArgumentError: If the fractions are not positive numbers that sum to 1.
        DataError: If the table has fewer distinct rows than parts.

    Example:
        >>> from kappaflow.data import load_table
        >>> [len(part) for part in split(load_table("magic"))]
        [15216, 1902, 1902]
    """
    sizes = sizes_of_parts(len(table), fractions)
    groups = groups_of(table) if table.groups is None else table.groups
    _, group_of_row, counts = np.unique(groups, return_inverse=True, return_counts=True)
    if len(counts) < len(sizes):
        raise DataError(
            f"a table with {len(counts)} different {'row' if len(counts) == 1 else 'rows'} cannot "
            f"be split into {len(sizes)} parts: equal rows stay in one part."
        )
    generator = split_generator(seed)
    order = generator.permutation(len(counts))
    if len(counts) == len(table):
        return tuple(table.select(part) for part in np.split(order, np.cumsum(sizes)[:-1]))
    cuts = group_cuts(counts[order], sizes)
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    rows = generator.permutation(len(table))  # so that equal rows are not neighbors
    part_of = np.searchsorted(cuts, rank[group_of_row[rows]], side="right")
    return tuple(table.select(rows[part_of == part]) for part in range(len(sizes)))


def split_generator(seed: int) -> np.random.Generator:
    """Returns the PCG64 generator that permutes the rows."""
    from kappaflow._checks import natural_int

    return np.random.Generator(np.random.PCG64(natural_int("seed", seed)))


def group_cuts(counts: IntArray, sizes: Sequence[int]) -> IntArray:
    """Returns the first group of each part but the first, by the rows of each group."""
    rows = np.concatenate([[0], np.cumsum(counts)])
    expected = np.cumsum(sizes)[:-1]
    ends = np.searchsorted(rows, expected)
    ends -= expected - rows[ends - 1] < rows[ends] - expected
    fewest = np.arange(1, len(sizes))  # groups before each cut
    ends = np.maximum.accumulate(np.maximum(ends, fewest) - fewest) + fewest
    return np.minimum(ends, len(counts) - len(sizes) + fewest)


def sizes_of_parts(rows: int, fractions: tuple[float, ...]) -> list[int]:
    """Returns the sizes of the parts: rounded, at least 1; the first part takes the remainder."""
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
