"""Tables on disk that are read a chunk at a time, with the numbers that `load_table` reads."""

import functools
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from kappaflow.data.files import explained
from kappaflow.data.load import table_of
from kappaflow.data.raw import (
    AS_USUAL,
    COUNTED,
    Progression,
    RawTable,
    ReadOptions,
    array_columns,
    collect,
    from_frame,
    progression,
    without_missing,
)
from kappaflow.data.table import Table

if TYPE_CHECKING:
    import polars as pl

CHUNK_ROWS = 262_144
CHUNK_NUMBERS = 2**24  # of all columns, so that chunks of wide tables have fewer rows

OnRows = Callable[[int], None]


def chunk_size(width: int, multiple: int = 1) -> int:
    """Returns how many rows a chunk has: a multiple of what is computed at once, never none."""
    rows = min(CHUNK_ROWS, CHUNK_NUMBERS // max(1, width))
    return max(1, rows // multiple) * multiple


class Chunks(ABC):
    """A table on disk of several chunks; all but the last have `size` rows.

    Contract: the tables of all chunks, concatenated, equal what `load_table` returns with the same
    columns and context: values, names, and row numbers of the whole file.

    Attributes:
        columns: The columns to model; where all of numbers are asked for, which those are is known
            once `suspects` has begun.
        left_out: The columns that are not used, from then on.
        notes: What there is to know about the columns, one sentence each, from then on.
        warnings: The notes that keep the verdict on a fit from being green.
        rows: How many rows there are.
        size: How many of them a chunk has.
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
        self.asked = None if columns is None else tuple(columns)
        self.columns, self.context, self.exclude = self.asked or (), tuple(context), exclude
        self.left_out: tuple[str, ...] = ()
        self.notes: tuple[str, ...] = ()
        self.warnings: tuple[str, ...] = ()
        self.options = options
        width = self._width() if columns is None else len(self.columns) + len(self.context)
        self.size = chunk_size(width, multiple)
        self.rows = self._open()

    def __len__(self) -> int:
        """Returns the number of chunks."""
        return -(-self.rows // self.size)

    def rows_of(self, place: int) -> int:
        """Returns how many rows a chunk has, counted from 0."""
        return min(self.size, self.rows - place * self.size)

    def read(self, place: int) -> Table:
        """Returns a chunk, counted from 0."""
        with explained(self.path, self.subject):
            raw = without_missing(self._raw(place), self.options)
            table = table_of(
                raw, columns=self.columns, context=self.context, texts=self.options.texts
            )
        return replace(table, rows=table.rows + place * self.size, notes=())

    def suspects(self, on_rows: OnRows) -> Iterator[int]:
        """Yields the chunks that may hold a value that is missing or infinite.

        To be gone through before the first chunk is used: what `load_table` has to say against the
        columns is reported here.

        Args:
            on_rows: Called with the number of rows examined since the last call.

        Yields:
            Numbers of chunks, ascending.
        """
        with explained(self.path, self.subject):
            self._settle()
        for place in range(len(self)):
            yield place
            on_rows(self.rows_of(place))

    @abstractmethod
    def _open(self) -> int:
        """Returns the number of rows of the file; none for a file of one chunk of text."""

    @abstractmethod
    def _width(self) -> int:
        """Returns the number of columns of the file, more or less."""

    @abstractmethod
    def _raw(self, place: int) -> RawTable:
        """Returns the required columns of a chunk, and maybe others."""

    @abstractmethod
    def _head(self) -> RawTable:
        """Returns one row of all columns, which have the types of the whole table."""

    def _settle(self) -> None:
        """Determines the modelled columns, or raises an error about the requested ones."""
        head = table_of(
            self._head(),
            columns=self.asked,
            exclude=self.exclude,
            context=self.context,
            texts=self.options.texts,
        )
        self.columns, self.left_out = head.columns, head.left_out
        self.notes, self.warnings = head.notes, head.warnings


class FrameChunks(Chunks):
    """A parquet or Arrow file, of which polars reads rows without those before them."""

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

    def _raw(self, place: int) -> RawTable:
        expected = self._scan.select([*self.columns, *self.context, *self.options.texts])
        return self._collected(expected.slice(place * self.size, self.size))

    def _head(self) -> RawTable:
        head = self._collected(self._scan.head(1))
        columns = head.columns.values()
        if self.asked is None:
            gone = {*self.exclude, *self.context}
            columns = [
                one if one.name in gone else replace(one, progression=self._running(one.name))
                for one in columns
            ]
        return collect(list(columns), self.source, self.subject)

    def _running(self, name: str) -> Progression | None:
        """Returns the progression that a column of integers forms; None if it forms none."""
        if not self._scan.collect_schema()[name].is_integer():
            return None
        column = self._scan.select(name)

        def of_rows(start: int, count: int) -> Progression | None:
            numbers = column.slice(start, count).collect().to_series().to_numpy()
            return progression(np.asarray(numbers, dtype=np.float64))

        found = of_rows(0, COUNTED) and of_rows(0, self.size)
        for place in range(1, len(self)):
            if found is None:
                return None
            found = found.then(of_rows(place * self.size, self.rows_of(place)))
        return found

    def _collected(self, scan: "pl.LazyFrame") -> RawTable:
        import narwhals as nw

        return from_frame(nw.from_native(scan.collect()), self.source, self.subject)


class ArrayChunks(Chunks):
    """An npy file, mapped again for each chunk, so that chunks do not stay in memory."""

    def _open(self) -> int:
        return len(self._mapped())

    def _width(self) -> int:
        return len(array_columns(self._mapped()[:1], self.subject))

    def _mapped(self) -> np.memmap:
        found = np.load(self.path, mmap_mode="r", allow_pickle=False)
        if not isinstance(found, np.memmap) or found.ndim not in (1, 2):
            raise ValueError("this is no array of rows")
        return found

    def _raw(self, place: int) -> RawTable:
        array = self._mapped()
        rows = slice(place * self.size, (place + 1) * self.size)
        names = [column.name for column in array_columns(array[:1], self.subject)]
        places = [i for i, name in enumerate(names) if name in self._wanted]
        if array.ndim == 1:
            return collect(array_columns(np.array(array[rows]), self.subject), *self._named)
        found = array_columns(np.array(array[rows, places]), self.subject)
        renamed = [replace(column, name=names[i]) for i, column in zip(places, found, strict=True)]
        return collect(renamed, *self._named)

    def _head(self) -> RawTable:
        return collect(array_columns(np.array(self._mapped()[:1]), self.subject), *self._named)

    @property
    def _wanted(self) -> set[str]:
        return {*self.columns, *self.context, *self.options.texts}

    @property
    def _named(self) -> tuple[str, str]:
        return self.source, self.subject
