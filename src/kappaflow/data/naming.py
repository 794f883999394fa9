"""How messages name rows, values and problems of a table."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, get_args

import numpy as np
from numpy.typing import NDArray

from kappaflow.errors import DataError
from kappaflow.finding import Finding
from kappaflow.options import Repair

if TYPE_CHECKING:
    from kappaflow.data.table import Table

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]

JITTER = 1e-3  # of the spread of a column: the noise of the repair "jitter"
REPAIRS: tuple[Repair, ...] = get_args(Repair)
SHOWN_ROWS = 5
SHOWN_PROBLEMS = 5
SHOWN_VALUES = 6


def first_rows(table: "Table", mask: BoolArray) -> tuple[int, ...]:
    """Returns the numbers, in the source, of the first few rows in a mask."""
    return tuple(int(row) for row in table.rows[np.flatnonzero(mask)[:SHOWN_ROWS]])


def describe_rows(table: "Table", index: Sequence[int] | IntArray) -> list[str]:
    """Returns names of rows, counted from 0, that a user can look up in the source.

    "line 4" for a row of a text file, whose header is line 1; "index 'a'" for a row of a data
    frame with an index; "row 3", counted from 1, for a row of another source.
    """
    chosen = np.asarray(index, dtype=np.int64)
    if table.labels is not None:
        return [label_name(label) for label in table.labels[chosen]]
    word, numbers = ("row", table.rows) if table.lines is None else ("line", table.lines)
    return [f"{word} {number}" for number in numbers[chosen]]


def label_name(label: object) -> str:
    """Returns the name of a row of a data frame with an index: "index 7" or "index 'a'"."""
    return f"index {label!r}" if isinstance(label, str) else f"index {label}"


def describe_values(table: "Table", index: int) -> str:
    """Returns the name of a row, counted from 0, with its first six values."""
    names, row = table.all_columns, table.select(np.array([index])).all_values[0]
    pairs = zip(names[:SHOWN_VALUES], row.tolist()[:SHOWN_VALUES], strict=True)
    shown = ", ".join(f"{name} = {value:.6g}" for name, value in pairs)
    more = ", ..." if len(names) > SHOWN_VALUES else ""
    return f"{describe_rows(table, [index])[0]} ({shown}{more})"


def named_rows(table: "Table", mask: BoolArray) -> str:
    """Returns names of the rows in a mask, such as "line 7" or "rows 7, 9, 12 and 30 more"."""
    indices = np.flatnonzero(mask)
    indices = indices[np.argsort(table.rows[indices])]
    named = describe_rows(table, indices[:SHOWN_ROWS])
    if len(named) == 1:
        return named[0]
    word = named[0].partition(" ")[0]
    words = "index values" if word == "index" else f"{word}s"
    shown = f"{words} {', '.join(name.partition(' ')[2] for name in named)}"
    more = len(indices) - len(named)
    return f"{shown} and {more:,} more" if more else shown


def listed(problems: Sequence[Finding]) -> str:
    """Returns the messages of the first few problems in one line, and the number of others."""
    shown = "; ".join(problem.message for problem in problems[:SHOWN_PROBLEMS])
    more = len(problems) - SHOWN_PROBLEMS
    return f"{shown}; and {more} more" if more > 0 else shown


def require_finite(table: "Table", data: str) -> None:
    """Raises an error that names the first missing or infinite value of a table."""
    values = table.all_values
    bad = ~np.isfinite(values)
    if bad.any():
        row, column = np.argwhere(bad)[0]
        name, value = table.all_columns[column], values[row, column]
        raise DataError(
            f"column {name!r} of {data} should hold finite numbers, "
            f"{describe_rows(table, [row])[0]} has {'NaN' if np.isnan(value) else value}."
        )
