"""`Problem`, a defect of a table, and helpers that name rows and values in messages."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from kappaflow.data.table import BoolArray, IntArray, Table
from kappaflow.errors import DataError

SHOWN_ROWS = 5
SHOWN_PROBLEMS = 5
SHOWN_VALUES = 6


@dataclass(frozen=True)
class Problem:
    """A defect of a table, or a property worth knowing before a flow is fitted to it.

    Args:
        code: Its short name, such as "missing" or "dependent-columns".
        severity: "stop" if no density exists or can be computed, else "warning".
        message: One sentence, without a full stop, that names the columns and rows.
        columns: The columns concerned; empty if the problem is about whole rows.
        rows: The first few rows concerned, as numbers in the source, counted from 1.
        drop: The columns to remove to solve the problem.
    """

    code: str
    severity: Literal["stop", "warning"]
    message: str
    columns: tuple[str, ...] = ()
    rows: tuple[int, ...] = ()
    drop: tuple[str, ...] = ()


def first_rows(table: Table, mask: BoolArray) -> tuple[int, ...]:
    """Returns the numbers, in the source, of the first few rows in a mask."""
    return tuple(int(row) for row in table.rows[np.flatnonzero(mask)[:SHOWN_ROWS]])


def describe_rows(table: Table, index: Sequence[int] | IntArray) -> list[str]:
    """Returns names of rows that a user can look up in the source.

    Args:
        table: The table.
        index: Positions in the table, counted from 0.

    Returns:
        "line 4" for each row of a text file, "row 3" for each row of another source, both counted
        from 1; the header is line 1 of a text file.

    Example:
        >>> import dataclasses
        >>> from kappaflow.data import load_table
        >>> table = load_table(np.eye(2))
        >>> describe_rows(table, [0, 1])
        ['row 1', 'row 2']
        >>> describe_rows(dataclasses.replace(table, lines=np.array([2, 5])), [0, 1])
        ['line 2', 'line 5']
    """
    word, numbers = ("row", table.rows) if table.lines is None else ("line", table.lines)
    return [f"{word} {number}" for number in numbers[np.asarray(index, dtype=np.int64)]]


def describe_values(table: Table, index: int) -> str:
    """Returns a row's name and values, so that a user can find it and see what is unusual.

    Args:
        table: The table.
        index: Position in the table, counted from 0.

    Returns:
        The name by `describe_rows`, and the first six values.

    Example:
        >>> from kappaflow.data import load_table
        >>> describe_values(load_table(np.array([[0.5, 1234567.0], [1.5, 2.0]])), 0)
        'row 1 (x0 = 0.5, x1 = 1.23457e+06)'
    """
    names = [*table.columns, *table.context_columns]
    context = [] if table.context is None else table.context[index].tolist()
    values = [*table.values[index].tolist(), *context]
    pairs = zip(names[:SHOWN_VALUES], values[:SHOWN_VALUES], strict=True)
    shown = ", ".join(f"{name} = {value:.6g}" for name, value in pairs)
    more = ", ..." if len(names) > SHOWN_VALUES else ""
    return f"{describe_rows(table, [index])[0]} ({shown}{more})"


def rows_in_words(table: Table, mask: BoolArray) -> str:
    """Returns names of the rows in a mask, such as "line 7" or "rows 7, 9, 12 and 30 more"."""
    places = np.flatnonzero(mask)
    named = describe_rows(table, places[:SHOWN_ROWS])
    if len(named) == 1:
        return named[0]
    word = named[0].split()[0]
    shown = ", ".join(name.split()[1] for name in named)
    more = len(places) - len(named)
    return f"{word}s {shown} and {more:,} more" if more else f"{word}s {shown}"


def listed(problems: Sequence[Problem]) -> str:
    """Returns the messages of the first few problems in one line, and the number of others."""
    shown = "; ".join(problem.message for problem in problems[:SHOWN_PROBLEMS])
    more = len(problems) - SHOWN_PROBLEMS
    return f"{shown}; and {more} more" if more > 0 else shown


def require_finite(table: Table, data: str) -> None:
    """Raises an error that names the first missing or infinite value of a table."""
    parts = table.values if table.context is None else np.hstack([table.values, table.context])
    bad = ~np.isfinite(parts)
    if bad.any():
        row, column = np.argwhere(bad)[0]
        name = [*table.columns, *table.context_columns][column]
        raise DataError(
            f"column {name!r} of {data} should hold finite numbers, "
            f"{describe_rows(table, [row])[0]} has {parts[row, column]}."
        )
