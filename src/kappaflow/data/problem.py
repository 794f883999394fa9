"""What can be wrong with a table, as a value: a code, a severity, one sentence, and where."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from kappaflow.data.table import BoolArray, Table

SHOWN_ROWS = 5
SHOWN_PROBLEMS = 5


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with a table, or worth knowing before a flow is fitted to it.

    Args:
        code: Its short name, such as "missing" or "dependent-columns".
        severity: "stop" where no density exists or can be computed, "warning" where one does.
        message: One sentence, without a full stop, that names the columns and rows.
        columns: The columns concerned; empty where it is about whole rows.
        rows: The first few rows concerned, as 1-based numbers in the source.
        drop: The columns whose removal ends the problem.
    """

    code: str
    severity: Literal["stop", "warning"]
    message: str
    columns: tuple[str, ...] = ()
    rows: tuple[int, ...] = ()
    drop: tuple[str, ...] = ()


def first_rows(table: Table, mask: BoolArray) -> tuple[int, ...]:
    """Returns the source numbers of the first few rows of a mask."""
    return tuple(int(row) for row in table.rows[np.flatnonzero(mask)[:SHOWN_ROWS]])


def rows_in_words(rows: tuple[int, ...], total: int) -> str:
    """Returns "row 7", or "rows 7, 9, 12" with how many more there are."""
    if total == 1:
        return f"row {rows[0]}"
    shown = ", ".join(map(str, rows))
    return (
        f"rows {shown}" if total <= len(rows) else f"rows {shown} and {total - len(rows):,} more"
    )


def listed(problems: Sequence[Problem]) -> str:
    """Returns the messages of the first few problems in one line, with how many more there are."""
    shown = "; ".join(problem.message for problem in problems[:SHOWN_PROBLEMS])
    more = len(problems) - SHOWN_PROBLEMS
    return f"{shown}; and {more} more" if more > 0 else shown
