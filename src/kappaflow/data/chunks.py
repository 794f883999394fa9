"""Tables on disk that are read a chunk at a time, with the numbers that `load_table` reads."""

import functools
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from kappaflow.data.counting import COUNTED, Progression, progression
from kappaflow.data.files import explained
from kappaflow.data.load import table_of
from kappaflow.data.raw import (
    AS_USUAL,
    Column,
    RawTable,
    ReadOptions,
    array_columns,
    collect,
    from_frame,
    missing_note,
    named_missing,
    text_example,
    without_missing,
)
from kappaflow.data.table import Table
from kappaflow.data.text import (
    TextReader,
    cuts_of,
    header_of,
    in_utf8,
    lines_of_rows,
    name_of_row,
    separator_of,
    unclosed,
)

if TYPE_CHECKING:
    import polars as pl

CHUNK_ROWS = 262_144
BYTES_OF_START = 10**6  # from which the separator of a text is found
CHUNK_NUMBERS = 2**24  # of all columns, so that chunks of wide tables have fewer rows

OnRows = Callable[[int], None]


def chunk_size(width: int, multiple: int = 1) -> int:
    """Returns the number of rows of a chunk: at least one, and a multiple of `multiple`."""
    rows = min(CHUNK_ROWS, CHUNK_NUMBERS // max(1, width))
    return max(1, rows // multiple) * multiple


class Chunks(ABC):
    """A table on disk of several chunks; all but the last have `size` rows.

    Contract: the tables of all chunks, concatenated, equal what `load_table` returns with the same
    columns and context: values, names, and row numbers of the whole file.

    The columns to model, those left out, and notes on both are known once `suspects` has begun.
    `warnings` are the notes that keep the verdict on a fit from being green.
    """

    def __init__(
        self,
        path: Path,
        source: str,
        columns: Sequence[str] | None,
        context: Sequence[str],
        *,
        exclude: Sequence[str] = (),
        multiple: int = 1,
        options: ReadOptions = AS_USUAL,
    ) -> None:
        self.path, self.source, self.subject = path, source, f"'{source}'"
        self.requested = None if columns is None else tuple(columns)
        self.columns, self.context, self.exclude = self.requested or (), tuple(context), exclude
        self.left_out: tuple[str, ...] = ()
        self.notes: tuple[str, ...] = ()
        self.warnings: tuple[str, ...] = ()
        self.options = options
        width = self._width() if columns is None else len(self.columns) + len(self.context)
        self.size = chunk_size(width, multiple)
        self.rows = self._open()

    def __len__(self) -> int:
        return -(-self.rows // self.size)

    def rows_of(self, place: int) -> int:
        """Returns the number of rows of a chunk, counted from 0."""
        return min(self.size, self.rows - place * self.size)

    def read(self, place: int) -> Table:
        """Returns a chunk, counted from 0."""
        with explained(self.path, self.subject):
            table = table_of(
                self._raw(place),
                columns=self.columns,
                context=self.context,
                texts=self.options.texts,
            )
        return replace(table, rows=table.rows + place * self.size, notes=())

    def suspects(self, on_rows: OnRows) -> Iterator[int]:
        """Yields the numbers of the chunks that may hold a missing or infinite value, ascending.

        It has to run before the first chunk is read, and raises the errors of `load_table` about
        columns. `on_rows` is called with the number of rows examined since the last call.
        """
        with explained(self.path, self.subject):
            self._settle()
        for place in range(len(self)):
            yield place
            on_rows(self.rows_of(place))

    @property
    def _used(self) -> set[str]:
        return {*self.columns, *self.context, *self.options.texts}

    @abstractmethod
    def _open(self) -> int:
        """Returns the number of rows of the file; none for a file of one chunk of text."""

    @abstractmethod
    def _width(self) -> int:
        """Returns the approximate number of columns of the file."""

    @abstractmethod
    def _raw(self, place: int) -> RawTable:
        """Returns the required columns of a chunk, and maybe others."""

    @abstractmethod
    def _head(self) -> RawTable:
        """Returns one row of all columns, which have the types of the whole table."""

    def _settle(self) -> None:
        """Determines the modeled columns, or raises an error about the requested ones."""
        head = table_of(
            self._head(),
            columns=self.requested,
            exclude=self.exclude,
            context=self.context,
            texts=self.options.texts,
        )
        self.columns, self.left_out = head.columns, head.left_out
        self.notes, self.warnings = head.notes, head.warnings


class TypedChunks(Chunks):
    """A file that stores the types of its columns, so that no pass is needed to find them."""

    @abstractmethod
    def _stored(self, place: int) -> RawTable:
        """Returns the required columns of a chunk as the file stores them."""

    def _raw(self, place: int) -> RawTable:
        return without_missing(self._stored(place), self.options)

    def _settle(self) -> None:
        super()._settle()
        if self.options.missing and not self.options.lenient:
            self.notes = self._missing_notes() + self.notes

    def _missing_notes(self) -> tuple[str, ...]:
        """Returns a note on each column with values that the user named as missing."""
        counts: dict[str, int] = {}
        firsts: dict[str, str] = {}
        for place in range(len(self)):
            for name, column in self._stored(place).columns.items():
                hit = named_missing(column, self.options)
                if hit is not None and hit.any():
                    firsts.setdefault(name, f"row {place * self.size + hit.argmax() + 1}")
                    counts[name] = counts.get(name, 0) + int(hit.sum())
        return tuple(
            missing_note(name, counts[name], self.options, firsts[name])
            for name in (*self.columns, *self.context)
            if name in counts
        )


class FrameChunks(TypedChunks):
    """A parquet or Arrow file, in which polars can read rows without the rows before them."""

    def _open(self) -> int:
        import polars as pl

        return int(self._scan.select(pl.len()).collect().item())

    def _width(self) -> int:
        return len(self._scan.collect_schema())

    @functools.cached_property
    def _scan(self) -> "pl.LazyFrame":
        import polars as pl

        parquet = self.path.suffix.lower() == ".parquet"
        return (pl.scan_parquet if parquet else pl.scan_ipc)(self.path)

    def _stored(self, place: int) -> RawTable:
        used = self._scan.select([*self.columns, *self.context, *self.options.texts])
        return self._collected(used.slice(place * self.size, self.size))

    def _head(self) -> RawTable:
        head = self._collected(self._scan.head(1))
        columns = head.columns.values()
        if self.requested is None:
            gone = {*self.exclude, *self.context}
            columns = [one if one.name in gone else self._of_all_rows(one) for one in columns]
        return collect(list(columns), self.source, self.subject)

    def _of_all_rows(self, column: Column) -> Column:
        """Returns a column with the facts about all rows that decide whether it is modeled."""
        import polars as pl

        if column.is_number:
            return replace(column, progression=self._running(column.name))
        values = pl.col(column.name)
        facts = {"count": values.count(), "row": pl.arg_where(values.is_not_null()).first()}
        facts["first"] = values.drop_nulls().first()
        ((count, row, first),) = self._scan.select(**facts).collect().rows()
        what = text_example(column.kind, first, f"row {row + 1}", count) if count else column.kind
        return replace(column, what=what)

    def _running(self, name: str) -> Progression | None:
        """Returns the progression that a column of integers forms; None if it forms none."""
        if not self._scan.collect_schema()[name].is_integer():
            return None
        column = self._scan.select(name)

        def of_rows(start: int, count: int) -> Progression | None:
            numbers = column.slice(start, count).collect().to_series().to_numpy()
            return progression(np.asarray(numbers, dtype=np.float64))

        result = of_rows(0, COUNTED) and of_rows(0, self.size)
        for place in range(1, len(self)):
            if result is None:
                return None
            result = result.then(of_rows(place * self.size, self.rows_of(place)))
        return result

    def _collected(self, scan: "pl.LazyFrame") -> RawTable:
        import narwhals as nw

        return from_frame(nw.from_native(scan.collect()), self.source, self.subject)


class ArrayChunks(TypedChunks):
    """An npy file, mapped again for each chunk, so that chunks do not stay in memory."""

    def _open(self) -> int:
        return len(self._mapped())

    def _width(self) -> int:
        return len(array_columns(self._mapped()[:1], self.subject))

    def _mapped(self) -> np.memmap:
        result = np.load(self.path, mmap_mode="r", allow_pickle=False)
        if not isinstance(result, np.memmap) or result.ndim not in (1, 2):
            raise ValueError("this is no array of rows")
        return result

    def _stored(self, place: int) -> RawTable:
        array = self._mapped()
        rows = slice(place * self.size, (place + 1) * self.size)
        names = [column.name for column in array_columns(array[:1], self.subject)]
        places = [i for i, name in enumerate(names) if name in self._used]
        if array.ndim == 1:
            columns = array_columns(np.array(array[rows]), self.subject)
        else:
            result = array_columns(np.array(array[rows, places]), self.subject)
            pairs = zip(places, result, strict=True)
            columns = [replace(column, name=names[i]) for i, column in pairs]
        return collect(columns, self.source, self.subject)

    def _head(self) -> RawTable:
        columns = array_columns(np.array(self._mapped()[:1]), self.subject)
        return collect(columns, self.source, self.subject)


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
        header = header_of(in_utf8(self._first, self.subject), self._separator, self.subject)
        self._reader = TextReader(self._text, header, self._separator, self.subject, self.options)
        return cuts.rows

    def _width(self) -> int:
        with self.path.open("rb") as file:
            line = file.readline(BYTES_OF_START).decode(errors="replace")
        return line.count(self._separator) + 1

    @functools.cached_property
    def _separator(self) -> str:
        if self.path.suffix.lower() == ".tsv":
            return "\t"
        start = self._bytes(0, BYTES_OF_START).decode("utf-8-sig", errors="replace")
        return separator_of(start, self.options.decimal)

    def suspects(self, on_rows: OnRows) -> Iterator[int]:
        header = self._reader.header
        used = {"", *(self.requested or header), *self.context} - {*self.exclude}
        results = []
        for place in range(len(self)):
            with explained(self.path, self.subject):
                frame = self._reader.strings(place)
            if frame.height != self.rows_of(place):
                raise unclosed(self.subject)
            facts, _ = self._reader.look_at(frame)
            pairs = zip(header, facts, strict=True)
            if any(name in used and one.counts["finite"] < one.rows for name, one in pairs):
                results.append(place)
            on_rows(self.rows_of(place))
        self._reader.settle(self._name_of_row)
        self._settle()
        yield from results

    def _name_of_row(self, row: int) -> str:
        """Returns the name of a row (counted from 1), such as "line 4"."""
        place, row = divmod(row - 1, self.size)
        text, before = self._text(place)
        return name_of_row(row + 1, lines_of_rows(text, self.rows_of(place), lines_before=before))

    def _head(self) -> RawTable:
        return collect(self._reader.columns, self.source, self.subject)

    def _raw(self, place: int) -> RawTable:
        return self._reader.read(place, self.source, self._used)

    def _text(self, place: int) -> tuple[str, int]:
        """Returns the header and a chunk as text, and the number of lines between the two."""
        before = self._cuts.lines[place] - self._cuts.lines[0]
        body = self._bytes(self._cuts.places[place], self._cuts.places[place + 1])
        text = in_utf8(self._first + body, self.subject, lines_before=before)
        return text if text.endswith("\n") else text + "\n", before

    def _bytes(self, start: int, end: int) -> bytes:
        with self.path.open("rb") as file:
            file.seek(start)
            return file.read(end - start)
