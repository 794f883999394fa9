"""What a source holds before columns are chosen: series of any kind under their names."""

from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from kappaflow.data.table import FloatArray, IntArray
from kappaflow.errors import ArgumentError, DataError

if TYPE_CHECKING:
    import narwhals as nw

Decimal = Literal[".", ","]

COUNTED = 20  # rows from which on a progression is no accident
INDEX_NAMES = ("Unnamed: 0", "__index_level_0__")  # as pandas reads and writes an index


@dataclass(frozen=True)
class ReadOptions:
    """How the values of a source are read.

    Attributes:
        decimal: The decimal sign of text files, "." or ","; None to recognise it.
        missing: Values that mean a missing value, as text: "-999", "n.a.".
        texts: Columns whose values are kept as text, such as the names of rows.
        lenient: Whether a text in a column of numbers of a text file is a missing value instead of
            an error.
    """

    decimal: Decimal | None = None
    missing: tuple[str, ...] = ()
    texts: tuple[str, ...] = ()
    lenient: bool = False

    def __post_init__(self) -> None:
        """Checks the decimal sign and the missing values."""
        if self.decimal not in {None, ".", ","}:
            raise ArgumentError(f"'decimal' should be '.' or ',', got {self.decimal!r}.")
        wrong = next((one for one in self.missing if not isinstance(one, str)), None)
        if wrong is not None:
            raise ArgumentError(f"'missing' should be text, such as '{wrong}', got {wrong!r}.")

    @property
    def missing_numbers(self) -> list[float]:
        """The missing values that are numbers."""
        return [number for text in self.missing for number in _as_number(text)]


def _as_number(text: str) -> list[float]:
    try:
        return [float(text)]
    except ValueError:
        return []


AS_USUAL = ReadOptions()


@dataclass(frozen=True)
class Column:
    """One column of a source.

    Attributes:
        name: Its name.
        series: Its values.
        problem: Why it cannot be used and the way out, a sentence without a full stop; None if it
            can.
        notes: How its values were read, where that is not plain, a sentence each.
        what: What it holds instead of numbers; None to say so by the values.
        origin: What kind of source it comes from. Columns of an array are never left out.
        is_index: Whether it is the index of a data frame, written to a file as a column.
        progression: The progression that its values form, where they are not all in `series`.
    """

    name: str
    series: "nw.Series[Any]"
    problem: str | None = None
    notes: tuple[str, ...] = ()
    what: str | None = None
    origin: Literal["text", "frame", "array"] = "text"
    is_index: bool = False
    progression: "Progression | None" = None

    @property
    def is_number(self) -> bool:
        """Whether it can be modelled: integers, floats, decimals, and booleans as 0 and 1."""
        return self.series.dtype.is_numeric() or self.is_truth

    @property
    def is_truth(self) -> bool:
        """Whether it holds true and false."""
        import narwhals as nw

        return self.series.dtype == nw.Boolean

    @property
    def is_single(self) -> bool:
        """Whether it holds float32, to whose rounding a typed-in number has to be brought."""
        import narwhals as nw

        return self.series.dtype == nw.Float32

    def numbers(self) -> FloatArray:
        """Returns the column as float64, missing values as NaN."""
        import narwhals as nw

        return np.asarray(self.series.cast(nw.Float64).to_numpy(), dtype=np.float64)

    def texts(self) -> list[str | None]:
        """Returns the column as strings, missing values as None."""
        return [None if value is None else str(value) for value in self.series.to_list()]

    def running(self) -> "Progression | None":
        """Returns the progression of a column that counts its rows; None for any other."""
        import narwhals as nw

        found = self.progression
        if found is None and (self.origin == "text" or self.series.dtype.is_integer()):
            start = self.series.head(COUNTED).cast(nw.Float64).to_numpy()
            found = progression(start) and progression(self.numbers())
        return found if found is not None and found.rows >= COUNTED else None


@dataclass(frozen=True)
class Progression:
    """Whole numbers at equal distances, ascending or descending, such as 1, 2, 3 or 10, 8, 6."""

    first: float
    last: float
    step: float
    rows: int

    def then(self, other: "Progression | None") -> "Progression | None":
        """Returns this progression and the one of the rows after it, if they are one."""
        if other is None or other.first != self.last + self.step:
            return None
        if other.rows > 1 and other.step != self.step:
            return None
        return Progression(self.first, other.last, self.step, self.rows + other.rows)


def progression(numbers: FloatArray) -> Progression | None:
    """Returns the progression that numbers form, None if they form none."""
    if not len(numbers) or not np.isfinite(numbers).all() or (numbers != np.rint(numbers)).any():
        return None
    steps = np.diff(numbers)
    step = float(steps[0]) if len(steps) else 1.0
    if step == 0 or (steps != step).any():
        return None
    return Progression(float(numbers[0]), float(numbers[-1]), step, len(numbers))


@dataclass(frozen=True)
class RawTable:
    """The columns of a source, of one length; `subject` names the source in a sentence.

    `lines` holds the line of a text file on which each row starts, counted from 1.
    """

    columns: dict[str, Column]
    source: str
    subject: str
    lines: IntArray | None = None

    @property
    def row_count(self) -> int:
        """The number of data rows."""
        return len(next(iter(self.columns.values())).series)


def collect(
    columns: list[Column], source: str, subject: str, lines: IntArray | None = None
) -> RawTable:
    """Returns the columns under their names, or says which names come twice."""
    if not columns:
        raise DataError(f"{subject} has no columns: give a table with at least one column.")
    twice = [name for name, count in Counter(c.name for c in columns).items() if count > 1]
    if twice:
        raise DataError(
            f"{subject} has more than one column named {quoted(twice)}: rename them, so that "
            "each name stands for one column."
        )
    return RawTable({column.name: column for column in columns}, source, subject, lines)


def without_missing(raw: RawTable, options: ReadOptions) -> RawTable:
    """Returns the columns with the values that the user named as missing replaced by null."""
    if not options.missing:
        return raw
    columns = [_without_missing(column, options) for column in raw.columns.values()]
    return RawTable(
        {column.name: column for column in columns}, raw.source, raw.subject, raw.lines
    )


def _without_missing(column: Column, options: ReadOptions) -> Column:
    import narwhals as nw
    import polars as pl

    if column.series.dtype.is_numeric():
        numbers = column.numbers().copy()
        named = np.array(options.missing_numbers)
        if column.is_single:
            with np.errstate(over="ignore"):
                named = named.astype(np.float32)
        hit = np.isin(numbers, named)
        numbers[hit] = np.nan
        series = pl.Series(numbers)
    elif column.series.dtype == nw.String:
        texts = column.texts()
        hit = np.array([text in options.missing for text in texts], dtype=np.bool_)
        series = pl.Series([None if text in options.missing else text for text in texts])
    else:
        return column
    if not hit.any():
        return column
    note = missing_note(column.name, int(hit.sum()), options, f"row {hit.argmax() + 1}")
    native = nw.from_native(series, series_only=True)
    return replace(column, series=native, notes=(*column.notes, note))


def missing_note(name: str, count: int, options: ReadOptions, first: str) -> str:
    """Returns the sentence about values that the user named as missing."""
    values = "1 value" if count == 1 else f"{count:,} values"
    return (
        f"column '{name}' has {values} {' or '.join(options.missing)}, read as missing: the first "
        f"at {first}"
    )


def from_frame(frame: "nw.DataFrame[Any]", source: str, subject: str) -> RawTable:
    """Returns the columns of an eager narwhals frame."""
    columns = [
        Column(
            str(name),
            series := frame.get_column(name),
            origin="frame",
            is_index=str(name) in INDEX_NAMES and series.dtype.is_integer(),
        )
        for name in frame.columns
    ]
    return collect(columns, source, subject)


def shortened(text: str, most: int = 40) -> str:
    """Returns a text that is not too long to show."""
    return text if len(text) <= most else f"{text[:most]}..."


def quoted(names: list[str] | tuple[str, ...], most: int = 12) -> str:
    """Returns the names in quotes, separated by commas, the tail of a long list counted only."""
    shown = ", ".join(f"'{name}'" for name in names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"
