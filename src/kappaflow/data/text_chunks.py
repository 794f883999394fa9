"""Reads CSV and TSV files in chunks of records, with column types from the whole file."""

import functools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from kappaflow.data.chunks import Chunks, OnRows
from kappaflow.data.delimited import (
    header_of,
    in_narwhals,
    in_utf8,
    lines_of_rows,
    name_of_row,
    separator_of,
    strings_of,
    text_column,
    unclosed,
)
from kappaflow.data.files import explained
from kappaflow.data.raw import COUNTED, Column, Progression, RawTable, collect, progression
from kappaflow.data.text_numbers import Facts, Kind, cleaned, facts_of, kinds_to_read, of_kind

if TYPE_CHECKING:
    import polars as pl

BYTES_AT_ONCE = 2**22
BYTES_OF_START = 10**6  # bytes from which the separator is detected
NEWLINE, QUOTE, RETURN = b'\n"\r'


@dataclass(frozen=True)
class Cuts:
    """Byte positions at which a text file is cut into chunks.

    Attributes:
        places: Start of each chunk in bytes, and the end of the last. The first is the end of the
            header.
        lines: Number of lines before each chunk.
        rows: Number of records after the header.
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


def _continued(
    before: Progression | None, facts: Facts, numbers: "pl.Series", *, is_first: bool
) -> Progression | None:
    """Returns the progression of a column extended by one chunk; None if it is not one."""
    if facts.counts["plain"] < facts.rows or not (is_first or before):
        return None
    if progression(numbers.head(COUNTED).to_numpy()) is None:
        return None
    new = progression(numbers.to_numpy())
    return new if before is None else before.then(new)


class TextChunks(Chunks):
    """Reads a csv or tsv file in chunks, after one pass that determines the column types."""

    def _open(self) -> int:
        if self.path.stat().st_size <= 2 * self.size:  # a row has a character and a line end
            return 0
        cuts = cuts_of(self.path, self.size)
        if cuts is None or cuts.rows <= self.size:
            return 0
        self._cuts = cuts
        self._first = self._bytes(0, cuts.places[0])
        header = in_utf8(self._first, self.subject)
        self._header = header_of(header, self._separator, self.subject)
        self._kept: list[tuple[int, Column, Kind]] = []
        return cuts.rows

    def _width(self) -> int:
        with self.path.open("rb") as file:
            line = file.readline(BYTES_AT_ONCE).decode(errors="replace")
        return line.count(self._separator) + 1

    @functools.cached_property
    def _separator(self) -> str:
        if self.path.suffix.lower() == ".tsv":
            return "\t"
        return separator_of(self._bytes(0, BYTES_OF_START).decode("utf-8-sig", errors="replace"))

    def suspects(self, on_rows: OnRows) -> Iterator[int]:
        expected = {"", *(self.asked or self._header), *self.context} - {*self.exclude}
        facts = dict.fromkeys(range(len(self._header)), Facts())  # of all: see `kinds_of`
        running: dict[int, Progression | None] = {}
        found = []
        for chunk in range(len(self)):
            with explained(self.path, self.subject):
                frame = self._strings(chunk)
            gaps = False
            for place in facts:
                new, numbers = facts_of(cleaned(frame.to_series(place), self.options))
                facts[place] += new
                if self._header[place] in expected:
                    gaps |= new.counts["plain"] < new.rows or not numbers.is_finite().all()
                first = chunk == 0
                running[place] = _continued(running.get(place), new, numbers, is_first=first)
            found += [chunk] if gaps else []
            on_rows(self.rows_of(chunk))
        self._kept = list(self._columns(facts, running))
        self._settle()
        yield from found

    def _columns(
        self, facts: dict[int, Facts], running: dict[int, Progression | None]
    ) -> Iterator[tuple[int, Column, Kind]]:
        """Yields the index, the description and the kind of each column."""
        of_all = list(facts.values())
        kinds = kinds_to_read(self._header, of_all, self.options)
        count = 0
        for place, (name, known, kind) in enumerate(zip(self._header, of_all, kinds, strict=True)):
            if not (name or known.counts["present"]):
                continue
            count += 1
            column = text_column(
                name or f"column_{count}",
                known,
                kind,
                subject=self.subject,
                decimal=self.options.decimal,
                name_row=self._name_of_row,
                is_first=not name and count == 1,
            )
            yield place, replace(column, progression=running.get(place)), kind

    def _name_of_row(self, row: int) -> str:
        """Returns the name of a row (counted from 1), such as "line 4"."""
        chunk, row = divmod(row - 1, self.size)
        lines = lines_of_rows(
            self._text(chunk), self.rows_of(chunk), lines_before=self._lines_before(chunk)
        )
        return name_of_row(row + 1, lines)

    def _head(self) -> RawTable:
        return collect([column for _, column, _ in self._kept], self.source, self.subject)

    def _raw(self, place: int) -> RawTable:
        import polars as pl

        expected = {*self.columns, *self.context, *self.options.texts}
        kept = [one for one in self._kept if one[1].name in expected]
        text = self._text(place)
        frame = pl.read_csv(
            text.encode(),
            separator=self._separator,
            infer_schema=False,
            columns=[at for at, _, _ in kept],
        )
        series = [
            one if column.name in self.options.texts else of_kind(cleaned(one, self.options), kind)
            for one, (_, column, kind) in zip(frame.get_columns(), kept, strict=True)
        ]
        columns = [
            Column(column.name, in_narwhals(one))
            for one, (_, column, _) in zip(series, kept, strict=True)
        ]
        lines = lines_of_rows(text, frame.height, lines_before=self._lines_before(place))
        return collect(columns, self.source, self.subject, lines)

    def _strings(self, place: int) -> "pl.DataFrame":
        """Returns all columns of a chunk as text; errors name the line of the file."""
        frame = strings_of(
            self._text(place),
            self._separator,
            self._header,
            self.subject,
            lines_before=self._lines_before(place),
        )
        if frame.height != self.rows_of(place):
            raise unclosed(self.subject)
        return frame

    def _text(self, place: int) -> str:
        before = self._lines_before(place)
        body = self._bytes(self._cuts.places[place], self._cuts.places[place + 1])
        text = in_utf8(self._first + body, self.subject, lines_before=before)
        return text if text.endswith("\n") else text + "\n"

    def _lines_before(self, place: int) -> int:
        """Returns the number of lines between the header and a chunk."""
        return self._cuts.lines[place] - self._cuts.lines[0]

    def _bytes(self, start: int, end: int) -> bytes:
        with self.path.open("rb") as file:
            file.seek(start)
            return file.read(end - start)
