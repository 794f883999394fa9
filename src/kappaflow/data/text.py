"""Reads CSV and TSV as text first, so that messages can name lines.

polars splits the records. A table larger than memory is converted once to a parquet file of texts,
which is then read a chunk of rows at a time; a table in memory is a single chunk.
"""

import codecs
import csv
import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from kappaflow.data.limits import refuse_wide
from kappaflow.data.naming import IntArray
from kappaflow.data.raw import READ_ALL, Column, RawTable, Reading, collect
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
SEPARATORS = ",;\t"
LINES_TRIED = 5  # lines by which the separator is found
LINE_ENDS = "line ends"  # a column: how many there are within the quotes of a row


class TextTable:
    """The rows of a table in text form; `settle` has to be called before `read`.

    `scan` has the columns of `header` as texts, named 0, 1, ..., and `LINE_ENDS`. `columns`
    has the columns that have a name or a value, each with one empty value of its type.
    """

    def __init__(
        self,
        scan: "pl.LazyFrame",
        rows: int,
        header: list[str],
        subject: str,
        reading: Reading,
        size: int | None = None,
    ) -> None:
        self.scan, self.rows, self.size = scan, rows, size or rows
        self.header, self.subject, self.reading = header, subject, reading
        self.columns: list[Column] = []
        self._read_as: dict[str, tuple[str, Kind]] = {}
        self._line_of: list[int] = [2 + sum(name.count("\n") for name in header)]

    def settle(self, on_rows: Callable[[int], None] = lambda rows: None) -> None:
        """Determines the columns; `on_rows` is called with the number of rows of each chunk."""
        facts = [Facts()] * len(self.header)
        for start in range(0, self.rows, self.size):
            chunk = self._chunk(start)
            facts = [
                before + facts_of(*cleaned(chunk[str(index)], self.reading))
                for index, before in enumerate(facts)
            ]
            self._line_of.append(self._line_of[-1] + chunk.height + int(chunk[LINE_ENDS].sum()))
            on_rows(chunk.height)
        kinds = kinds_to_read(self.header, facts, self.reading)
        for index, (name, kind) in enumerate(zip(self.header, kinds, strict=True)):
            if name or facts[index].counts["present"]:
                column = text_column(
                    name or f"column_{len(self.columns) + 1}",
                    facts[index],
                    kind,
                    subject=self.subject,
                    reading=self.reading,
                    name_row=self._name_row,
                    is_first=not name and not self.columns,
                )
                self.columns.append(column)
                self._read_as[column.name] = str(index), kind

    def read(self, start: int, source: str, names: Sequence[str] | None = None) -> RawTable:
        """Returns the chunk that begins at a row: the named columns, or all."""
        chunk, columns = self._chunk(start), []
        for column in self.columns:
            if names is None or column.name in names:
                position, kind = self._read_as[column.name]
                values = chunk[position]
                if column.name not in self.reading.texts:
                    values = of_kind(cleaned(values, self.reading)[0], kind)
                columns.append(replace(column, series=in_narwhals(values)))
        return collect(columns, source, self.subject, self._lines(chunk, start))

    def _chunk(self, start: int) -> "pl.DataFrame":
        return self.scan.slice(start, min(self.size, self.rows - start)).collect()

    def _lines(self, chunk: "pl.DataFrame", start: int) -> IntArray:
        """Returns the line on which each row of a chunk starts, counted from 1."""
        ends = chunk[LINE_ENDS].to_numpy().astype(np.int64)
        first = self._line_of[start // self.size]
        return first + np.arange(len(ends)) + np.cumsum(ends) - ends

    def _name_row(self, row: int) -> str:
        """Returns the name of a row, counted from 1, such as "line 4"."""
        start = (row - 1) // self.size * self.size
        return f"line {self._lines(self._chunk(start), start)[row - 1 - start]}"


def read_delimited(
    data: bytes,
    source: str,
    subject: str,
    separator: str | None = None,
    reading: Reading = READ_ALL,
) -> RawTable:
    """Returns the columns of a text with a header line."""
    text = decoded(data, subject)
    layout = _Layout.of(text, lambda: io.StringIO(text), subject, reading, separator)
    with layout.named_lines():
        frame = layout.cells(io.BytesIO(text.encode())).collect()
    layout.check(frame.lazy(), frame.height)
    table = TextTable(frame.lazy(), frame.height, layout.header, subject, reading)
    table.settle()
    return table.read(0, source)


def convert_text(
    path: Path,
    converted: Path,
    subject: str,
    reading: Reading,
    size_of: Callable[[int], int],
) -> TextTable:
    """Returns the table of a text file, which is converted to a parquet file of texts.

    `size_of` returns the number of rows of a chunk for a number of columns.
    """
    import polars as pl

    def lines() -> Iterator[str]:
        with path.open(encoding="utf-8-sig", newline="") as file:
            yield from file

    with path.open("rb") as file:
        check_text(file, subject)
        start = _start_of(file)
    if "\n" not in start:
        raise ValueError(f"{subject} has lines that polars does not see")
    separator = "\t" if path.suffix.lower() == ".tsv" else None
    layout = _Layout.of(start, lines, subject, reading, separator)
    with layout.named_lines():
        layout.cells(path).sink_parquet(converted, compression="lz4")
    scan = pl.scan_parquet(converted, glob=False)
    rows = scan.select(pl.len()).collect().item() - _blank_lines_at_end(path)
    layout.check(scan.head(rows), rows)
    return TextTable(scan, rows, layout.header, subject, reading, size_of(len(layout.header)))


@dataclass(frozen=True)
class _Layout:
    """How a text is split into cells; `lines` returns its lines once more, to name a bad one."""

    lines: Callable[[], Iterable[str]]
    separator: str
    header: list[str]
    subject: str

    @classmethod
    def of(
        cls,
        start: str,
        lines: Callable[[], Iterable[str]],
        subject: str,
        reading: Reading,
        separator: str | None,
    ) -> "_Layout":
        """Returns the layout that the first lines of a text have."""
        separator = separator or separator_of(start, reading.decimal)
        return cls(lines, separator, header_of(start, separator, subject), subject)

    def cells(self, source: Path | io.BytesIO) -> "pl.LazyFrame":
        """Returns columns of texts, named 0, 1, ..., and the line ends in each row."""
        import polars as pl

        scan = pl.scan_csv(source, separator=self.separator, infer_schema=False, glob=False)
        names = scan.collect_schema().names()
        if len(names) != len(self.header):
            raise pl.exceptions.ComputeError("the rows have another width than the header")
        line_ends = pl.sum_horizontal(pl.all().str.count_matches("\n", literal=True))
        cells = [pl.col(name).alias(str(index)) for index, name in enumerate(names)]
        return scan.select(*cells, line_ends.alias(LINE_ENDS))

    @contextmanager
    def named_lines(self) -> Iterator[None]:
        """Turns an error of polars into one that names the line."""
        from polars.exceptions import PolarsError

        try:
            yield
        except PolarsError:
            self._refuse_ragged()
            raise FileError(
                f"{self.subject} cannot be read as a table in text form, most likely because a "
                "quote is never closed."
            ) from None

    def check(self, cells: "pl.LazyFrame", rows: int) -> None:
        """Raises an error if there are no rows, or a row is shorter than the header."""
        import polars as pl

        last = pl.col(str(len(self.header) - 1))
        if rows > 0 and cells.select(last.null_count()).collect().item():
            self._refuse_ragged()
        if rows <= 0:
            raise DataError(f"{self.subject} has a header but no rows: there is nothing to fit.")

    def _refuse_ragged(self) -> None:
        """Raises FileError for the first row that has more or fewer fields than the header."""
        reader, width = csv.reader(self.lines(), delimiter=self.separator), len(self.header)
        try:
            row = next((row for row in reader if row and len(row) != width), None)
        except csv.Error as error:
            raise FileError(
                f"line {reader.line_num} of {self.subject} cannot be read: {error}."
            ) from None
        if row is None:
            return
        fields = "1 field" if len(row) == 1 else f"{len(row)} fields"
        comma = f", or if it is a decimal comma, name it ({option('decimal', ',')})"
        raise FileError(
            f"line {reader.line_num} of {self.subject} has {fields} where the header has {width}: "
            f"correct that line, or quote the text that holds the separator '{self.separator}'"
            f"{comma * (width == 1 and self.separator == ',')}."
        )


def _start_of(file: BinaryIO) -> str:
    """Returns the first lines of a text file."""
    file.seek(0)
    return file.read(START).decode("utf-8-sig", errors="replace").replace("\r\n", "\n")


def _blank_lines_at_end(path: Path) -> int:
    """Returns the number of empty lines at the end of a text file, which are not rows."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - START))
        end = file.read()
    return max(0, end.count(b"\n", len(end.rstrip(b"\r\n"))) - 1)


def decoded(data: bytes, subject: str) -> str:
    """Returns UTF-8 as text with one kind of line end; raises FileError for anything else."""
    check_text(io.BytesIO(data), subject)
    text = data.decode("utf-8-sig")
    if "\n" not in text:
        text = text.replace("\r", "\n")
    if not text.strip():
        raise FileError(f"{subject} is empty: it should hold a header line and rows of numbers.")
    return text.rstrip("\r\n") + "\n"


def check_text(file: BinaryIO, subject: str) -> None:
    """Raises FileError for UTF-16, binary data, or a byte that is not UTF-8, with its line."""
    decoder, line = codecs.getincrementaldecoder("utf-8")(), 1
    if file.read(2) in (b"\xff\xfe", b"\xfe\xff"):
        raise FileError(f"{subject} is UTF-16 text: save it as UTF-8.")
    file.seek(0)
    block = b"start"
    while block:
        block = file.read(BYTES_AT_ONCE)
        if b"\0" in block:
            raise FileError(f"{subject} holds binary data, not a table in text form.")
        try:
            decoder.decode(block, final=not block)
        except UnicodeDecodeError as error:
            line += error.object.count(b"\n", 0, error.start)
            raise FileError(
                f"{subject} is not UTF-8 text (byte 0x{error.object[error.start]:02x} in line "
                f"{line}): save it as UTF-8."
            ) from None
        line += block.count(b"\n")


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
