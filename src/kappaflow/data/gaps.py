"""Numbers that are missing or infinite, refused with column and line."""

import numpy as np

from kappaflow.data.problem import describe_rows
from kappaflow.data.table import Table
from kappaflow.errors import DataError


def refuse_gaps(table: Table, data: str) -> None:
    """Refuses a table with a value that is missing or infinite, and names the first."""
    parts = table.values if table.context is None else np.hstack([table.values, table.context])
    bad = ~np.isfinite(parts)
    if bad.any():
        row, column = np.argwhere(bad)[0]
        name = [*table.columns, *table.context_columns][column]
        raise DataError(
            f"column {name!r} of {data} should hold finite numbers, "
            f"{describe_rows(table, [row])[0]} has {parts[row, column]}."
        )
