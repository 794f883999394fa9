"""Columns of any type as a source holds them: from arrays, tensors and data frames."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from kappaflow.data.naming import FloatArray, IntArray, label_name
from kappaflow.errors import ArgumentError, DataError

if TYPE_CHECKING:
    import narwhals as nw


DATES = "dates or times"  # what a column holds, in messages
Decimal = Literal[".", ","]
COUNTED = 20  # fewest numbers that count rows by no accident
HEAD_ROWS = 1000
CHANCE_REPEATS = 7.0  # expected repeats of random numbers: a probability of 1e-3 that none occurs
NO_MISSING = "none"  # as a value that means a missing one: there is none
INDEX_NAMES = ("Unnamed: 0", "__index_level_0__")  # as pandas reads and writes an index


@dataclass(frozen=True)
class Reading:
    """Which rows and columns of a source are read, and how: the options of `load_table`."""

    columns: tuple[str, ...] | None = None
    exclude: tuple[str, ...] = ()
    context: tuple[str, ...] = ()
    where: tuple[str, ...] = ()
    decimal: Decimal | None = None
    missing: tuple[str, ...] = ()
    texts: tuple[str, ...] = ()  # columns that are kept as text
    lenient: bool = False  # reads a text among numbers of a file as missing, instead of an error
    every: bool = False  # leaves out no column of numbers or booleans
    labels: bool = False  # leaves out no text with few labels
    separator: str | None = None
    comment: str | None = None
    purpose: str = "fit"  # a verb: what the rows are for, if there are none

    def __post_init__(self) -> None:
        if self.decimal not in {None, ".", ","}:
            raise ArgumentError(f"'decimal' should be '.' or ',', got {self.decimal!r}.")
        sign = self.separator
        if (
            sign is not None
            and sign != "\\t"
            and (len(sign) != 1 or not sign.isascii() or sign in '"\r\n')
        ):
            raise ArgumentError(f"'separator' should be one sign, such as ';', got {sign!r}.")
        if self.comment is not None and not self.comment.strip():
            raise ArgumentError(f"'comment' should be a sign, such as '#', got {self.comment!r}.")

    @classmethod
    def of(
        cls,
        columns: Iterable[str] | None = None,
        exclude: str | Iterable[str] = (),
        context: str | Iterable[str] = (),
        where: str | Iterable[str] | None = None,
        decimal: Decimal | None = None,
        missing: str | Iterable[str] = (),
        separator: str | None = None,
        comment: str | None = None,
    ) -> "Reading":
        """Returns the options of a user, each of which may be one text or several."""
        return cls(
            None if columns is None else as_names(columns, "columns"),
            as_names(exclude, "exclude"),
            as_names(context, "context"),
            as_names(() if where is None else where, "where"),
            decimal,
            as_names(missing, "missing"),
            separator=separator,
            comment=comment,
        )

    @property
    def missing_numbers(self) -> list[float]:
        return [number for text in self.missing for number in _as_number(text)]


def as_names(value: object, argument: str) -> tuple[str, ...]:
    """Returns one text or several as a tuple; raises ArgumentError for anything else."""
    if isinstance(value, str) or not isinstance(value, Iterable):
        value = (value,)
    names = tuple(value)
    texts = tuple(name for name in names if isinstance(name, str))
    if len(texts) < len(names):
        wrong = next(name for name in names if not isinstance(name, str))
        example = f"text, such as '{wrong}'"
        if argument == "where":
            example = "a condition as text, such as where='age>30'"
        elif not isinstance(wrong, int | float):
            example = "names of columns"
        raise ArgumentError(f"'{argument}' should be {example}, got {type(wrong).__name__}.")
    return texts


def _as_number(text: str) -> list[float]:
    try:
        return [float(text)]
    except ValueError:
        return []


READ_ALL = Reading()


def no_rows(subject: str, purpose: str, what: str = "no rows") -> DataError:
    """Returns the error for a source without rows."""
    return DataError(f"{subject} has {what}: there is nothing to {purpose}.")


@dataclass(frozen=True)
class Column:
    """One column of a source."""

    name: str
    series: "nw.Series[Any]"
    problem: str | None = None  # why it cannot be used
    notes: tuple[str, ...] = ()  # how it was read
    what: str | None = None  # it holds instead of numbers, where the values do not tell
    origin: Literal["text", "frame", "array"] = "text"  # nothing of an array is left out
    is_index: bool = False
    ends: tuple[float, float] | None = None  # of a column that counts its rows, if known

    @property
    def is_number(self) -> bool:
        """Whether it can be modeled: integers, floats, decimals, and booleans as 0 and 1."""
        return self.series.dtype.is_numeric() or self.is_truth

    @property
    def is_truth(self) -> bool:
        """Whether it holds true and false."""
        import narwhals as nw

        return self.series.dtype == nw.Boolean

    @property
    def holds_dates(self) -> bool:
        """Whether it holds dates or times."""
        return (self.what or "").startswith(DATES) or self.series.dtype.is_temporal()

    @property
    def is_single(self) -> bool:
        """Whether it holds float32, to which numbers compared with it have to be rounded."""
        import narwhals as nw

        return self.series.dtype == nw.Float32

    def numbers(self) -> FloatArray:
        """Returns the column as float64, missing values as NaN."""
        import narwhals as nw

        return np.asarray(self.series.cast(nw.Float64).to_numpy(), dtype=np.float64)

    def texts(self) -> list[str | None]:
        """Returns the column as strings, missing values as None."""
        pairs = zip(self.series.to_list(), self.series.is_null().to_list(), strict=True)
        return [None if gap else str(value) for value, gap in pairs]

    @property
    def can_count(self) -> bool:
        """Whether its type is one in which rows are counted: integers, or any number in a text."""
        dtype = self.series.dtype
        return dtype.is_integer() or (self.origin == "text" and dtype.is_numeric())


def running(parts: Iterable[FloatArray]) -> tuple[float, float] | None:
    """Returns the ends of numbers that count the rows: whole, at equal steps, 20 or more."""
    first = step = 0.0
    count = 0
    for numbers in parts:
        if not count:
            first, step = (float(number) for number in (*numbers[:2], np.nan, np.nan)[:2])
            step -= first
            if not (step and first.is_integer() and step.is_integer()):
                return None
        if (numbers != first + step * np.arange(count, count + len(numbers))).any():
            return None
        count += len(numbers)
    return None if count < COUNTED else (first, first + step * (count - 1))


def identifiers(numbers: FloatArray) -> tuple[float, float] | None:
    """Returns the ends of whole numbers that are all different, as identifiers are; else None.

    Random numbers between these ends would repeat seven times on average, so chance is no cause.
    """
    few = numbers[:HEAD_ROWS]  # these rule out most columns
    if len(numbers) < COUNTED or (few != np.rint(few)).any() or len(np.unique(few)) < len(few):
        return None
    ordered = np.unique(numbers)  # NaN and infinity come last
    is_integral = np.array_equal(ordered, np.rint(ordered)) and abs(ordered[[0, -1]]).max() < 2**53
    if len(ordered) < len(numbers) or not is_integral:
        return None
    step = np.gcd.reduce(np.diff(ordered).astype(np.int64))
    possible = (ordered[-1] - ordered[0]) / step + 1
    if len(numbers) * (len(numbers) - 1) / 2 < CHANCE_REPEATS * possible:
        return None
    return float(ordered[0]), float(ordered[-1])


@dataclass(frozen=True)
class RawTable:
    """The columns of a source, of one length."""

    columns: dict[str, Column]
    source: str
    subject: str  # names the source in a sentence
    lines: IntArray | None = None  # of a text file on which each row starts, counted from 1
    labels: NDArray[Any] | None = None  # the index of a data frame that has one
    notes: tuple[str, ...] = ()  # on the source

    @property
    def row_count(self) -> int:
        return len(next(iter(self.columns.values())).series)

    def renamed(self, names: Sequence[str]) -> "RawTable":
        """Returns the columns with other names, in the same order."""
        pairs = zip(names, self.columns.values(), strict=True)
        return replace(self, columns={name: replace(column, name=name) for name, column in pairs})

    def without(self, names: Iterable[str]) -> "RawTable":
        """Returns the columns but some."""
        gone = set(names)
        return replace(self, columns={n: c for n, c in self.columns.items() if n not in gone})

    def select(self, keep: NDArray[np.bool_]) -> "RawTable":
        """Returns the rows of a mask."""
        columns = {
            name: replace(column, series=column.series.filter(keep.tolist()))
            for name, column in self.columns.items()
        }
        lines, labels = (
            None if part is None else part[keep] for part in (self.lines, self.labels)
        )
        return replace(self, columns=columns, lines=lines, labels=labels)

    def name_row(self, row: int) -> str:
        """Returns the name of a row, counted from 0, as `describe_rows` does."""
        if self.labels is not None:
            return label_name(self.labels[row])
        return f"row {row + 1}" if self.lines is None else f"line {self.lines[row]}"


def collect(columns: list[Column], source: str, subject: str) -> RawTable:
    """Returns the columns by name; the error lists names that come twice."""
    if not columns:
        raise DataError(f"{subject} has no columns: give a table with at least one column.")
    twice = [name for name, count in Counter(c.name for c in columns).items() if count > 1]
    if twice:
        raise DataError(
            f"{subject} has more than one column named {quoted(twice)}: rename them, so that "
            "each name stands for one column."
        )
    return RawTable({column.name: column for column in columns}, source, subject)


def without_missing(raw: RawTable, reading: Reading) -> RawTable:
    """Returns the columns with the values that the user named as missing replaced by null."""
    if not reading.missing:
        return raw
    columns = [_without_missing(column, reading, raw) for column in raw.columns.values()]
    return replace(raw, columns={column.name: column for column in columns})


def _without_missing(column: Column, reading: Reading, raw: RawTable) -> Column:
    import narwhals as nw
    import polars as pl

    if column.series.dtype.is_numeric():
        numbers, named = column.numbers(), np.array(reading.missing_numbers)
        if column.is_single:
            with np.errstate(over="ignore"):
                named = named.astype(np.float32)
        hit = np.isin(numbers, named)
        series = pl.Series(np.where(hit, np.nan, numbers))
    elif column.series.dtype == nw.String:
        texts = column.texts()
        hit = np.array([text in reading.missing for text in texts], dtype=np.bool_)
        series = pl.Series([None if text in reading.missing else text for text in texts])
    else:
        return column
    if not hit.any():
        return column
    note = missing_note(column.name, int(hit.sum()), reading, raw.name_row(int(hit.argmax())))
    native = nw.from_native(series, series_only=True)
    return replace(column, series=native, notes=(*column.notes, note))


def missing_note(name: str, count: int, reading: Reading, first: str) -> str:
    """Returns the sentence about values that the user named as missing."""
    values = "1 value" if count == 1 else f"{count:,} values"
    return (
        f"column '{name}' has {values} {' or '.join(reading.missing)}, read as missing: the first "
        f"at {first}"
    )


def text_example(kind: str, value: object, row: str, count: int) -> str:
    """Returns what a column without numbers holds, with its first value and how many there are."""
    values = "1 value" if count == 1 else f"{count:,} values"
    text = str(value) if len(str(value)) <= 40 else f"{str(value)[:40]}..."
    return f"{kind}, such as {text!r} at {row} ({values})"


def quoted(names: list[str] | tuple[str, ...], most: int = 12) -> str:
    """Returns the names in quotes, separated by commas, with the number of those beyond `most`."""
    shown = ", ".join(f"'{name}'" for name in names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"
