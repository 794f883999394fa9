"""CSV and TSV, read as text first, so that a late word among numbers has a row number."""

import csv
import io
from typing import TYPE_CHECKING

from kappaflow.data.raw import Column, Raw, collect
from kappaflow.errors import DataError, FileError

if TYPE_CHECKING:
    import polars as pl

MISSING = ("", "NA", "N/A", "n/a", "nan", "NaN", "NAN", "NULL", "null", "None", "?")


def read_delimited(data: bytes, source: str, subject: str, separator: str | None = None) -> Raw:
    """Returns the columns of text with a header line, off which the separator is read."""
    import narwhals as nw

    text = decoded(data, subject)
    separator = separator or separator_of(text)
    header = _header(text, separator, subject)
    frame = _strings(text, separator, header, subject)
    columns = []
    for name, series in zip(header, frame.get_columns(), strict=True):
        typed, stray = _typed(series)
        if name or typed.null_count() < len(typed):
            label = name or f"column_{len(columns) + 1}"
            columns.append(Column(label, nw.from_native(typed, series_only=True), stray))
    return collect(columns, source, subject)


def decoded(data: bytes, subject: str) -> str:
    """Returns UTF-8 as text with one kind of line end, or says what it is instead."""
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise FileError(f"{subject} is UTF-16 text: save it as UTF-8.")
    if b"\0" in data:
        raise FileError(f"{subject} holds binary data, not a table in text form.")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise FileError(
            f"{subject} is not UTF-8 text (byte 0x{data[error.start]:02x} in line {line}): save "
            "it as UTF-8."
        ) from None
    if "\n" not in text:
        text = text.replace("\r", "\n")
    if not text.strip():
        raise FileError(f"{subject} is empty: it should hold a header line and rows of numbers.")
    return text.rstrip("\r\n") + "\n"


def separator_of(text: str) -> str:
    """Returns the comma, or what stands in the header where no comma does: semicolon, tab."""
    header = text.split("\n", 1)[0]
    return next((mark for mark in ",;\t" if mark in header), ",")


def _header(text: str, separator: str, subject: str) -> list[str]:
    try:
        first = next(csv.reader(io.StringIO(text[: 10**6]), delimiter=separator))
    except csv.Error as error:
        raise FileError(f"the header of {subject} cannot be read: {error}.") from None
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


def _strings(text: str, separator: str, header: list[str], subject: str) -> "pl.DataFrame":
    import polars as pl

    try:
        frame = pl.read_csv(
            text.encode(),
            separator=separator,
            infer_schema=False,
        )
    except pl.exceptions.PolarsError:
        _refuse_ragged(text, separator, len(header), subject)
        raise FileError(
            f"{subject} cannot be read as a table in text form, most likely for a quote that is "
            "never closed."
        ) from None
    if frame.width != len(header) or (frame.height and frame.to_series(-1).null_count()):
        _refuse_ragged(text, separator, len(header), subject)
    if frame.height == 0:
        raise DataError(f"{subject} has a header but no rows: there is nothing to fit.")
    return frame


def _refuse_ragged(text: str, separator: str, width: int, subject: str) -> None:
    """Raises FileError for the first row that has more or fewer fields than the header."""
    reader = csv.reader(io.StringIO(text), delimiter=separator)
    try:
        for row in reader:
            if row and len(row) != width:
                fields = "1 field" if len(row) == 1 else f"{len(row)} fields"
                raise FileError(
                    f"line {reader.line_num} of {subject} has {fields} where the header "
                    f"has {width}: mend that line, or quote the text that holds the separator "
                    f"'{separator}'."
                )
    except csv.Error as error:
        raise FileError(f"line {reader.line_num} of {subject} cannot be read: {error}.") from None


def _typed(series: "pl.Series") -> tuple["pl.Series", tuple[int, str] | None]:
    """Returns texts as numbers or booleans where all are; else the first stray among numbers."""
    import polars as pl

    text = series.str.strip_chars()
    text = text.set(text.is_in(MISSING), None)
    numbers = text.cast(pl.Float64, strict=False)
    present, understood = text.len() - text.null_count(), numbers.len() - numbers.null_count()
    if understood == present:
        return numbers, None
    lower = text.str.to_lowercase()
    if lower.drop_nulls().is_in(["true", "false"]).all():
        return lower == "true", None
    if 2 * understood <= present:
        return text, None
    first = (numbers.is_null() & text.is_not_null()).arg_true()[0]
    return text, (first + 1, text[first])
