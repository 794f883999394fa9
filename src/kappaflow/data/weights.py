"""Weights of the rows of a table: how much each counts in a likelihood."""

from dataclasses import replace

import numpy as np

from kappaflow.data.table import Table
from kappaflow.errors import ArgumentError


def weighted(table: Table, weights: object | None) -> Table:
    """Returns a table with weights of its rows, those of weight zero left out.

    Args:
        table: The table.
        weights: (rows,), finite numbers of 0 or more, not all of them 0; None for none.

    Returns:
        The table.

    Raises:
        ArgumentError: They are something else.

    Example:
        >>> from kappaflow.data import load_table
        >>> table = weighted(load_table(np.eye(3)), [1.0, 0.0, 2.0])
        >>> table.rows, table.weights
        (array([1, 3]), array([1., 2.]))
    """
    if weights is None:
        return table
    try:
        given = np.asarray(weights, dtype=np.float64)
    except (TypeError, ValueError):
        raise ArgumentError(f"'weights' should be numbers, got {weights!r}.") from None
    if given.shape != (len(table),):
        raise ArgumentError(
            f"'weights' should have shape ({len(table)},), one for each row, got {given.shape}."
        )
    if not np.isfinite(given).all() or (given < 0).any() or not given.any():
        raise ArgumentError("'weights' should be finite, 0 or more, and not all of them zero.")
    return replace(table, weights=given).select(given > 0)
