"""What the columns of a table hold: type, range, rounding, missing values, edges."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from kappaflow.data.domains import Domains
from kappaflow.data.edges import bound_text
from kappaflow.data.naming import FloatArray
from kappaflow.data.problems import problems_of
from kappaflow.data.raw import DATES, RawTable
from kappaflow.data.rounding import resolution
from kappaflow.data.table import Table, whole_columns

CENTRAL = (0.16, 0.5, 0.84)
KINDS = {  # of columns of numbers, by their problem
    "constant": "constant",
    "two-values": "two values",
    "counts-rows": "identifier",
    "integer-valued": "whole numbers",
    "rounded": "rounded",
}
Role = Literal["modeled", "context", "left out"]


@dataclass(frozen=True)
class ColumnSummary:
    """What a column of a table holds. Without a number, the fields from `least` on are None.

    Attributes:
        name: Its name.
        role: Whether it is modeled, a context, or left out.
        kind: "continuous", "rounded", "whole numbers", "two values", "identifier", "constant",
            "empty", "true and false", "dates or times" or "text".
        missing: Number of rows without a finite value.
        distinct: Number of different values.
        least: The least value.
        median: The median.
        greatest: The greatest value.
        spread: Half the range of the central 68 % of the values: the standard deviation, if they
            are normal.
        step: The step of the grid on which all values lie; None if there is none.
        bounds: The edges or the circle that the values show, such as "1,"; None without.
    """

    name: str
    role: Role
    kind: str
    missing: int
    distinct: int
    least: float | None = None
    median: float | None = None
    greatest: float | None = None
    spread: float | None = None
    step: float | None = None
    bounds: str | None = None


def describe_columns(table: Table, edges: Domains) -> tuple[ColumnSummary, ...]:
    """Returns what the modeled columns hold, which have some edges, and those of the context."""
    columns = zip(table.all_columns, table.all_values.T, strict=True)
    return tuple(
        _of_numbers(name, "modeled" if name in table.columns else "context", column, edges)
        for name, column in columns
    )


def describe_left_out(raw: RawTable, table: Table) -> tuple[ColumnSummary, ...]:
    """Returns what the columns of a source hold that a table does not have, in its rows."""
    results = []
    for column in (raw.columns[name] for name in table.left_out):
        if column.is_number and not column.is_truth:
            numbers = column.numbers()[table.rows - 1]
            results.append(_of_numbers(column.name, "left out", numbers, {}))
            continue
        texts = column.texts()
        present = [text for row in table.rows if (text := texts[row - 1]) is not None]
        kind = "true and false" if column.is_truth else DATES if column.holds_dates else "text"
        counts = len(table) - len(present), len(set(present))
        kind = kind if present else "empty"
        results.append(ColumnSummary(column.name, "left out", kind, *counts))
    return tuple(results)


def _of_numbers(name: str, role: Role, column: FloatArray, edges: Domains) -> ColumnSummary:
    finite = column[np.isfinite(column)]
    counts = len(column) - len(finite), len(np.unique(finite))
    if not len(finite):
        return ColumnSummary(name, role, "empty", *counts)
    values, rows = finite[:, None], np.arange(len(finite))
    table = Table(values, (name,), rows, name, integer_columns=whole_columns(values, (name,)))
    codes = {problem.code for problem in problems_of(table, with_repeats=False)}
    kind = next((kind for code, kind in KINDS.items() if code in codes), "continuous")
    low, median, high = (float(value) for value in np.quantile(finite, CENTRAL))
    numbers = float(finite.min()), median, float(finite.max()), (high - low) / 2
    bounds = bound_text(edges[name]) if name in edges else None
    return ColumnSummary(name, role, kind, *counts, *numbers, resolution(finite), bounds)
