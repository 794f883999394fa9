"""Values and rows that come again: atoms, where a density has none, and duplicate rows."""

from dataclasses import dataclass

import numpy as np

from kappaflow.data.table import BoolArray, FloatArray, IntArray, Table
from kappaflow.errors import ArgumentError

ATOM_SHARE = 0.001
ATOM_ROWS = 3


@dataclass(frozen=True)
class Atoms:
    """The values of one column that more than 0.1 % of the rows hold, the most frequent first."""

    values: FloatArray
    counts: IntArray


def atoms_of(table: Table) -> dict[str, Atoms]:
    """Returns the atoms of every column that has some, those of whole numbers passed over."""
    found = {}
    for name, column in zip(table.columns, table.values.T, strict=True):
        if name not in table.integer_columns:
            atoms = _atoms(column)
            if len(atoms.values):
                found[name] = atoms
    return found


def _atoms(column: FloatArray) -> Atoms:
    finite = np.sort(column[np.isfinite(column)])
    starts = np.flatnonzero(np.diff(finite, prepend=np.nan) != 0)
    counts = np.diff(starts, append=len(finite))
    often = np.flatnonzero((counts > ATOM_SHARE * len(column)) & (counts >= ATOM_ROWS))
    often = often[np.argsort(-counts[often], kind="stable")]
    return Atoms(finite[starts[often]], counts[often].astype(np.int64))


def atom_rows(table: Table, reference: Table | None = None) -> BoolArray:
    """Returns which rows hold an atom: a value in more than 0.1 % of the rows, and in at least 3.

    At such a value the data have probability, not density, and a log-likelihood says little;
    columns of whole numbers are not looked at.

    Args:
        table: The rows to mark.
        reference: The table in which values are counted, the training rows say; `table` itself
            if None.

    Returns:
        A mask (rows,).

    Raises:
        ArgumentError: If the two tables have different columns.

    Example:
        >>> from kappaflow.data import load_table
        >>> bool(atom_rows(load_table("magic", columns=["fWidth"])).sum() == 98)
        True
    """
    counted = table if reference is None else reference
    if counted.columns != table.columns:
        raise ArgumentError(
            f"'reference' should have the columns of 'table', {', '.join(table.columns)}, got "
            f"{', '.join(counted.columns)}."
        )
    mask = np.zeros(len(table), dtype=np.bool_)
    for name, atoms in atoms_of(counted).items():
        mask |= np.isin(table.values[:, table.columns.index(name)], atoms.values)
    return mask


def repeated_rows(table: Table) -> BoolArray:
    """Returns which rows equal an earlier one, context included; NaN equals NaN."""
    import polars as pl

    parts = table.values if table.context is None else np.hstack([table.values, table.context])
    if not parts.shape[1] or not len(parts):
        return np.zeros(len(table), dtype=np.bool_)
    frame = pl.from_numpy(np.ascontiguousarray(parts), orient="row")
    first = frame.select(pl.struct(pl.all()).is_first_distinct()).to_series().to_numpy()
    return ~first


def drop_duplicate_rows(table: Table) -> tuple[Table, int]:
    """Returns the table without rows that repeat an earlier one.

    Args:
        table: The table; values and context both count.

    Returns:
        The first of each set of equal rows, in their order, and how many rows were dropped. With
        weights all rows, since equal ones may count differently.

    Example:
        >>> from kappaflow.data import load_table
        >>> table, dropped = drop_duplicate_rows(load_table("magic"))
        >>> len(table), dropped
        (18905, 115)
    """
    if table.weights is not None:
        return table, 0
    repeated = repeated_rows(table)
    return table.select(~repeated), int(repeated.sum())
