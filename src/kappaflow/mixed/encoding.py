"""`Encoding`: rows of mixed columns as numbers and codes of labels, and the reverse."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import BaseModel, ConfigDict

from kappaflow.data.naming import BoolArray, FloatArray, IntArray
from kappaflow.data.raw import Column, RawTable, quoted
from kappaflow.data.rounding import NEAR
from kappaflow.data.table import Grid
from kappaflow.domains import Interval
from kappaflow.errors import DataError
from kappaflow.mixed.columns import (
    OTHER,
    ColumnEncoding,
    ContextColumn,
    described,
    fit_column,
    fit_context,
    numbers_of,
    refuse,
    with_a_number,
)
from kappaflow.mixed.heads import MISSING, OFFSET
from kappaflow.mixed.kinds import ColumnKind
from kappaflow.mixed.values import (
    frame_like,
    plain,
    row_numbers,
    series_of_numbers,
    series_of_texts,
    series_of_times,
    texts_of,
)

if TYPE_CHECKING:
    import polars as pl


@dataclass(frozen=True)
class Encoded:
    """Rows as numbers and codes of labels.

    Args:
        numbers: (rows, D), float64; NaN where a value is missing, or a label stands for it.
        codes: (rows, L), int64: the positions of the labels, or the steps of counts from the
            least one, which is `heads.OFFSET`; -1 for a value that is to be completed.
        missing: (rows, D): whether the value of a number is missing in the source. Decoding does
            not need it.
        context: (rows, C): what the density is given. Decoding does not need it.
    """

    numbers: FloatArray
    codes: IntArray
    missing: BoolArray
    context: FloatArray = field(default_factory=lambda: np.zeros((0, 0)))

    def __len__(self) -> int:
        return len(self.codes)

    @property
    def known(self) -> FloatArray:
        """All that is known of each row, as numbers."""
        return np.hstack([self.numbers, self.codes.astype(np.float64), self.context])

    def at(self, members: BoolArray | IntArray) -> "Encoded":
        """Returns some of the rows."""
        return Encoded(*(part[members] for part in vars(self).values()))


class Encoding(BaseModel):
    """Rows of mixed columns as numbers and codes of labels, and the reverse.

    `fit` learns labels, cells and ranges from rows. All fields are plain values of JSON.

    Example:
        >>> import polars as pl
        >>> from kappaflow.data.memory import read_memory
        >>> from kappaflow.mixed.kinds import detect_kinds
        >>> raw = read_memory(pl.DataFrame({"a": [0.5, 1.5, 2.25, 4.0], "b": list("xyxy")}))
        >>> encoding = Encoding.fit(raw, detect_kinds(raw))
        >>> encoding.numbers, encoding.label_columns, encoding.labels
        (('a',), ('b',), (('x', 'y'),))
        >>> encoding.encode(raw).codes.tolist()
        [[0], [1], [0], [1]]
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    columns: tuple[ColumnEncoding, ...]
    context: tuple[ContextColumn, ...] = ()

    @classmethod
    def fit(
        cls, raw: RawTable, kinds: Sequence[ColumnKind], context: Collection[str] = ()
    ) -> "Encoding":
        """Returns the encoding of the columns of a source, which have these kinds.

        `context` names those that the density is given.

        Raises:
            ArgumentError: A density cannot depend on a column of the context.
            DataError: A column is missing, or holds an infinite number.
        """
        _check_columns(raw, [kind.name for kind in kinds])
        pairs = [(plain(raw.columns[kind.name]), kind) for kind in kinds]
        columns = [fit_column(raw, *pair) for pair in pairs if pair[1].name not in context]
        conditions = [fit_context(raw, *pair) for pair in pairs if pair[1].name in context]
        modeled = (described(column) for column in with_a_number(columns))
        return cls(columns=tuple(modeled), context=tuple(conditions))

    @property
    def _number_columns(self) -> list[ColumnEncoding]:
        return [column for column in self.columns if column.is_number]

    @property
    def coded(self) -> list[ColumnEncoding]:
        """The columns that have a code: labels and counts."""
        return [column for column in self.columns if column.labels or column.is_count]

    @property
    def numbers(self) -> tuple[str, ...]:
        """The columns that have a number."""
        return tuple(column.name for column in self._number_columns)

    @property
    def steps(self) -> tuple[float, ...]:
        """The width of the cells of each number, 0 for exact ones."""
        grids = [column.grid for column in self._number_columns]
        return tuple(0.0 if grid is None else grid.step for grid in grids)

    @property
    def grids(self) -> dict[str, Grid]:
        """The cells of the numbers that are rounded, by column."""
        return {column.name: column.grid for column in self._number_columns if column.grid}

    @property
    def domains(self) -> tuple[Interval | None, ...]:
        """Where each number can lie, None for anywhere."""
        return tuple(column.domain for column in self._number_columns)

    @property
    def label_columns(self) -> tuple[str, ...]:
        """The columns that have a code."""
        return tuple(column.name for column in self.coded)

    @property
    def labels(self) -> tuple[tuple[str | None, ...], ...]:
        """The labels of each column that has a code, None for missing values; () for counts."""
        return tuple(column.labels for column in self.coded)

    def has_number(self, codes: IntArray) -> BoolArray:
        """Returns which numbers (rows, D) belong to rows of these codes: no label replaces them.

        A label that is to be completed replaces none.
        """
        result = np.ones((len(codes), len(self.numbers)), dtype=np.bool_)
        for index, name in enumerate(self.numbers):
            if name in self.label_columns:
                result[:, index] = codes[:, self.label_columns.index(name)] <= 0
        return result

    @property
    def context_features(self) -> tuple[str, ...]:
        """The names of the numbers that stand for the context."""
        return tuple(name for column in self.context for name in column.features)

    def numbers_in(self, raw: RawTable) -> dict[str, FloatArray]:
        """Returns the numbers of a source by column, dates as days, without columns on a circle.

        Missing values are NaN.
        """
        columns = [column for column in self.columns if column.is_number or column.is_count]
        columns += [column for column in self.context if not column.labels]
        return {
            column.name: numbers_of(raw, plain(raw.columns[column.name]), column)
            for column in columns
            if column.name in raw.columns and not (column.domain and column.domain.circular)
        }

    def encode_context(self, raw: RawTable) -> FloatArray:
        """Returns what the density is given for the rows of a source, (rows, C).

        Raises:
            DataError: A column is missing or holds values of another type, a label is unknown, or
                a value is missing where no fitted row missed one.
        """
        _check_columns(raw, [column.name for column in self.context])
        parts = [np.zeros((raw.row_count, 0))]
        for column in self.context:
            source = plain(raw.columns[column.name])
            if column.labels:
                codes = _codes(raw, source, column, completes=False)
                parts.append(np.eye(len(column.labels))[codes])
                continue
            numbers = numbers_of(raw, source, column)
            gone = np.isnan(numbers) & (not column.has_gaps)
            expected = "the fitted table has one in every row"
            refuse(raw, column, gone, ["no value"] * len(gone), expected)
            parts.append(np.stack(column.scaled(numbers), axis=1))
        return np.hstack(parts)

    def encode(
        self, raw: RawTable, *, completes: bool = False, with_context: bool = True
    ) -> Encoded:
        """Returns the rows of a source as numbers and codes.

        Args:
            raw: The source. Its columns may be in any order; others than the fitted ones are
                ignored.
            completes: Whether missing labels get the code -1, to be completed; otherwise they
                are a label of their own.
            with_context: Whether the source has the columns of the context.

        Raises:
            DataError: A column is missing or holds values of another type, a label is unknown, or
                a number is infinite, outside of its domain, or not whole in a column of integers.
        """
        used = [column for column in self.columns if column.is_modeled]
        _check_columns(raw, [column.name for column in used])
        rows = raw.row_count
        numbers = np.empty((rows, len(self.numbers)))
        codes = np.empty((rows, len(self.label_columns)), dtype=np.int64)
        missing = np.zeros(numbers.shape, dtype=np.bool_)
        for column in used:
            source = plain(raw.columns[column.name])
            if column.is_count:
                codes[:, self.label_columns.index(column.name)] = _steps(raw, source, column)
            elif column.labels:
                index = self.label_columns.index(column.name)
                codes[:, index] = _codes(raw, source, column, completes=completes)
            if column.is_number:
                index = self.numbers.index(column.name)
                numbers[:, index] = numbers_of(raw, source, column)
                missing[:, index] = np.isnan(numbers[:, index])
        numbers[~self.has_number(codes)] = np.nan
        for column in self._number_columns:
            _check_numbers(raw, numbers[:, self.numbers.index(column.name)], column)
        context = self.encode_context(raw) if with_context else np.zeros((rows, 0))
        return Encoded(numbers, codes, missing, context)

    def with_dates(self, frame: "pl.DataFrame") -> "pl.DataFrame":
        """Returns a frame whose texts in columns of dates are dates, where the texts are such."""
        import polars as pl

        columns = [
            pl.col(column.name).str.to_datetime(strict=False, time_unit=column.time.unit)
            for column in self.columns
            if column.time is not None
            and column.type.pattern is None
            and frame.schema.get(column.name) == pl.String
        ]
        return frame.with_columns(columns)

    def decode(self, encoded: Encoded, like: Any = None) -> Any:  # noqa: ANN401 - any frame
        """Returns a data frame of rows; missing values are null, identifiers count the rows.

        Args:
            encoded: The rows. Numbers of rounded columns are moved to the nearest value.
            like: A data frame of polars or pandas, which may be empty, for its types; None for a
                frame of polars.

        Raises:
            ArgumentError: `like` is of another library, or has types that cannot hold the values.
        """
        import polars as pl

        series = [
            self._series(column, encoded) for column in self.columns if column.kind != "left_out"
        ]
        frame = pl.DataFrame(series)
        return frame if like is None else frame_like(frame, like)

    def _series(self, column: ColumnEncoding, encoded: Encoded) -> "pl.Series":
        """Returns a column of decoded rows."""
        if column.kind == "identifier":
            return row_numbers(column.name, len(encoded), column.type)
        texts: list[str | None] = []
        if column.is_count and column.grid is not None:
            codes = encoded.codes[:, self.label_columns.index(column.name)]
            values = (column.grid.low or 0.0) + column.grid.step * (codes - OFFSET)
            return series_of_numbers(column.name, np.where(codes < 0, np.nan, values), column.type)
        if column.labels:
            codes = encoded.codes[:, self.label_columns.index(column.name)]
            labels = [*column.labels, None]  # the code -1 is the last one
            texts = [labels[code] for code in codes.tolist()]
        if not column.is_number:
            return series_of_texts(column.name, texts, column.type)
        numbers = encoded.numbers[:, self.numbers.index(column.name)]
        if column.time is not None:
            missing = np.isnan(numbers)
            times = column.time.times(np.where(missing, 0.0, numbers))
            return series_of_times(column.name, times, missing, column.type)
        if column.grid is not None:
            numbers = column.grid.nearest(numbers)
        if texts:
            labeled = [np.nan if t in {None, OTHER} else float(t or "nan") for t in texts]
            is_other = np.array([text == OTHER for text in texts])
            numbers = np.where(is_other, numbers, labeled)
        return series_of_numbers(column.name, numbers, column.type)


def _check_columns(raw: RawTable, names: Sequence[str]) -> None:
    """Raises DataError for columns that a source lacks."""
    gone = [name for name in names if name not in raw.columns]
    if gone:
        raise DataError(
            f"{raw.subject} lacks {'column' if len(gone) == 1 else 'columns'} {quoted(gone)}, "
            f"which the fitted table had: its columns are {quoted(list(raw.columns))}."
        )


def _check_numbers(raw: RawTable, numbers: FloatArray, column: ColumnEncoding) -> None:
    """Raises DataError for numbers outside of their domain, and for fractions of integers."""
    values = numbers.tolist()
    if column.domain is not None:
        wrong = column.domain.outside(numbers) | column.domain.at_an_end(numbers)
        refuse(raw, column, wrong, values, f"values lie {column.domain.description}")
    if column.kind == "integer":
        wrong = np.isfinite(numbers) & (numbers != np.rint(numbers))
        refuse(raw, column, wrong, values, "the fitted table has whole numbers")


def _steps(raw: RawTable, source: Column, column: ColumnEncoding) -> IntArray:
    """Returns counts as steps from the least one of the fitted rows; -1 where they are missing."""
    numbers, grid = numbers_of(raw, source, column), column.grid or Grid(1.0)
    steps = (numbers - (grid.low or 0.0)) / grid.step
    gone = np.isnan(steps)
    nearest = np.where(gone, 0.0, np.rint(steps))
    wrong = ~gone & ((np.abs(steps - nearest) > NEAR) | (nearest <= -OFFSET))
    expected = f"the fitted table has whole numbers from {grid.low:g} in steps of {grid.step:g}"
    refuse(raw, column, wrong, numbers.tolist(), expected)
    return np.where(gone, MISSING, nearest + OFFSET).astype(np.int64)


def _codes(raw: RawTable, source: Column, column: ColumnEncoding, *, completes: bool) -> IntArray:
    """Returns the positions of labels; unknown ones raise DataError."""
    by_label = {label: code for code, label in enumerate(column.labels)}
    texts, default = texts_of(source), MISSING
    if column.is_number:  # any other number is no label
        default = by_label.pop(OTHER)
    missing_code = MISSING if completes else by_label.get(None, MISSING)
    codes = np.array(
        [missing_code if text is None else by_label.get(text, default) for text in texts],
        dtype=np.int64,
    )
    gone = np.array([text is None for text in texts], dtype=np.bool_)
    wrong = (codes == MISSING) & ~(gone & completes)
    if wrong.any():
        raise _unknown_label(raw, column, texts, wrong)
    return codes


def _unknown_label(
    raw: RawTable, column: ColumnEncoding, texts: Sequence[str | None], wrong: BoolArray
) -> DataError:
    """Returns the error that names the first unknown label, its row and the known ones."""
    row, more = int(wrong.argmax()), int(wrong.sum()) - 1
    also = f", and {more:,} more rows have unknown labels" if more else ""
    what = "no value" if texts[row] is None else f"the label {texts[row]!r}"
    known = column.labels[1:] if column.is_number else column.labels
    names = quoted([label for label in known if label is not None])
    return DataError(
        f"column '{column.name}' of {raw.subject} has {what} at {raw.name_row(row)}{also}; the "
        f"labels of the fitted table are {names}."
    )
