"""`split`: a table into rows to train on, rows to stop by, and rows to judge by."""

import math

import numpy as np

from kappaflow.data.table import Table
from kappaflow.errors import ArgumentError, DataError


def split(
    table: Table, *, fractions: tuple[float, ...] = (0.8, 0.1, 0.1), seed: int = 0
) -> tuple[Table, ...]:
    """Returns parts of a table that share no row and leave none out.

    The rows are permuted by a PCG64 generator with the given seed; no part is empty.

    Args:
        table: At least a row for each part; drop duplicate rows first, or a row can be in two
            parts.
        fractions: The shares of the parts, positive numbers that sum to 1.
        seed: Seed of the permutation.

    Returns:
        As many tables as fractions: the training, validation and test part by default.

    Raises:
        ArgumentError: If the fractions are not positive numbers that sum to 1.
        DataError: If the table has fewer rows than parts are asked for.

    Example:
        >>> from kappaflow.data import load_table
        >>> [len(part) for part in split(load_table("magic"))]
        [15216, 1902, 1902]
    """
    from kappaflow._checks import natural_int

    sizes = sizes_of_parts(len(table), fractions)
    generator = np.random.Generator(np.random.PCG64(natural_int("seed", seed)))
    order = generator.permutation(len(table))
    return tuple(table.select(part) for part in np.split(order, np.cumsum(sizes)[:-1]))


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
    """Returns the fractions as floats, or says what is wrong with them."""
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
