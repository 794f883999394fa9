"""Reads CSV and TSV, whole or in chunks, as text first, so that messages can name lines.

polars splits the records and converts the texts. The files are cut into chunks here, because
polars gives neither the position nor the line of a record: any chunk can then be read without
those before it.
"""

import csv
import io
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from kappaflow.data.raw import AS_USUAL, Column, RawTable, ReadOptions, collect, refuse_wide
from kappaflow.data.table import IntArray
from kappaflow.data.text_numbers import (
    Facts,
    Kind,
    cleaned,
    facts_of,
    in_narwhals,
    kinds_to_read,
    of_kind,
    text_column,
)
from kappaflow.errors import DataError, FileError
from kappaflow.options import option

if TYPE_CHECKING:
    import polars as pl

BYTES_AT_ONCE = 2**22
START = 10**6  # characters from which separator and header are found
NEWLINE, QUOTE, RETURN = b'\n"\r'
SEPARATORS = ",;\t"
LINES_TRIED = 5  # lines by which the separator is found


class TextReader:
    """Reads the chunks of a text table: first `look_at` each, then `settle`, then `read` any.

    `text_of` returns the header and the records of a chunk as text, and the number of lines of the
    file between the two. `columns` has the columns that have a name or a value, each with one
    empty value of its type; it is known once `settle` has been called.
    """

    def __init__(
        self,
        text_of: Callable[[int], tuple[str, int]],
        header: list[str],
        separator: str,
        subject: str,
        options: ReadOptions,
    ) -> None:
        self._text_of, self._subject, self._options = text_of, subject, options
        self.header, self._separator = header, separator
        self._facts = [Facts()] * len(header)
        self._known: list[tuple[int, Kind]] = []
        self.columns: list[Column] = []

    def strings(self, place: int) -> "pl.DataFrame":
        """Returns all columns of a chunk as text."""
        text, before = self._text_of(place)
        return strings_of(text, self._separator, self.header, self._subject, lines_before=before)

    def look_at(self, frame: "pl.DataFrame") -> tuple[list[Facts], list["pl.Series"]]:
        """Returns facts and cleaned texts of a chunk, and adds the facts to those of the table."""
        texts = [cleaned(series, self._options) for series in frame]
        facts = [facts_of(text, named) for text, named in texts]
        self._facts = [total + new for total, new in zip(self._facts, facts, strict=True)]
        return facts, [text for text, _ in texts]

    def settle(self, name_row: Callable[[int], str]) -> None:
        """Determines the columns; `name_row` names a row, counted from 1, such as "line 4"."""
        kinds = kinds_to_read(self.header, self._facts, self._options)
        columns = zip(self.header, self._facts, kinds, strict=True)
        for place, (name, facts, kind) in enumerate(columns):
            if name or facts.counts["present"]:
                column = text_column(
                    name or f"column_{len(self.columns) + 1}",
                    facts,
                    kind,
                    subject=self._subject,
                    options=self._options,
                    name_row=name_row,
                    is_first=not name and not self.columns,
                )
                self.columns.append(column)
                self._known.append((place, kind))

    def read(self, place: int, source: str, names: set[str]) -> RawTable:
        """Returns the named columns of a chunk."""
        import polars as pl

        text, before = self._text_of(place)
        places = [at for column, at, _ in self._all() if column.name in names]
        frame = pl.read_csv(
            text.encode(), separator=self._separator, infer_schema=False, columns=places
        )
        cells = dict(zip(places, frame, strict=True))
        texts = {at: cleaned(series, self._options)[0] for at, series in cells.items()}
        lines = lines_of_rows(text, frame.height, lines_before=before)
        return self.converted(cells, texts, source, lines)

    def converted(
        self,
        cells: Mapping[int, "pl.Series"],
        texts: Mapping[int, "pl.Series"],
        source: str,
        lines: IntArray | None,
    ) -> RawTable:
        """Returns columns from cells and from the same cells as cleaned texts, both by place."""
        columns = []
        for column, at, kind in self._all():
            if at in cells:
                is_kept = column.name in self._options.texts
                series = cells[at] if is_kept else of_kind(texts[at], kind)
                columns.append(replace(column, series=in_narwhals(series)))
        return collect(columns, source, self._subject, lines)

    def _all(self) -> Iterator[tuple[Column, int, Kind]]:
        """Yields each column, its place in the file and its kind."""
        for column, (place, kind) in zip(self.columns, self._known, strict=True):
            yield column, place, kind


def read_delimited(
    data: bytes,
    source: str,
    subject: str,
    separator: str | None = None,
    options: ReadOptions = AS_USUAL,
) -> RawTable:
    """Returns the columns of a text with a header line, which is one chunk."""
    text = decoded(data, subject)
    separator = separator or separator_of(text, options.decimal)
    header = header_of(text, separator, subject)
    reader = TextReader(lambda _: (text, 0), header, separator, subject, options)
    frame = reader.strings(0)
    lines = lines_of_rows(text, frame.height)
    _, texts = reader.look_at(frame)
    reader.settle(lambda row: name_of_row(row, lines))
    return reader.converted(dict(enumerate(frame)), dict(enumerate(texts)), source, lines)


@dataclass(frozen=True)
class Cuts:
    """Byte positions at which a text file is cut into chunks.

    `places` are the starts of the chunks, and the end of the last. `lines` are the numbers of
    lines before each chunk, and `rows` is the number of records after the header.
    """

    places: tuple[int, ...]
    lines: tuple[int, ...]
    rows: int


def cuts_of(path: Path, size: int) -> Cuts | None:
    """Returns where to cut a text into chunks of `size` records; None if a quote stays open.

    A line end within quotes does not end a record. Empty lines at the end of the file are ignored.
    """
    places, lines = [], []
    start, seen_lines, records, is_open = 0, 0, 0, 0
    end = _end_of(path)
    with path.open("rb") as file:
        while block := file.read(min(BYTES_AT_ONCE, end - start)):
            read = np.frombuffer(block, np.uint8)
            newlines, quotes = np.flatnonzero(read == NEWLINE), np.flatnonzero(read == QUOTE)
            before = np.searchsorted(quotes, newlines) + is_open
            ends = newlines[before % 2 == 0]
            for last in ends[-records % size :: size].tolist():
                places.append(start + last + 1)
                lines.append(seen_lines + int(np.searchsorted(newlines, last)) + 1)
            records += len(ends)
            seen_lines += len(newlines)
            is_open = (is_open + len(quotes)) % 2
            start += len(block)
    return None if is_open else Cuts((*places, end), tuple(lines), records)


def _end_of(path: Path) -> int:
    """Returns the length of a file in bytes without its trailing line ends."""
    end = path.stat().st_size
    with path.open("rb") as file:
        while end:
            start = max(0, end - BYTES_AT_ONCE)
            file.seek(start)
            kept = len(file.read(end - start).rstrip(bytes((NEWLINE, RETURN))))
            if kept:
                return start + kept
            end = start
    return end


def decoded(data: bytes, subject: str) -> str:
    """Returns UTF-8 as text with one kind of line end; raises FileError for anything else."""
    text = in_utf8(data, subject)
    if "\n" not in text:
        text = text.replace("\r", "\n")
    if not text.strip():
        raise FileError(f"{subject} is empty: it should hold a header line and rows of numbers.")
    return text.rstrip("\r\n") + "\n"


def in_utf8(data: bytes, subject: str, *, lines_before: int = 0) -> str:
    """Returns UTF-8 as text; the error names another encoding, and the line of the whole file."""
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


def separator_of(text: str, decimal: str | None = None) -> str:
    """Returns the separator that gives the first lines the most fields, as many each.

    If none does, it is the first of comma, semicolon and tab in the header. A decimal comma that
    the user named is no separator, unless it is one in the header.
    """
    start = text[:START]
    header = text.split("\n", 1)[0]
    is_single = decimal == "," and _width(start, ",", lines=1) == 1
    marks = SEPARATORS.replace(",", "") if is_single else SEPARATORS
    widths = {mark: _width(start, mark) for mark in marks}
    best = max(marks, key=widths.__getitem__)
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


def header_of(text: str, separator: str, subject: str) -> list[str]:
    """Returns the names in the first line; raises an error if it is no header."""
    try:
        first = next(csv.reader(io.StringIO(text[:START]), delimiter=separator))
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
    None if rows cannot be separated.
    """
    read = np.frombuffer(text.encode(), np.uint8)
    newlines, quotes = np.flatnonzero(read == NEWLINE), np.flatnonzero(read == QUOTE)
    ends = np.flatnonzero(np.searchsorted(quotes, newlines) % 2 == 0)
    return ends[:-1] + 2 + lines_before if len(ends) == rows + 1 else None


def name_of_row(row: int, lines: IntArray | None) -> str:
    """Returns "line 4" if the lines of rows are known, else "row 3"; rows count from 1."""
    return f"row {row}" if lines is None else f"line {lines[row - 1]}"


def strings_of(
    text: str, separator: str, header: list[str], subject: str, *, lines_before: int = 0
) -> "pl.DataFrame":
    """Returns text with a header as columns of text; errors count `lines_before` more lines."""
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
    """Returns the error for text that cannot be split into rows."""
    return FileError(
        f"{subject} cannot be read as a table in text form, most likely because a "
        "quote is never closed."
    )


def _refuse_ragged(text: str, separator: str, width: int, subject: str, lines_before: int) -> None:
    """Raises FileError for the first row that has more or fewer fields than the header."""
    reader = csv.reader(io.StringIO(text), delimiter=separator)
    try:
        for row in reader:
            if row and len(row) != width:
                fields = "1 field" if len(row) == 1 else f"{len(row)} fields"
                line = lines_before + reader.line_num
                is_single = width == 1 and separator == ","
                comma = (
                    f", or if it is a decimal comma, name it ({option('decimal', ',')})"
                    * is_single
                )
                raise FileError(
                    f"line {line} of {subject} has {fields} where the header "
                    f"has {width}: correct that line, or quote the text that holds the separator "
                    f"'{separator}'{comma}."
                )
    except csv.Error as error:
        line = lines_before + reader.line_num
        raise FileError(f"line {line} of {subject} cannot be read: {error}.") from None
