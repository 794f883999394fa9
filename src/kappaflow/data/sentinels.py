"""Numbers that most likely stand for missing values, such as -999 or 9999."""

from dataclasses import dataclass

import numpy as np

from kappaflow.data.table import BoolArray, FloatArray, Table

SHARE, FEWEST = 0.001, 3  # of the rows that hold a code
DISTINCT = 5  # values without which nothing is known of a column


@dataclass(frozen=True)
class Sentinel:
    """A number that most likely stands for a missing value, such as -999 or 9999."""

    column: str
    value: float
    mask: BoolArray


def sentinels_of(table: Table) -> list[Sentinel]:
    """Returns the numbers in a table that most likely stand for missing values.

    Such a number is -1 or is written in nines only (9, -99, 999.9), is held by more than 0.1 % of
    the rows and by at least 3, and lies apart from all other values of its column: by more than
    80 % of these spread over, or it is negative where they are not.

    Args:
        table: The table.

    Returns:
        At most the smallest and the largest value of each column.

    Example:
        >>> from kappaflow.data import load_table
        >>> x = np.random.default_rng(0).normal(size=(100, 2))
        >>> x[::10, 1] = -999
        >>> [(one.column, one.value, one.mask.sum()) for one in sentinels_of(load_table(x))]
        [('x1', -999.0, np.int64(10))]
        >>> sentinels_of(load_table("magic"))
        []
    """
    found = []
    for name, column in zip(table.columns, table.values.T, strict=True):
        finite = column[np.isfinite(column)]
        for value in dict.fromkeys((finite.min(), finite.max())) if finite.size else ():
            if _is_code(value) and _lies_apart(value, finite):
                found.append(Sentinel(name, float(value), column == value))
    return found


def _is_code(value: float) -> bool:
    return value == -1 or set(f"{abs(value):.12g}".replace(".", "")) == {"9"}


def _lies_apart(value: float, column: FloatArray) -> bool:
    """Returns whether a value is repeated and far from the rest of its column."""
    rest = column[column != value]
    count = len(column) - len(rest)
    if count < FEWEST or count <= SHARE * len(column) or len(np.unique(rest)) < DISTINCT:
        return False
    low, high = np.quantile(rest, [0.1, 0.9])
    gap = float(np.abs(rest - value).min())
    if abs(value) >= 99:
        return gap > high - low or (value < 0 and float(rest.min()) >= 0)
    whole = np.array_equal(rest, np.rint(rest))  # where a single 9 or -1 is a number like others
    return gap > (high - low) * (1 if value == -1 else 3) and not whole
