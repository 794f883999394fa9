"""The table a flow is fitted to: numbers, their names, and where each row came from."""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kappaflow.errors import ArgumentError

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Table:
    """Rows of numbers with their names and their origin, made by `load_table`.

    Args:
        values: What is modelled, float64 (rows, columns), in the units of the source.
        columns: The names of the columns of `values`.
        context: What the density is conditioned on, float64 (rows, c), or None.
        context_columns: The names of the columns of `context`.
        rows: The 1-based data row numbers in the source, int64 (rows,), kept through every
            selection.
        left_out: The columns of the source that are not used.
        source: Where the table came from, for messages.
        integer_columns: The modelled columns that held only whole numbers when they were loaded.
        weights: How much each row counts in a likelihood, float64 (rows,), 0 or more; None where
            all count alike.
        lines: The line of the text file on which each row starts, counted from 1, int64 (rows,);
            None where the rows do not come from a text file.
        groups: Rows with the same number stay in one part of a split, int64 (rows,); None where
            these are the rows that are equal.
        notes: What is to know about how the source was read, one sentence each.
        warnings: The sentences that keep the verdict on a fit to this table from being green.
        texts: Requested columns of text, by name, (rows,) each.

    Example:
        >>> import numpy as np
        >>> from kappaflow.data import load_table
        >>> table = load_table(np.array([[0.5, 1.0], [1.5, 2.0], [2.5, 3.0]]))
        >>> table.columns, table.integer_columns
        (('x0', 'x1'), ('x1',))
    """

    values: FloatArray
    columns: tuple[str, ...]
    context: FloatArray | None
    context_columns: tuple[str, ...]
    rows: IntArray
    left_out: tuple[str, ...]
    source: str
    integer_columns: tuple[str, ...]
    weights: FloatArray | None = None
    lines: IntArray | None = None
    groups: IntArray | None = None
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    texts: Mapping[str, NDArray[np.str_]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Checks that the shapes agree with each other."""
        rows, width = len(self.rows), len(self.columns)
        if self.values.shape != (rows, width):
            raise ArgumentError(
                f"'values' should have shape ({rows}, {width}) for {rows} row numbers and "
                f"{width} column names, got {self.values.shape}."
            )
        expected = (rows, len(self.context_columns)) if self.context_columns else None
        if (None if self.context is None else self.context.shape) != expected:
            raise ArgumentError(
                f"'context' should have shape {expected} for {rows} rows and "
                f"{len(self.context_columns)} names in 'context_columns'."
            )
        for name in ("weights", "groups"):
            given = getattr(self, name)
            if given is not None and given.shape != (rows,):
                raise ArgumentError(
                    f"'{name}' should have shape ({rows},), one for each row, got {given.shape}."
                )

    def __len__(self) -> int:
        """Returns the number of rows."""
        return len(self.rows)

    def select(self, keep: BoolArray | NDArray[np.integer[Any]] | slice) -> "Table":
        """Returns the chosen rows, with their row numbers in the source.

        Args:
            keep: A boolean mask (rows,), row positions counted from 0, or a slice.

        Returns:
            A new table that shares no memory with this one.

        Raises:
            ArgumentError: If a mask has another length than the table, or a position lies outside.

        Example:
            >>> import numpy as np
            >>> from kappaflow.data import load_table
            >>> table = load_table(np.array([[0.5], [1.5], [2.5]]))
            >>> table.select(table.values[:, 0] > 1).rows
            array([2, 3])
        """
        index = np.arange(len(self))[keep] if isinstance(keep, slice) else np.asarray(keep)
        if index.dtype == np.bool_ and index.shape != self.rows.shape:
            raise ArgumentError(
                f"'keep' should be a mask of {len(self)} rows, got shape {index.shape}."
            )
        try:
            rows = self.rows[index]
        except IndexError as error:
            raise ArgumentError(
                f"'keep' should hold positions among the {len(self)} rows: {error}."
            ) from None
        context = None if self.context is None else self.context[index]
        weights = None if self.weights is None else self.weights[index]
        lines = None if self.lines is None else self.lines[index]
        groups = None if self.groups is None else self.groups[index]
        return replace(
            self,
            values=self.values[index],
            context=context,
            rows=rows,
            weights=weights,
            lines=lines,
            groups=groups,
            texts={name: values[index] for name, values in self.texts.items()},
        )

    def without_columns(self, names: Iterable[str]) -> "Table":
        """Returns the table without the named modelled columns, which join `left_out`.

        Args:
            names: Modelled columns; names that are not among them change nothing.

        Returns:
            A new table.

        Example:
            >>> import numpy as np
            >>> from kappaflow.data import load_table
            >>> load_table(np.array([[0.5, 1.0], [1.5, 2.0]])).without_columns(["x0"]).columns
            ('x1',)
        """
        gone = set(names) & set(self.columns)
        kept = [position for position, name in enumerate(self.columns) if name not in gone]
        return replace(
            self,
            values=self.values[:, kept],
            columns=tuple(self.columns[position] for position in kept),
            left_out=self.left_out + tuple(name for name in self.columns if name in gone),
            integer_columns=tuple(name for name in self.integer_columns if name not in gone),
        )

    def fingerprint(self) -> str:
        """Returns the sha256, in hex, of the values, context, weights and names of columns.

        Returns:
            64 hex digits: the same for the same numbers under the same names, whatever file they
            came from.

        Example:
            >>> import numpy as np
            >>> from kappaflow.data import load_table
            >>> load_table(np.eye(2)).fingerprint()[:8]
            '03413cd7'
        """
        context = np.empty((len(self), 0)) if self.context is None else self.context
        digest = hashlib.sha256(repr((self.columns, self.context_columns)).encode())
        weights = np.empty(0) if self.weights is None else self.weights
        for part in (self.values, context, weights):
            digest.update(np.ascontiguousarray(part, dtype="<f8").tobytes())
        return digest.hexdigest()

    def describe(self) -> dict[str, Any]:
        """Returns the names of the columns."""
        return {"columns": list(self.columns), "context_columns": list(self.context_columns)}


def whole_columns(values: FloatArray, columns: tuple[str, ...]) -> tuple[str, ...]:
    """Returns the names of the columns whose finite values are all whole numbers.

    From 2**53 on every float64 is whole, so that larger values say nothing and the column is not
    counted.
    """
    named = []
    for name, column in zip(columns, values.T, strict=True):
        finite = column[np.isfinite(column)]
        if (
            finite.size
            and np.abs(finite).max() < 2**53
            and np.array_equal(finite, np.rint(finite))
        ):
            named.append(name)
    return tuple(named)


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
