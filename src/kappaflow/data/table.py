"""`Table`: rows of numbers with their names and their origin."""

import hashlib
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from kappaflow.data.dataset import Model
from kappaflow.data.naming import BoolArray, FloatArray, IntArray
from kappaflow.errors import ArgumentError

if TYPE_CHECKING:
    from kappaflow.data.batches import Batch


@dataclass(frozen=True)
class Grid:
    """The values of a rounded column, which are multiples of `step` away from `origin`."""

    step: float
    origin: float = 0.0
    low: float | None = None  # where samples end, as at `high`
    high: float | None = None
    circular: bool = False  # samples continue at the other end

    def nearest(self, numbers: FloatArray) -> FloatArray:
        """Returns the value next to each number."""
        low = -math.inf if self.low is None else self.low
        high = math.inf if self.high is None else self.high
        steps = np.rint((np.asarray(numbers, dtype=np.float64) - self.origin) / self.step)
        values = self.origin + self.step * steps
        if self.circular:
            values = low + (values - low) % (high - low)
        values = np.clip(values, low, high)
        digits = max(-int(Decimal(repr(n)).as_tuple().exponent) for n in (self.step, self.origin))
        return np.round(values, digits) + 0.0 if digits <= 15 else values  # 1/3 has 16


@dataclass(frozen=True, eq=False)
class Table:
    """Rows of numbers with their names and their origin, made by `load_table`.

    Args:
        values: What is modeled, float64 (rows, columns), in the units of the source.
        columns: The names of the columns of `values`.
        rows: The 1-based data row numbers in the source, int64 (rows,), kept through every
            selection.
        source: Where the table came from, for messages.
        context: What the density is conditioned on, float64 (rows, c), or None.
        context_columns: The names of the columns of `context`.
        left_out: The columns of the source that are not used.
        integer_columns: The modeled columns that held only whole numbers when they were loaded.
        weights: How much each row counts in a likelihood, float64 (rows,), 0 or more; None where
            all count alike.
        lines: The line of the text file on which each row starts, counted from 1, int64 (rows,);
            None where the rows do not come from a text file.
        labels: The index label of each row of a data frame that has an index, (rows,), else None.
        groups: Rows with the same number stay in one part of a split, int64 (rows,); None where
            these are the rows that are equal.
        notes: How the source was read, one sentence each.
        warnings: The sentences that keep the verdict on a fit to this table from being green.
        texts: Requested columns of text, by name, (rows,) each.
        has_codes: Whether numbers such as -999 can stand for missing values.
        grids: By column, the rounded values to which uniform noise as wide as a step was added.
        kinds: The kind of each column of a table of mixed ones; None for another table.

    Example:
        >>> import numpy as np
        >>> from kappaflow.data import load_table
        >>> table = load_table(np.array([[0.5, 1.0], [1.5, 2.0], [2.5, 3.0]]))
        >>> table.columns, table.integer_columns
        (('x0', 'x1'), ('x1',))
    """

    values: FloatArray
    columns: tuple[str, ...]
    rows: IntArray
    source: str
    context: FloatArray | None = None
    context_columns: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    integer_columns: tuple[str, ...] = ()
    weights: FloatArray | None = None
    lines: IntArray | None = None
    labels: NDArray[Any] | None = None
    groups: IntArray | None = None
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    texts: Mapping[str, NDArray[np.str_]] = field(default_factory=dict)
    has_codes: bool = True
    grids: Mapping[str, Grid] = field(default_factory=dict)
    kinds: Mapping[str, str] | None = None

    def __post_init__(self) -> None:
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
            value = getattr(self, name)
            if value is not None and value.shape != (rows,):
                raise ArgumentError(
                    f"'{name}' should have shape ({rows},), one for each row, got {value.shape}."
                )

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def all_columns(self) -> tuple[str, ...]:
        """The names of the modeled columns, then those of the context."""
        return (*self.columns, *self.context_columns)

    @property
    def all_values(self) -> FloatArray:
        """The modeled values, then the context, side by side."""
        return self.values if self.context is None else np.hstack([self.values, self.context])

    @property
    def widths(self) -> dict[str, float]:
        """The width of uniform noise that was added to rounded values, by column."""
        return {name: grid.step for name, grid in self.grids.items()}

    @property
    def by_column(self) -> dict[str, FloatArray]:
        """The modeled values of each column."""
        return dict(zip(self.columns, self.values.T, strict=True))

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
        optional = {
            name: getattr(self, name)
            for name in ("context", "weights", "lines", "labels", "groups")
        }
        chosen = {
            name: values if values is None else values[index] for name, values in optional.items()
        }
        texts = {name: values[index] for name, values in self.texts.items()}
        return replace(self, values=self.values[index], rows=rows, texts=texts, **chosen)

    def without_columns(self, names: Iterable[str]) -> "Table":
        """Returns the table without some modeled columns, which join `left_out`.

        Names that are not among the modeled columns change nothing.

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
            The same 64 hex digits for the same numbers under the same names, whatever file they
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
        """Returns the names of the columns, and which values had noise added to them."""
        names = {"columns": list(self.columns), "context_columns": list(self.context_columns)}
        grids = {name: asdict(grid) for name, grid in self.grids.items()}
        return names | ({"widths": self.widths, "grids": grids} if grids else {})

    def batches(self, flow: Model) -> "Batch":
        """Returns all rows as one batch, with the dtype and on the device of a flow."""
        from kappaflow.data.batches import batch_of

        return batch_of(self, flow)

    def check(self, flow: Model, *, held_out: bool = False) -> None:
        """Raises DataError for values that a flow cannot represent."""
        from kappaflow.data.batches import check_domains, check_dtype

        if not held_out:
            check_dtype(self, flow)
        check_domains(self, flow)


def whole_columns(values: FloatArray, columns: tuple[str, ...]) -> tuple[str, ...]:
    """Returns the names of the columns whose finite values are all whole numbers.

    From 2**53 on every float64 is whole, so that larger values say nothing and the column is not
    counted.
    """
    named = []
    for name, column in zip(columns, values.T, strict=True):
        finite = column[np.isfinite(column)]
        if finite.size and np.abs(finite).max() < 2**53 and (finite == np.rint(finite)).all():
            named.append(name)
    return tuple(named)


def weighted(table: Table, weights: object | None, keep: BoolArray | None = None) -> Table:
    """Returns a table with weights of its rows, (rows,), without those of weight zero.

    `keep` is a mask of the rows of the source that are in the table, if the weights are those of
    all rows of the source.

    Raises:
        ArgumentError: The weights are not finite numbers of 0 or more, or all of them are 0.

    Example:
        >>> from kappaflow.data import load_table
        >>> table = weighted(load_table(np.eye(3)), [1.0, 0.0, 2.0])
        >>> table.rows, table.weights
        (array([1, 3]), array([1., 2.]))
    """
    if weights is None:
        return table
    try:
        numbers = np.asarray(weights, dtype=np.float64)
    except (TypeError, ValueError):
        raise ArgumentError(f"'weights' should be numbers, got {weights!r}.") from None
    rows = len(table) if keep is None else len(keep)
    if numbers.shape != (rows,):
        raise ArgumentError(
            f"'weights' should have shape ({rows},), one for each row, got {numbers.shape}."
        )
    numbers = numbers if keep is None else numbers[keep]
    if not np.isfinite(numbers).all() or not numbers.any():
        raise ArgumentError("'weights' should be finite, 0 or more, and not all of them zero.")
    if (numbers < 0).any():
        raise ArgumentError(
            f"'weights' should be 0 or more, {(numbers < 0).sum():,} of {len(numbers):,} are "
            "negative: a likelihood could grow without bound. Resample the rows so that negative "
            "weights cancel (as for events of generators beyond leading order), or leave them out."
        )
    return replace(table, weights=numbers).select(numbers > 0)
