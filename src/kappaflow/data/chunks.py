"""`TableOnDisk`: a file that is read a chunk at a time, with the numbers of `load_table`."""

import os
import secrets
import tempfile
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np

from kappaflow.data.files import explained
from kappaflow.data.load import no_such_file, read_source, table_of
from kappaflow.data.memory import array_columns, from_frame
from kappaflow.data.raw import (
    READ_ALL,
    Column,
    RawTable,
    Reading,
    collect,
    running,
    without_missing,
)
from kappaflow.data.table import Table
from kappaflow.data.text import convert_text
from kappaflow.errors import ArgumentError, FileError

CHUNK_ROWS = 262_144
CHUNK_NUMBERS = 2**24  # of all columns, so that chunks of wide tables have fewer rows

OnRows = Callable[[int], None]


def chunk_size(width: int, multiple: int = 1) -> int:
    """Returns the number of rows of a chunk: at least one, and a multiple of `multiple`."""
    rows = min(CHUNK_ROWS, CHUNK_NUMBERS // max(1, width))
    return max(1, rows // multiple) * multiple


class Source(ABC):
    """A table on disk that can be read from any chunk on.

    `size` is the number of rows of a chunk, where it is not free.
    """

    rows: int
    width: int
    size: int | None = None

    def __init__(self, name: str, reading: Reading) -> None:
        self.name, self.subject, self.reading = name, f"'{name}'", reading

    @abstractmethod
    def read(self, start: int, count: int, names: Sequence[str] | None = None) -> RawTable:
        """Returns some rows: the named columns and maybe others, or all columns."""

    def head(self, on_rows: OnRows) -> RawTable:
        """Returns a row of all columns, in the types of the whole table."""
        on_rows(self.rows)
        return self.read(0, 1)

    def with_running(self, column: Column) -> Column:
        """Returns a column with its ends, if it counts all rows of the table."""
        if not column.can_count:
            return column
        size, name = self.size or chunk_size(1), column.name
        parts = (
            self.read(start, size, [name]).columns[name].numbers()
            for start in range(0, self.rows, size)
        )
        return replace(column, ends=running(parts))


class MemorySource(Source):
    """A table that is read at once: it is small, or of a kind without parts."""

    def __init__(self, name: str, reading: Reading) -> None:
        super().__init__(name, reading)
        self.raw = read_source(name, reading)
        self.rows = self.size = self.raw.row_count
        self.width = len(self.raw.columns)

    def read(self, start: int, count: int, names: Sequence[str] | None = None) -> RawTable:  # noqa: ARG002
        return self.raw


class TextSource(Source):
    """A csv or tsv file, converted once to a parquet file that exists as long as this object."""

    def __init__(
        self, path: Path, name: str, reading: Reading, multiple: int, scratch: Path | None
    ) -> None:
        super().__init__(name, reading)
        folder = Path(tempfile.gettempdir()) if scratch is None else scratch
        converted = folder / f".{path.stem}.{secrets.token_hex(4)}.tmp"
        weakref.finalize(self, converted.unlink, missing_ok=True)
        size_of = partial(chunk_size, multiple=multiple)
        self.table = convert_text(path, converted, self.subject, reading, size_of)
        self.rows, self.size = self.table.rows, self.table.size
        self.width = len(self.table.header)

    def read(self, start: int, count: int, names: Sequence[str] | None = None) -> RawTable:  # noqa: ARG002
        return self.table.read(start, self.name, names)

    def head(self, on_rows: OnRows) -> RawTable:
        self.table.settle(on_rows)
        return collect(self.table.columns, self.name, self.subject)


class FrameSource(Source):
    """A parquet or Arrow file, in which polars reads rows without the rows before them."""

    def __init__(self, path: Path, name: str, reading: Reading) -> None:
        import polars as pl

        super().__init__(name, reading)
        self.scan = (pl.scan_parquet if path.suffix.lower() == ".parquet" else pl.scan_ipc)(path)
        self.rows = int(self.scan.select(pl.len()).collect().item())
        self.width = len(self.scan.collect_schema())

    def read(self, start: int, count: int, names: Sequence[str] | None = None) -> RawTable:
        import narwhals as nw

        scan = self.scan if names is None else self.scan.select(names)
        frame = nw.from_native(scan.slice(start, count).collect())
        return without_missing(from_frame(frame, self.name, self.subject), self.reading)


class ArraySource(Source):
    """An npy file, mapped again for each chunk, so that chunks do not stay in memory."""

    def __init__(self, path: Path, name: str, reading: Reading) -> None:
        super().__init__(name, reading)
        self.path = path
        self.rows, self.width = len(self._mapped()), len(self.read(0, 1).columns)

    def _mapped(self) -> np.memmap:
        result = np.load(self.path, mmap_mode="r", allow_pickle=False)
        if not isinstance(result, np.memmap) or result.ndim not in (1, 2):
            raise ValueError("this is not an array of rows")
        return result

    def read(self, start: int, count: int, names: Sequence[str] | None = None) -> RawTable:
        columns = array_columns(self._mapped()[start : start + count], self.subject)
        kept = [column for column in columns if names is None or column.name in names]
        return without_missing(collect(kept, self.name, self.subject), self.reading)


class Chunks:
    """A table in chunks of `size` rows, the last of which may have fewer.

    Contract: the tables of all chunks, concatenated, equal what `load_table` returns with the same
    columns and context: values, names, and row numbers of the whole file.

    The columns to model, those left out, and notes on both are known after `settle`.
    `warnings` are the notes that keep the verdict on a fit from being green.
    """

    def __init__(self, source: Source, path: Path, multiple: int) -> None:
        self.source, self.path, self.rows = source, path, source.rows
        self.requested = source.reading
        self.columns, self.context = source.reading.columns or (), source.reading.context
        self.left_out: tuple[str, ...] = ()
        self.notes: tuple[str, ...] = ()
        self.warnings: tuple[str, ...] = ()
        used = len(self.columns) + len(self.context) if self.columns else source.width
        self.size = source.size or chunk_size(used, multiple)

    def __len__(self) -> int:
        return -(-self.rows // self.size)

    def rows_of(self, number: int) -> int:
        """Returns the number of rows of a chunk, counted from 0."""
        return min(self.size, self.rows - number * self.size)

    def read(self, number: int) -> Table:
        """Returns a chunk, counted from 0."""
        start, texts = number * self.size, self.requested.texts
        reading = Reading(self.columns, context=self.context, texts=texts)
        with explained(self.path, self.source.subject):
            raw = self.source.read(start, self.size, [*self.columns, *self.context, *texts])
            table = table_of(raw, reading)
        return replace(table, rows=table.rows + start, notes=())

    def settle(self, on_rows: OnRows = lambda rows: None) -> None:
        """Determines the columns and the notes on them, or raises the errors of `load_table`.

        `on_rows` is called with the number of rows examined since the last call.
        """
        unused = {*self.requested.exclude, *self.context}
        with explained(self.path, self.source.subject):
            head = self.source.head(on_rows)
            if self.requested.columns is None:
                columns = [
                    column if column.name in unused else self.source.with_running(column)
                    for column in head.columns.values()
                ]
                head = replace(head, columns={column.name: column for column in columns})
            table = table_of(head, self.requested)
        self.columns, self.left_out = table.columns, table.left_out
        self.notes, self.warnings = table.notes, table.warnings


SUFFIXES = (".parquet", ".arrow", ".feather", ".ipc", ".npy", ".csv", ".tsv")


def open_chunks(
    source: str,
    reading: Reading = READ_ALL,
    *,
    multiple: int = 1,
    scratch: Path | None = None,
) -> Chunks:
    """Returns the chunks of a table, whose sizes are a multiple of `multiple` rows.

    A single chunk if the table is small, or of a kind that cannot be read in chunks (npz, gz,
    standard input, an Arrow stream). A text file is converted to a parquet file in the folder
    `scratch`, or else in that for temporary files.
    """
    path = Path(source).expanduser()
    on_disk = _source_on_disk(path, source, reading, multiple, scratch)
    if on_disk is not None:
        chunks = Chunks(on_disk, path, multiple)
        if len(chunks) > 1:
            return chunks
    return Chunks(MemorySource(source, reading), path, multiple)


def _source_on_disk(
    path: Path, name: str, reading: Reading, multiple: int, scratch: Path | None
) -> Source | None:
    """Returns a file that can be read in chunks; None for another, or one that is damaged."""
    from polars.exceptions import PanicException, PolarsError

    suffix = path.suffix.lower()
    if suffix not in SUFFIXES or not path.is_file():
        return None
    try:
        if suffix in {".csv", ".tsv"}:
            large = path.stat().st_size > 2 * CHUNK_ROWS  # a row has a character and a line end
            return TextSource(path, name, reading, multiple, scratch) if large else None
        if suffix == ".npy":
            return ArraySource(path, name, reading)
        # polars takes such signs for patterns, of which several files may be one
        is_pattern = any(sign in str(path) for sign in "*?[")
        return None if is_pattern else FrameSource(path, name, reading)
    except (OSError, ValueError, PolarsError, PanicException):
        return None  # `read_source` says what is wrong


@dataclass(frozen=True)
class TableOnDisk:
    """A table in a file, which `kappaflow.fit` reads a chunk at a time.

    Args:
        source: A path to a parquet, arrow, feather, ipc, npy, csv or tsv file.
        columns: The columns to model, in that order; all columns of numbers if None.
        exclude: Columns to leave out.
        context: Columns of numbers that the density is conditioned on.
        decimal: The decimal sign of a text file, "." or ","; recognized if None.
        missing: Values that mean a missing one, as text.

    Example:
        >>> import pathlib, tempfile
        >>> import kappaflow as kf
        >>> from kappaflow.data import toy, write_table
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = pathlib.Path(folder) / "moons.parquet"
        ...     x = toy("two_moons", 1000).values
        ...     write_table({"a": x[:, 0], "b": x[:, 1]}, str(path))
        ...     flow = kf.real_nvp(2, depth=2, hidden=(8,))
        ...     out = path.with_name("run")
        ...     kf.fit(flow, TableOnDisk(path), out=out, max_epochs=1).stopped_because
        'max_epochs'
    """

    source: str | os.PathLike[str]
    columns: Sequence[str] | None = None
    exclude: Sequence[str] = ()
    context: Sequence[str] = ()
    decimal: Literal[".", ","] | None = None
    missing: Sequence[str] = ()

    def __post_init__(self) -> None:
        """Checks the type of the path."""
        if not isinstance(self.source, str | os.PathLike):
            raise ArgumentError(
                f"'source' should be the path of a file, got {type(self.source).__name__}."
            )

    @property
    def path(self) -> Path:
        return Path(self.source).expanduser()

    def chunks(self, scratch: Path | None = None) -> Chunks:
        """Returns the chunks of the file; a small file is one chunk.

        Raises:
            ArgumentError: A file of this kind cannot be read a chunk at a time.
            FileError: There is no such file, or it is damaged.
        """
        source = str(self.source)
        if self.path.suffix.lower() not in SUFFIXES:
            raise ArgumentError(
                f"'on_disk' should be given for a file that can be read a chunk at a time, "
                f"{', '.join(SUFFIXES)}, got {source!r}: write it as one of these, or have it "
                "read into memory."
            )
        if not self.path.exists():
            raise FileError(f"{no_such_file(self.path)}: give the path of a table.")
        reading = Reading.of(
            self.columns, self.exclude, self.context, None, self.decimal, self.missing
        )
        return open_chunks(source, reading, scratch=scratch)
