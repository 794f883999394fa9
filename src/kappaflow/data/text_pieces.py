"""CSV and TSV a piece of whole records at a time: what a column holds is that of all of them."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from kappaflow.data.delimited import (
    Facts,
    cleaned,
    facts_of,
    header_of,
    in_utf8,
    lines_of_rows,
    name_of_row,
    of_kind,
    separator_of,
    strings_of,
    unclosed,
)
from kappaflow.data.files import explained
from kappaflow.data.pieces import Pieces, Told
from kappaflow.data.raw import Column, Raw, collect

if TYPE_CHECKING:
    import polars as pl

BYTES_AT_ONCE = 2**22
NEWLINE, QUOTE, RETURN = b'\n"\r'


@dataclass(frozen=True)
class Cuts:
    """Where the pieces of a text begin, and where the last one ends.

    Attributes:
        places: In bytes; the first is the end of the header.
        lines: How many lines come before each.
        rows: How many records there are behind the header.
    """

    places: tuple[int, ...]
    lines: tuple[int, ...]
    rows: int


def cuts_of(path: Path, size: int) -> Cuts | None:
    """Returns where to cut a text into pieces of so many records; None if a quote stays open.

    A line end within quotes ends no record. Empty lines at the end of the file count for nothing.
    """
    places, lines = [], []
    start, seen_lines, records, is_open = 0, 0, 0, 0
    end = _end_of(path)
    with path.open("rb") as file:
        while chunk := file.read(min(BYTES_AT_ONCE, end - start)):
            read = np.frombuffer(chunk, np.uint8)
            newlines, quotes = np.flatnonzero(read == NEWLINE), np.flatnonzero(read == QUOTE)
            before = np.searchsorted(quotes, newlines) + is_open
            ends = newlines[before % 2 == 0]
            for last in ends[-records % size :: size].tolist():
                places.append(start + last + 1)
                lines.append(seen_lines + int(np.searchsorted(newlines, last)) + 1)
            records += len(ends)
            seen_lines += len(newlines)
            is_open = (is_open + len(quotes)) % 2
            start += len(chunk)
    return None if is_open else Cuts((*places, end), tuple(lines), records)


def _end_of(path: Path) -> int:
    """Returns where the line ends at the end of a file begin."""
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


class TextPieces(Pieces):
    """A csv or tsv file, gone through once to learn what its columns hold."""

    def _open(self) -> int:
        if self.path.stat().st_size <= 2 * self.size:  # a row has a character and a line end
            return 0
        cuts = cuts_of(self.path, self.size)
        if cuts is None or cuts.rows <= self.size:
            return 0
        self._cuts = cuts
        self._first = self._bytes(0, cuts.places[0])
        header = in_utf8(self._first, self.subject)
        self._separator = "\t" if self._is_tsv else separator_of(header)
        self._header = header_of(header, self._separator, self.subject)
        self._kept: list[tuple[int, Column, Facts]] = []
        return cuts.rows

    def _width(self) -> int:
        with self.path.open("rb") as file:
            line = file.readline(BYTES_AT_ONCE).decode(errors="replace")
        return line.count("\t" if self._is_tsv else separator_of(line)) + 1

    @property
    def _is_tsv(self) -> bool:
        return self.path.suffix.lower() == ".tsv"

    def suspects(self, told: Told) -> Iterator[int]:
        wanted = {"", *(self.asked or self._header), *self.context} - {*self.exclude}
        facts = {place: Facts() for place, name in enumerate(self._header) if name in wanted}
        found = []
        for piece in range(len(self)):
            with explained(self.path, self.subject):
                frame = self._strings(piece)
            gaps = False
            for place in facts:
                new, numbers = facts_of(cleaned(frame.to_series(place)))
                facts[place] += new
                gaps |= new.understood < new.rows or not numbers.is_finite().all()
            found += [piece] if gaps else []
            told(self.rows_of(piece))
        self._kept = list(self._columns(facts))
        self._settle()
        yield from found

    def _columns(self, facts: dict[int, Facts]) -> Iterator[tuple[int, Column, Facts]]:
        """Yields the place of each column, what it is, and the facts that make it that."""
        import narwhals as nw
        import polars as pl

        kinds = {"number": pl.Float64, "truth": pl.Boolean, "text": pl.String}
        count = 0
        for place, name in enumerate(self._header):
            of_this = facts.get(place, Facts())
            if not (name or of_this.present):
                continue
            count += 1
            series = pl.Series([None], dtype=kinds[of_this.kind])
            column = Column(
                name or f"column_{count}",
                nw.from_native(series, series_only=True),
                self._place_of(of_this.stray),
            )
            yield place, column, of_this

    def _place_of(self, stray: tuple[int, str] | None) -> tuple[str, str] | None:
        """Returns a stray with its line instead of its row."""
        if stray is None:
            return None
        piece, row = divmod(stray[0] - 1, self.size)
        lines = lines_of_rows(
            self._text(piece), self.rows_of(piece), lines_before=self._lines_before(piece)
        )
        return name_of_row(row + 1, lines), stray[1]

    def _head(self) -> Raw:
        return collect([column for _, column, _ in self._kept], self.source, self.subject)

    def _raw(self, place: int) -> Raw:
        import narwhals as nw
        import polars as pl

        wanted = {*self.columns, *self.context}
        kept = [one for one in self._kept if one[1].name in wanted]
        text = self._text(place)
        frame = pl.read_csv(
            text.encode(),
            separator=self._separator,
            infer_schema=False,
            columns=[at for at, _, _ in kept],
        )
        series = [
            of_kind(cleaned(one), facts.kind)
            for one, (_, _, facts) in zip(frame.get_columns(), kept, strict=True)
        ]
        columns = [
            Column(column.name, nw.from_native(one, series_only=True))
            for one, (_, column, _) in zip(series, kept, strict=True)
        ]
        lines = lines_of_rows(text, frame.height, lines_before=self._lines_before(place))
        return collect(columns, self.source, self.subject, lines)

    def _strings(self, place: int) -> "pl.DataFrame":
        """Returns all columns of a piece as text, or says which line of the file is wrong."""
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
        """Returns how many lines of the file lie between the header and a piece."""
        return self._cuts.lines[place] - self._cuts.lines[0]

    def _bytes(self, start: int, end: int) -> bytes:
        with self.path.open("rb") as file:
            file.seek(start)
            return file.read(end - start)
