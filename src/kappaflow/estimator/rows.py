"""Rows as estimators take them: each once, under the names that they were given with."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kappaflow.data import Table, load_table, weighted

Floats = NDArray[np.float64]


def distinct(
    values: Floats, weights: ArrayLike | None, given: Floats | None = None
) -> tuple[Floats, Floats | None, Floats | None]:
    """Returns rows each of which is there once, with their weights, and what they are given.

    Rows that repeat are one with the sum of the weights: the likelihood is the same, and no row is
    trained on and decides when to stop.

    Args:
        values: (n, d).
        weights: (n,), or None where all count alike.
        given: (n, c) or None.

    Returns:
        Values, weights (None where all still count alike) and what is given, in sorted order.

    Raises:
        ArgumentError: The weights are not one for each row, or not what weights are.
    """
    table = weighted(load_table(values), weights)
    at = table.rows - 1
    counts = np.ones(len(at)) if table.weights is None else table.weights
    both = values[at] if given is None else np.hstack([values[at], given[at]])
    _, first, which = np.unique(both, axis=0, return_index=True, return_inverse=True)
    sums = np.bincount(which.reshape(-1), counts, minlength=len(first)).astype(np.float64)
    alike = sums if np.ptp(sums) else None
    return values[at][first], alike, None if given is None else given[at][first]


def renamed(table: Table, columns: Sequence[str]) -> Table:
    """Returns a table whose columns have other names."""
    new = dict(zip(table.columns, columns, strict=True))
    whole = tuple(new[name] for name in table.integer_columns)
    return replace(table, columns=tuple(columns), integer_columns=whole)
