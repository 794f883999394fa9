"""`Encoding`: rows of mixed columns as numbers and codes of labels, and the reverse."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import BaseModel, ConfigDict

from kappaflow.data.naming import BoolArray, FloatArray, IntArray
from kappaflow.data.raw import Column, RawTable, quoted
from kappaflow.data.rounding import NEAR, coarse_columns, grid_of, resolution
from kappaflow.data.table import Grid, Table
from kappaflow.domains import Interval
from kappaflow.errors import DataError
from kappaflow.mixed.heads import MISSING, OFFSET
from kappaflow.mixed.kinds import ColumnKind, Kind, frequent_values, time_scale
from kappaflow.mixed.values import (
    TICKS,
    SourceType,
    TimeScale,
    content,
    frame_like,
    is_missing,
    number_text,
    plain,
    row_numbers,
    series_of_numbers,
    series_of_texts,
    series_of_times,
    source_type,
    texts_of,
    times_of,
)

if TYPE_CHECKING:
    import polars as pl

MOST_STEPS = 2_000  # from the least to the largest count: of more, the steps hardly show
SPARSE = 3  # times as many steps as values: such whole numbers are labels, if they are few
FEW = 12  # most different whole numbers that are labels
OTHER = "other"  # label of the rows in which no label stands for the number


@dataclass(frozen=True)
class Encoded:
    """Rows as numbers and codes of labels.

    Args:
        numbers: (rows, D), float64; NaN where a value is missing, or a label stands for it.
        codes: (rows, L), int64: the positions of the labels, or the steps of counts from the
            least one, which is `heads.OFFSET`; -1 for a value that is to be completed.
        missing: (rows, D): whether the value of a number is missing in the source. Decoding does
            not need it.
    """

    numbers: FloatArray
    codes: IntArray
    missing: BoolArray

    def __len__(self) -> int:
        return len(self.codes)


class ColumnEncoding(BaseModel):
    """How a column becomes a number, a code, or both: a label where a few values are frequent.

    Args:
        name: The name of the column.
        kind: Its kind.
        about: What it holds and how it is modeled, for messages.
        type: The type that decoded values have.
        is_number: Whether it has a number.
        labels: Its labels, None for missing values; none if it has no label. A column with a
            number too has the label "other" first, for the rows that have the number.
        is_count: Whether its code counts steps, without labels.
        has_gaps: Whether values of a count were missing.
        grid: The values of a count, or the cells of a rounded number, in days for dates.
        domain: Where the number can lie, None for anywhere.
        time: The scale of a date.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    name: str
    kind: Kind
    about: str
    type: SourceType
    is_number: bool = False
    labels: tuple[str | None, ...] = ()
    is_count: bool = False
    has_gaps: bool = False
    grid: Grid | None = None
    domain: Interval | None = None
    time: TimeScale | None = None


class Encoding(BaseModel):
    """Rows of mixed columns as numbers and codes of labels, and the reverse.

    `fit` learns labels, cells and ranges from rows. All fields are plain values of JSON.

    Example:
        >>> import polars as pl
        >>> from kappaflow.data.memory import read_memory
        >>> from kappaflow.mixed.heads import MISSING, OFFSET
    from kappaflow.mixed.kinds import detect_kinds
        >>> raw = read_memory(pl.DataFrame({"a": [0.5, 1.5, 2.25, 4.0], "b": list("xyxy")}))
        >>> encoding = Encoding.fit(raw, detect_kinds(raw))
        >>> encoding.numbers, encoding.label_columns, encoding.labels
        (('a',), ('b',), (('x', 'y'),))
        >>> encoding.encode(raw).codes.tolist()
        [[0], [1], [0], [1]]
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    columns: tuple[ColumnEncoding, ...]

    @classmethod
    def fit(cls, raw: RawTable, kinds: Sequence[ColumnKind]) -> "Encoding":
        """Returns the encoding of the columns of a source, which have these kinds.

        Raises:
            DataError: A column is missing, or holds an infinite number.
        """
        _check_columns(raw, [kind.name for kind in kinds])
        columns = [_fit(raw, plain(raw.columns[kind.name]), kind) for kind in kinds]
        columns = [
            c.model_copy(update={"about": c.about + _how(c)}) for c in _with_a_number(columns)
        ]
        return cls(columns=tuple(columns))

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

    def encode(self, raw: RawTable, *, completes: bool = False) -> Encoded:
        """Returns the rows of a source as numbers and codes.

        Args:
            raw: The source. Its columns may be in any order; others than the fitted ones are
                ignored.
            completes: Whether missing labels get the code -1, to be completed; otherwise they
                are a label of their own.

        Raises:
            DataError: A column is missing or holds values of another type, a label is unknown, or
                a number is infinite, outside of its domain, or not whole in a column of integers.
        """
        used = [c for c in self.columns if c.is_number or c.labels or c.is_count]
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
                numbers[:, index] = _numbers(raw, source, column)
                missing[:, index] = np.isnan(numbers[:, index])
        numbers[~self.has_number(codes)] = np.nan
        encoded = Encoded(numbers, codes, missing)
        for column in self._number_columns:
            _check_numbers(raw, numbers[:, self.numbers.index(column.name)], column)
        return encoded

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


def _how(column: ColumnEncoding) -> str:
    """Returns a clause on how a column is modeled, where its kind does not tell."""
    if column.is_number and column.labels:
        values = [label for label in column.labels[1:] if label is not None]
        return f"; {' and '.join(values)} {'is a label' if len(values) == 1 else 'are labels'}"
    if column.labels and column.kind not in {"category", "boolean"}:
        return "; its values are labels"
    if column.is_number and column.grid is not None and column.time is None:
        return f"; rounded to {column.grid.step:g}"
    return ""


def _with_a_number(columns: list[ColumnEncoding]) -> list[ColumnEncoding]:
    """Returns columns of which one has a number for a flow, if one is a count of many values."""
    counts = [c for c in columns if c.is_count and c.grid is not None]
    if not counts or any(column.is_number for column in columns):
        return columns

    def steps(column: ColumnEncoding) -> float:
        grid = column.grid or Grid(1.0)
        return ((grid.high or 0.0) - (grid.low or 0.0)) / grid.step

    widest = max(counts, key=steps)
    if steps(widest) < FEW:
        return columns
    number = widest.model_copy(update={"is_count": False, "has_gaps": False, "is_number": True})
    return [number if column is widest else column for column in columns]


def _fit(raw: RawTable, column: Column, kind: ColumnKind) -> ColumnEncoding:
    """Returns the encoding of a column."""
    is_date = kind.kind == "date"
    base = ColumnEncoding(
        name=column.name,
        kind=kind.kind,
        about=str(kind),
        type=source_type(column, is_date=is_date),
    )
    if kind.kind in {"identifier", "left_out"}:
        return base
    if kind.kind in {"boolean", "category"}:
        return base.model_copy(update={"labels": _labels(column)})
    if is_date:
        return base.model_copy(update=_fit_date(column))
    numbers = column.numbers()
    _refuse(raw, base, np.isinf(numbers), numbers.tolist(), "numbers should be finite")
    return base.model_copy(update=_fit_number(column, numbers, kind))


def _labels(column: Column, first: tuple[str, ...] = ()) -> tuple[str | None, ...]:
    """Returns the labels of a column: numbers ascend, texts are in order, None is last."""
    texts = set(texts_of(column))
    present = [text for text in texts if text is not None]
    order = sorted(present, key=float) if content(column) == "number" else sorted(present)
    return (*first, *order, *([None] if None in texts else []))


def _fit_date(column: Column) -> dict[str, Any]:
    """Returns the fields of a date: cells if all are whole days, or are rounded coarsely."""
    time = time_scale(column)
    step = time.tick_days
    if not step.is_integer():
        pattern = source_type(column, is_date=True).pattern
        times, gaps = times_of(column, pattern, time.unit)
        step = 0.0 if _coarse_step(time.days(times[~gaps])) is None else step
    last = (time.last - time.first) / TICKS[time.unit]
    grid = Grid(step, 0.0, 0.0, last) if step else None
    return {"is_number": True, "time": time, "grid": grid}


def _fit_number(column: Column, numbers: FloatArray, kind: ColumnKind) -> dict[str, Any]:
    """Returns the fields of a number: labels for frequent values, cells if it is rounded."""
    present = numbers[np.isfinite(numbers)]
    frequent = frequent_values(numbers, kind.kind)
    rest = present[~np.isin(present, frequent)]
    whole = kind.kind == "integer"
    if whole and _is_count(present):
        low, high = float(present.min()), float(present.max())
        grid = Grid(resolution(present) or 1.0, low, low, high)
        return {"is_count": True, "has_gaps": len(present) < len(numbers), "grid": grid}
    if len(np.unique(rest)) < 2 or (whole and len(np.unique(present)) <= FEW):
        return {"labels": _labels(column)}
    labels: tuple[str | None, ...] = ()
    if len(frequent):
        texts = [number_text(float(n), single=column.is_single) for n in frequent]
        labels = (OTHER, *texts, *([None] if len(present) < len(numbers) else []))
    domain = kind.domain
    if whole:
        grid = grid_of(rest, resolution(rest) or 1.0, None)
        grid = replace(grid, low=float(rest.min()), high=float(rest.max()))
    else:
        step = _coarse_step(rest)
        grid = None if step is None else grid_of(rest, step, domain)
    return {"is_number": True, "labels": labels, "grid": grid, "domain": domain}


def _is_count(numbers: FloatArray) -> bool:
    """Returns whether whole numbers are counts: not two values, few far apart, or very many."""
    values = np.unique(numbers)
    if len(values) < 3:
        return False
    steps = (values[-1] - values[0]) / (resolution(numbers) or 1.0) + 1
    return steps <= (SPARSE * len(values) if len(values) <= FEW else MOST_STEPS)


def _coarse_step(numbers: FloatArray) -> float | None:
    """Returns the resolution of numbers whose steps a flow can resolve, else None."""
    rows = np.arange(len(numbers), dtype=np.int64)
    return coarse_columns(Table(numbers[:, None], ("x",), rows, "")).get("x")


def _check_columns(raw: RawTable, names: Sequence[str]) -> None:
    """Raises DataError for columns that a source lacks."""
    gone = [name for name in names if name not in raw.columns]
    if gone:
        raise DataError(
            f"{raw.subject} lacks {'column' if len(gone) == 1 else 'columns'} {quoted(gone)}, "
            f"which the fitted table had: its columns are {quoted(list(raw.columns))}."
        )


def _refuse(
    raw: RawTable, column: ColumnEncoding, wrong: BoolArray, values: Sequence[Any], expected: str
) -> None:
    """Raises DataError for the first of some wrong values."""
    if wrong.any():
        row = int(wrong.argmax())
        raise DataError(
            f"column '{column.name}' of {raw.subject} holds {values[row]} at {raw.name_row(row)}, "
            f"where {expected}."
        )


def _numbers(raw: RawTable, source: Column, column: ColumnEncoding) -> FloatArray:
    """Returns the numbers of a column, dates as days; NaN where they are missing."""
    time, actual, missing = column.time, content(source), is_missing(source)
    expected = "number" if time is None else "text" if column.type.pattern else "date"
    if missing.all():
        return np.full(raw.row_count, np.nan)
    if actual != expected:
        held = {"number": "numbers", "date": "dates", "text": "dates as text"}
        raise DataError(
            f"column '{column.name}' of {raw.subject} holds values of type "
            f"{source.series.dtype}, where the fitted table has {held[expected]}."
        )
    if time is not None:
        pattern = column.type.pattern
        times, gaps = times_of(source, pattern, time.unit)
        wrong = gaps & ~missing
        if wrong.any():
            _refuse(raw, column, wrong, texts_of(source), f"dates are written like {pattern}")
        return np.where(gaps, np.nan, time.days(times))
    numbers = source.numbers()
    _refuse(raw, column, np.isinf(numbers), numbers.tolist(), "numbers should be finite")
    return numbers


def _check_numbers(raw: RawTable, numbers: FloatArray, column: ColumnEncoding) -> None:
    """Raises DataError for numbers outside of their domain, and for fractions of integers."""
    values = numbers.tolist()
    if column.domain is not None:
        wrong = column.domain.outside(numbers) | column.domain.at_an_end(numbers)
        _refuse(raw, column, wrong, values, f"values lie {column.domain.description}")
    if column.kind == "integer":
        wrong = np.isfinite(numbers) & (numbers != np.rint(numbers))
        _refuse(raw, column, wrong, values, "the fitted table has whole numbers")


def _steps(raw: RawTable, source: Column, column: ColumnEncoding) -> IntArray:
    """Returns counts as steps from the least one of the fitted rows; -1 where they are missing."""
    numbers, grid = _numbers(raw, source, column), column.grid or Grid(1.0)
    steps = (numbers - (grid.low or 0.0)) / grid.step
    gone = np.isnan(steps)
    whole = np.where(gone, 0.0, np.rint(steps))
    wrong = ~gone & ((np.abs(steps - whole) > NEAR) | (whole <= -OFFSET))
    expected = f"the fitted table has whole numbers from {grid.low:g} in steps of {grid.step:g}"
    _refuse(raw, column, wrong, numbers.tolist(), expected)
    return np.where(gone, MISSING, whole + OFFSET).astype(np.int64)


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
