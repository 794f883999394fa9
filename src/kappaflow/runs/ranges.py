"""Ranges of the training rows of a run, and rows of other data that lie outside of them."""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from kappaflow.data import Table
from kappaflow.errors import DataWarning

if TYPE_CHECKING:
    from kappaflow.runs.table_data import TableData

Ranges = Mapping[str, tuple[float, float]]
MOST_NAMED = 5  # columns in a note
MANY = 0.1  # share of rows outside above which Python functions warn; a few always are


@dataclass(frozen=True)
class Outside:
    """The number of rows outside of the range of the training rows, in all and by column."""

    rows: int = 0
    columns: Mapping[str, int] = field(default_factory=dict)

    def __add__(self, other: "Outside") -> "Outside":
        names = {**self.columns, **other.columns}
        counts = {n: self.columns.get(n, 0) + other.columns.get(n, 0) for n in names}
        return Outside(self.rows + other.rows, counts)

    def note(self, rows: int, kind: str = "rows") -> str:
        """Returns a sentence about these rows, of so many in all."""
        ordered = sorted(self.columns.items(), key=lambda pair: -pair[1])
        named = ", ".join(f"{name!r} in {count:,}" for name, count in ordered[:MOST_NAMED])
        more = len(ordered) - MOST_NAMED
        named += f" and {more} more columns" if more > 0 else ""
        hint = "; check that its units are those of the training" if 2 * self.rows > rows else ""
        return (
            f"{self.rows:,} of {rows:,} {kind} lie outside the range of the training rows, where "
            f"the flow extrapolates: column {named}{hint}"
        )

    def warn(self, rows: int, kind: str = "rows") -> None:
        """Warns the caller of a function if many rows are outside."""
        if self.rows > MANY * rows:
            warnings.warn(self.note(rows, kind), DataWarning, stacklevel=4)


def training_ranges(data: "TableData") -> dict[str, tuple[float, float]]:
    """Returns the ends of training values and their noise by column, without circular ones."""
    file, low, high = data.in_file, [], []
    for block in [data.train] if file is None else file.blocks():
        rows = block.all_values
        low, high = [*low, rows.min(0)], [*high, rows.max(0)]
    names = data.train.all_columns
    extremes = zip(names, np.min(low, axis=0).tolist(), np.max(high, axis=0).tolist(), strict=True)
    circles = {name for name, domain in data.domains.items() if domain.circular}
    widths = {name: data.train.widths.get(name, 0.0) for name in names}
    return {n: (a - widths[n], b + widths[n]) for n, a, b in extremes if n not in circles}


def rows_outside(columns: Mapping[str, np.ndarray], ranges: Ranges) -> Outside:
    """Returns how many rows of these columns lie outside of the ranges."""
    found = {}
    for name, values in columns.items():
        low, high = ranges.get(name, (-np.inf, np.inf))
        outside = np.isfinite(values) & ((values < low) | (values > high))
        if outside.any():
            found[name] = outside
    some = np.logical_or.reduce([*found.values()]) if found else np.zeros(0)
    return Outside(int(some.sum()), {name: int(outside.sum()) for name, outside in found.items()})


def by_column(table: Table) -> dict[str, np.ndarray]:
    """Returns the values of the columns of a table, context included."""
    return dict(zip(table.all_columns, table.all_values.T, strict=True))
