"""CSV and TSV, read as text first, so that a late word among numbers has a row number."""

import csv
import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from kappaflow.data.raw import Column, Raw, collect
from kappaflow.data.room import refuse_wide
from kappaflow.data.table import IntArray
from kappaflow.errors import DataError, FileError

if TYPE_CHECKING:
    import polars as pl

MISSING = ("", "NA", "N/A", "n/a", "nan", "NaN", "NAN", "NULL", "null", "None", "?")
NEWLINE, QUOTE = b'\n"'
TRUTHS = ("true", "false")
Kind = Literal["number", "truth", "text"]


def read_delimited(data: bytes, source: str, subject: str, separator: str | None = None) -> Raw:
    """Returns the columns of text with a header line, off which the separator is read."""
    import narwhals as nw

    text = decoded(data, subject)
    separator = separator or separator_of(text)
    header = header_of(text, separator, subject)
    frame = strings_of(text, separator, header, subject)
    lines = lines_of_rows(text, frame.height)
    columns = []
    for name, series in zip(header, frame.get_columns(), strict=True):
        typed, odd = _typed(series)
        if name or typed.null_count() < len(typed):
            label = name or f"column_{len(columns) + 1}"
            stray = None if odd is None else (name_of_row(odd[0], lines), odd[1])
            columns.append(Column(label, nw.from_native(typed, series_only=True), stray))
    return collect(columns, source, subject, lines)


def decoded(data: bytes, subject: str) -> str:
    """Returns UTF-8 as text with one kind of line end, or says what it is instead."""
    text = in_utf8(data, subject)
    if "\n" not in text:
        text = text.replace("\r", "\n")
    if not text.strip():
        raise FileError(f"{subject} is empty: it should hold a header line and rows of numbers.")
    return text.rstrip("\r\n") + "\n"


def in_utf8(data: bytes, subject: str, *, lines_before: int = 0) -> str:
    """Returns UTF-8 as text, or says what it is instead, and in which line of the whole file."""
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise FileError(f"{subject} is UTF-16 text: save it as UTF-8.")
    if b"\0" in data:
        raise FileError(f"{subject} holds binary data, not a table in text form.")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = lines_before + data.count(b"\n", 0, error.start) + 1
        raise FileError(
            f"{subject} is not UTF-8 text (byte 0x{data[error.start]:02x} in line {line}): save "
            "it as UTF-8."
        ) from None


def separator_of(text: str) -> str:
    """Returns the comma, or what stands in the header where no comma does: semicolon, tab."""
    header = text.split("\n", 1)[0]
    return next((mark for mark in ",;\t" if mark in header), ",")


def header_of(text: str, separator: str, subject: str) -> list[str]:
    """Returns the names in the first line, or says why it is no header."""
    try:
        first = next(csv.reader(io.StringIO(text[: 10**6]), delimiter=separator))
    except csv.Error as error:
        raise FileError(f"the header of {subject} cannot be read: {error}.") from None
    refuse_wide(len(first), subject)
    names = [name.strip() for name in first]
    if all_numbers(names) and not consecutive(names):
        raise DataError(
            f"the first line of {subject} holds numbers ({', '.join(names[:3])}), not names of "
            "columns: add a header line."
        )
    return names


def all_numbers(names: list[str]) -> bool:
    """Returns whether each of the names is a number."""
    try:
        return bool([float(name) for name in names])
    except ValueError:
        return False


def consecutive(names: list[str]) -> bool:
    """Returns whether the names count up by one, as unnamed columns are written (0, 1, 2)."""
    if not all(name.isascii() and name.isdigit() for name in names):
        return False
    return (
        names == ["0"]
        or len(names) > 1
        and all(int(b) - int(a) == 1 for a, b in zip(names, names[1:], strict=False))
    )


def lines_of_rows(text: str, rows: int, *, lines_before: int = 0) -> IntArray | None:
    """Returns the line on which each row after the header starts, counted from 1.

    A line end within quotes ends no row. `lines_before` lines of the file come before the text.
    None where rows cannot be told apart.
    """
    read = np.frombuffer(text.encode(), np.uint8)
    newlines, quotes = np.flatnonzero(read == NEWLINE), np.flatnonzero(read == QUOTE)
    ends = np.flatnonzero(np.searchsorted(quotes, newlines) % 2 == 0)
    return ends[:-1] + 2 + lines_before if len(ends) == rows + 1 else None


def name_of_row(row: int, lines: IntArray | None) -> str:
    """Returns "line 4" where the lines of rows are known, else "row 3", of a row from 1."""
    return f"row {row}" if lines is None else f"line {lines[row - 1]}"


def strings_of(
    text: str, separator: str, header: list[str], subject: str, *, lines_before: int = 0
) -> "pl.DataFrame":
    """Returns text with a header as columns of text; `lines_before` it are lines of the file."""
    import polars as pl

    try:
        frame = pl.read_csv(
            text.encode(),
            separator=separator,
            infer_schema=False,
        )
    except pl.exceptions.PolarsError:
        _refuse_ragged(text, separator, len(header), subject, lines_before)
        raise unclosed(subject) from None
    if frame.width != len(header) or (frame.height and frame.to_series(-1).null_count()):
        _refuse_ragged(text, separator, len(header), subject, lines_before)
    if frame.height == 0:
        raise DataError(f"{subject} has a header but no rows: there is nothing to fit.")
    return frame


def unclosed(subject: str) -> FileError:
    """Returns what is said of text that does not fall into records."""
    return FileError(
        f"{subject} cannot be read as a table in text form, most likely for a quote that is "
        "never closed."
    )


def _refuse_ragged(text: str, separator: str, width: int, subject: str, lines_before: int) -> None:
    """Raises FileError for the first row that has more or fewer fields than the header."""
    reader = csv.reader(io.StringIO(text), delimiter=separator)
    try:
        for row in reader:
            if row and len(row) != width:
                fields = "1 field" if len(row) == 1 else f"{len(row)} fields"
                line = lines_before + reader.line_num
                raise FileError(
                    f"line {line} of {subject} has {fields} where the header "
                    f"has {width}: mend that line, or quote the text that holds the separator "
                    f"'{separator}'."
                )
    except csv.Error as error:
        line = lines_before + reader.line_num
        raise FileError(f"line {line} of {subject} cannot be read: {error}.") from None


@dataclass(frozen=True)
class Facts:
    """What texts are, as numbers tell it that add up over the pieces of a column."""

    rows: int = 0
    present: int = 0
    understood: int = 0
    truths: int = 0
    odd: tuple[int, str] | None = None  # the first that is no number, with its row from 1

    def __add__(self, other: "Facts") -> "Facts":
        odd = self.odd
        if odd is None and other.odd is not None:
            odd = self.rows + other.odd[0], other.odd[1]
        return Facts(
            self.rows + other.rows,
            self.present + other.present,
            self.understood + other.understood,
            self.truths + other.truths,
            odd,
        )

    @property
    def kind(self) -> Kind:
        """What the column is: of numbers or of truth values where all of it is, else of text."""
        if self.understood == self.present:
            return "number"
        return "truth" if self.truths == self.present else "text"

    @property
    def stray(self) -> tuple[int, str] | None:
        """The first text of a column that holds numbers for the most part."""
        mostly = 2 * self.understood > self.present
        return self.odd if self.kind == "text" and mostly else None


def cleaned(series: "pl.Series") -> "pl.Series":
    """Returns texts without blanks around them, and null for what stands for a missing value."""
    text = series.str.strip_chars()
    return text.set(text.is_in(MISSING), None)


def facts_of(text: "pl.Series") -> tuple[Facts, "pl.Series"]:
    """Returns what cleaned texts are, and the numbers that they are understood as."""
    import polars as pl

    numbers = text.cast(pl.Float64, strict=False)
    present, understood = text.len() - text.null_count(), numbers.len() - numbers.null_count()
    if understood == present:
        return Facts(text.len(), present, understood), numbers
    first = (numbers.is_null() & text.is_not_null()).arg_true()[0]
    truths = int(text.str.to_lowercase().is_in(TRUTHS).sum())
    return Facts(text.len(), present, understood, truths, (first + 1, text[first])), numbers


def of_kind(text: "pl.Series", kind: Kind) -> "pl.Series":
    """Returns cleaned texts as what their whole column is."""
    import polars as pl

    if kind == "number":
        return text.cast(pl.Float64, strict=False)
    return text.str.to_lowercase() == "true" if kind == "truth" else text


def _typed(series: "pl.Series") -> tuple["pl.Series", tuple[int, str] | None]:
    """Returns texts as numbers or booleans where all are; else the first stray among numbers."""
    text = cleaned(series)
    facts, numbers = facts_of(text)
    return numbers if facts.kind == "number" else of_kind(text, facts.kind), facts.stray
