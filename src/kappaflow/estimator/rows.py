"""Helpers of the estimators: equal rows merged, columns renamed, flows as bytes for pickles."""

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kappaflow.data import Table, load_table, weighted
from kappaflow.files import CONFIG, WEIGHTS, load, save
from kappaflow.flows import Flow

Floats = NDArray[np.float64]
Packed = dict[str, bytes]


def distinct(
    values: Floats, weights: ArrayLike | None, given: Floats | None = None
) -> tuple[Floats, Floats | None, Floats | None]:
    """Returns distinct rows with the sums of their weights, and the rows to condition on.

    The likelihood stays the same, and no row is both in the training and the validation part.

    Args:
        values: Rows (n, d).
        weights: Weights (n,), or None for equal ones.
        given: Rows to condition on (n, c), or None.

    Returns:
        Values, weights (None if still equal) and rows to condition on, in sorted order.

    Raises:
        ArgumentError: The weights do not fit the rows, or are negative or not finite.
    """
    table = weighted(load_table(values), weights)
    at = table.rows - 1
    counts = np.ones(len(at)) if table.weights is None else table.weights
    both = values[at] if given is None else np.hstack([values[at], given[at]])
    _, first, groups = np.unique(both, axis=0, return_index=True, return_inverse=True)
    sums = np.bincount(groups.reshape(-1), counts, minlength=len(first)).astype(np.float64)
    merged = sums if np.ptp(sums) else None
    return values[at][first], merged, None if given is None else given[at][first]


def renamed(table: Table, columns: Sequence[str]) -> Table:
    """Returns the table with these column names."""
    new = dict(zip(table.columns, columns, strict=True))
    whole = tuple(new[name] for name in table.integer_columns)
    return replace(table, columns=tuple(columns), integer_columns=whole)


def packed(flow: Flow) -> Packed:
    """Returns the files of a saved flow by name, as plain data for a pickle."""
    with tempfile.TemporaryDirectory() as folder:
        save(flow, folder)
        return {name: (Path(folder) / name).read_bytes() for name in (CONFIG, WEIGHTS)}


def unpacked(files: Packed) -> Flow:
    """Returns the flow of these files; a damaged byte is an error, as in a model file."""
    with tempfile.TemporaryDirectory() as folder:
        for name in (CONFIG, WEIGHTS):
            (Path(folder) / name).write_bytes(files[name])
        return load(folder)
