"""Reads CSV and TSV as text first, so that messages can name lines; polars splits the records.

A table larger than memory is converted once to a parquet file of texts.
"""

import codecs
import csv
import io
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice, takewhile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from kappaflow.data.limits import refuse_wide
from kappaflow.data.naming import IntArray
from kappaflow.data.raw import READ_ALL, RawTable, Reading, collect, no_rows, quoted
from kappaflow.data.text_numbers import TextColumn, cleaned, column_marks, kinds_to_read, of_kind
from kappaflow.errors import DataError, FileError
from kappaflow.options import option

if TYPE_CHECKING:
    import polars as pl

START = 10**6  # characters from which separator and header are found
SEPARATORS = ",;\t"
BLANKS = " "  # a separator: any run of blanks
ECSV = ".ecsv"  # of astropy: the line after the comments is the header
SIGNS = ("#", "%")  # of comment lines
LINES_TRIED = 5  # lines by which the separator is found
NUMBERS_APART = re.compile(r"\d[ \t]+[+-]?[.,]?\d")
Store = Callable[["pl.LazyFrame"], "pl.LazyFrame"]  # stores cells and returns what it stored
LOOSE = (".dat", ".txt", ECSV)  # suffixes of files with comments, often without a header
UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
LINE_ENDS = "line ends"  # a column: how many there are within the quotes of a row


class TextTable:
    """The rows of a table in text form, which are read as numbers a few at a time.

    `cells` has the columns of `header` as texts, named 0, 1, ..., and `LINE_ENDS`. `head` has the
    columns that have a name or a value, each with one empty value of its type.
    """

    def __init__(
        self, cells: "pl.LazyFrame", layout: "_Layout", source: str, reading: Reading
    ) -> None:
        self.cells, self.reading = cells, reading
        header, subject, self._first_line = layout.header, layout.subject, layout.first_line
        ends = cells.select(LINE_ENDS).collect()[LINE_ENDS].to_numpy().astype(np.int64)
        self.rows = len(ends)
        self._line_ends = np.cumsum(ends) - ends if ends.any() else None  # before each row
        marks = column_marks(cells, len(header), reading)
        self._columns: dict[str, tuple[int, TextColumn]] = {}
        columns = []
        for index, kind in enumerate(kinds_to_read(header, marks, reading)):
            if header[index] or marks[index].counts["present"]:
                name = header[index] or f"column_{len(columns) + 1}"
                text = TextColumn(
                    name,
                    marks[index],
                    kind,
                    subject,
                    reading,
                    self._text_at(index),
                    self._name_row,
                )
                columns.append(text.column(is_first=not header[index] and not columns))
                self._columns[name] = index, text
        self.head = replace(collect(columns, source, subject), notes=layout.notes)

    def read(self, start: int, count: int, names: Sequence[str] | None = None) -> RawTable:
        """Returns some rows: the named columns, or all."""
        import narwhals as nw
        import polars as pl

        chosen = [name for name in self._columns if names is None or name in names]
        values = []
        for name in chosen:
            index, text = self._columns[name]
            value = of_kind(cleaned(index, self.reading), text.kind)
            values.append(pl.col(str(index)) if name in self.reading.texts else value)
        named = [value.alias(name) for name, value in zip(chosen, values, strict=True)]
        frame = self.cells.slice(start, count).select(named).collect()
        columns = {
            name: replace(
                self.head.columns[name], series=nw.from_native(frame[name], series_only=True)
            )
            for name in chosen
        }
        return replace(self.head, columns=columns, lines=self._lines(start, frame.height))

    def _lines(self, start: int, count: int) -> IntArray:
        """Returns the lines on which rows start, counted from 1."""
        lines = self._first_line + np.arange(start, start + count)
        return lines if self._line_ends is None else lines + self._line_ends[start : start + count]

    def _name_row(self, row: int) -> str:
        """Returns the name of a row, counted from 1, such as "line 4"."""
        return f"line {self._lines(row - 1, 1)[0]}"

    def _text_at(self, column: int) -> Callable[[int], str]:
        """Returns a function that returns the text of a column in a row, counted from 1."""
        cell = cleaned(column, READ_ALL)
        return lambda row: self.cells.slice(row - 1, 1).select(cell).collect().item()


def read_delimited(
    data: bytes,
    source: str,
    subject: str,
    suffix: str = ".csv",
    reading: Reading = READ_ALL,
) -> RawTable:
    """Returns the columns of a text, written as files with this suffix are."""
    text = decoded(data, subject)
    layout = _Layout(text, lambda: io.StringIO(text), suffix, subject, reading)
    if layout.separator == BLANKS:
        text = _single_blanks(text)
    cells = layout.cells(io.BytesIO(text.encode()), lambda cells: cells.collect().lazy())
    table = TextTable(cells, layout, source, reading)
    return table.read(0, table.rows)


def _single_blanks(text: str) -> str:
    """Returns lines with one blank for each run of them, outside of quotes, and none around."""
    if '"' in text:
        quoted_or_run = r'"[^"\n]*"|[ \t]+'
        text = re.sub(quoted_or_run, lambda part: part[0] if part[0][0] == '"' else " ", text)
    else:
        text = re.sub(r"[ \t]+", " ", text)
    return re.sub(r"(?m)^ | (?=\r?$)", "", text)


def convert_text(
    path: Path, converted: Path, source: str, subject: str, reading: Reading
) -> TextTable:
    """Returns the table of a text file, which is converted to a parquet file of texts."""
    import polars as pl

    with path.open("rb") as file:
        start = file.read(START)
        file.seek(max(0, path.stat().st_size - START))
        end = file.read()
    if start.startswith(UTF16):
        raise ValueError(f"{subject} is not text that polars reads")
    _refuse_binary(start + end, subject)
    try:  # a character may be cut at the end
        text = codecs.getincrementaldecoder("utf-8-sig")().decode(start).replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        raise _not_utf8(error, 1 + error.object.count(b"\n", 0, error.start), subject) from None
    if "\n" not in text or reading.separator == BLANKS:
        raise ValueError(f"{subject} has lines or runs of blanks that polars does not see")
    blank = max(0, end.count(b"\n", len(end.rstrip(b"\r\n"))) - 1)  # lines at the end, no rows

    def stored(cells: "pl.LazyFrame") -> "pl.LazyFrame":
        cells.sink_parquet(converted, compression="lz4")
        scan = pl.scan_parquet(converted, glob=False)
        return scan.head(scan.select(pl.len()).collect().item() - blank) if blank else scan

    layout = _Layout(text, lambda: _lines_of(path, subject), path.suffix.lower(), subject, reading)
    return TextTable(layout.cells(path, stored), layout, source, reading)


class _Layout:
    """How a text is split into cells, by its first lines; `lines` returns all once more.

    `first_line` is that of the first row, from 1. Comment lines at the top are skipped: `signs`
    start them. The last one is the header if it has a word for each field of a row of numbers.
    """

    def __init__(
        self,
        start: str,
        lines: Callable[[], Iterable[str]],
        suffix: str,
        subject: str,
        reading: Reading,
    ) -> None:
        self.lines, self.subject, self.notes = lines, subject, ()
        self.purpose = reading.purpose
        is_loose = suffix in LOOSE
        self._signs = (reading.comment,) if reading.comment else SIGNS * is_loose
        rows = start[:START].split("\n")
        comments = list(takewhile(self._is_comment, rows)) if self._signs else []
        body = "\n".join(rows[len(comments) :])
        if not body.strip():
            raise FileError(f"{subject} holds comments only: it should hold rows of numbers.")
        mark = "\t" if suffix == ".tsv" else separator_of(body, reading.decimal, loose=is_loose)
        self.separator = (reading.separator or mark).replace("\\t", "\t")
        self.comments = len(comments)
        header = islice(lines(), self.comments, None)  # `start` may end in it
        if self.separator == BLANKS:
            header = map(_single_blanks, header)
        first = _fields(header, self.separator, subject)
        names = None
        if self._signs and suffix != ECSV and any(_is_number(field) for field in first):
            names = self._header_in(comments, len(first))
            if names is None and is_loose:
                names = [f"x{index}" for index in range(len(first))]
                self.notes = (
                    f"{subject} has no header: its columns are called {quoted(names, 3)}",
                )
        self.has_header = names is None
        self.header = header_of(first, subject) if names is None else names
        ends = sum(name.count("\n") for name in self.header)
        self.first_line = 1 + self.comments + (1 + ends) * self.has_header

    def _is_comment(self, line: str) -> bool:
        return not line.strip() or line.lstrip().startswith(self._signs)

    def _header_in(self, comments: list[str], width: int) -> list[str] | None:
        """Returns the words of the last comment, if they are as many as the columns."""
        last = next((line.strip() for line in reversed(comments) if line.strip()), "")
        signs = "|".join(map(re.escape, self._signs))
        text = re.sub(rf"^(?:{signs})+", "", last).strip()
        words = [word.strip(",;") for word in text.split()]
        fields = words
        if self.separator != BLANKS:
            fields = _fields([text], self.separator, self.subject)
        return next((names for names in (fields, words) if len(names) == width), None)

    def cells(self, source: Path | io.BytesIO, stored: Store) -> "pl.LazyFrame":
        """Returns stored columns of texts, named 0, 1, ..., and the line ends in each row."""
        import polars as pl

        width = len(self.header)
        try:
            scan = pl.scan_csv(
                source,
                separator=self.separator,
                has_header=self.has_header,
                skip_lines=self.comments,
                infer_schema=False,
                glob=False,
            )
            names = scan.collect_schema().names()
            if len(names) != width:
                raise pl.exceptions.ComputeError("the rows have another width than the header")
            texts = [pl.col(name).alias(str(index)) for index, name in enumerate(names)]
            line_ends = pl.sum_horizontal(pl.all().str.count_matches("\n", literal=True))
            cells = stored(scan.select(*texts, line_ends.alias(LINE_ENDS)))
            last = pl.col(str(width - 1))
            rows, short = cells.select(pl.len(), last.null_count()).collect().row(0)
        except pl.exceptions.PolarsError:
            self._refuse_ragged()
            raise FileError(
                f"{self.subject} cannot be read as a table in text form, most likely because a "
                "quote is never closed."
            ) from None
        if short:
            self._refuse_ragged()
        if not rows:
            raise no_rows(self.subject, self.purpose, "a header but no rows")
        return cells

    def _refuse_ragged(self) -> None:
        """Raises FileError for the first row that has more or fewer fields than the header."""
        rows, width = islice(self.lines(), self.comments, None), len(self.header)
        reader = csv.reader(rows, delimiter=self.separator)
        try:
            row = next((row for row in reader if row and len(row) != width), None)
        except csv.Error as error:
            line = self.comments + reader.line_num
            raise FileError(f"line {line} of {self.subject} cannot be read: {error}.") from None
        if row is None:
            return
        fields = "1 field" if len(row) == 1 else f"{len(row)} fields"
        sign = self.header[0][:1]
        hint = ""
        if not self._signs and sign in SIGNS:
            hint = f", or if lines with {sign} are comments, name it ({option('comment', sign)})"
        elif width == 1 and self.separator == ",":
            hint = f", or if it is a decimal comma, name it ({option('decimal', ',')})"
        raise FileError(
            f"line {self.comments + reader.line_num} of {self.subject} has {fields} where the "
            f"{'first row' if self.notes else 'header'} has {width}: correct that line, or quote "
            f"the text that holds the separator '{self.separator}'{hint}."
        )


def _lines_of(path: Path, subject: str) -> Iterator[str]:
    """Yields the lines of a text file; raises FileError for one that is not UTF-8."""
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                yield line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                raise _not_utf8(error, number, subject) from None


def decoded(data: bytes, subject: str) -> str:
    """Returns UTF-8, or UTF-16 with a mark, as text with one kind of line end."""
    if data.startswith(UTF16):
        try:
            data = data.decode("utf-16").encode()
        except UnicodeDecodeError:
            raise FileError(f"{subject} is UTF-16 text that is cut off: save it again.") from None
    _refuse_binary(data, subject)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = 1 + error.object.count(b"\n", 0, error.start)
        raise _not_utf8(error, line, subject) from None
    if "\n" not in text:
        text = text.replace("\r", "\n")
    if not text.strip():
        raise FileError(f"{subject} is empty: it should hold a header line and rows of numbers.")
    return text.rstrip("\r\n") + "\n"


def _refuse_binary(data: bytes, subject: str) -> None:
    if b"\0" in data:
        raise FileError(f"{subject} holds binary data, not a table in text form.")


def _not_utf8(error: UnicodeDecodeError, line: int, subject: str) -> FileError:
    return FileError(
        f"{subject} is not UTF-8 text (byte 0x{error.object[error.start]:02x} in line {line}): "
        "save it as UTF-8."
    )


def separator_of(text: str, decimal: str | None = None, *, loose: bool = False) -> str:
    """Returns the separator that gives the first lines the most fields, as many each.

    If none does, it is the first of comma, semicolon and tab in the header. A decimal comma that
    the user named is no separator, unless it is one in the header. Fields of a `loose` text may be
    separated by blanks: they are if no sign does, or if blanks separate numbers between commas.
    """
    start = text[:START]
    header = text.split("\n", 1)[0]
    is_single = decimal == "," and _width(start, ",", lines=1) == 1
    marks = SEPARATORS.replace(",", "") if is_single else SEPARATORS
    widths = {mark: _width(start, mark) for mark in marks}
    best = max(marks, key=widths.__getitem__)
    lines = "\n".join(start.split("\n", LINES_TRIED)[:LINES_TRIED])
    if loose and (widths[best] <= 1 or (best == "," and NUMBERS_APART.search(lines))):
        return BLANKS
    if widths[best] > 1:
        return best
    return next((mark for mark in marks if mark in header), marks[0])


def _width(text: str, separator: str, lines: int = LINES_TRIED) -> int:
    """Returns the number of fields that the first lines have with a separator, 0 if it varies."""
    reader = csv.reader(io.StringIO(text), delimiter=separator)
    try:
        widths = {len(row) for row in islice(reader, lines) if row}
    except csv.Error:
        return 0
    return widths.pop() if len(widths) == 1 else 0


def _fields(lines: Iterable[str], separator: str, subject: str) -> list[str]:
    """Returns the fields of the first line, without blanks around them."""
    try:
        first = next(csv.reader(lines, delimiter=separator), [])
    except csv.Error as error:
        raise FileError(f"the header of {subject} cannot be read: {error}.") from None
    refuse_wide(len(first), subject)
    return [field.strip() for field in first]


def _is_number(field: str) -> bool:
    return all_numbers([field.replace(",", ".")])


def header_of(names: list[str], subject: str) -> list[str]:
    """Returns the fields of the first line; raises an error if they are no names of columns."""
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
