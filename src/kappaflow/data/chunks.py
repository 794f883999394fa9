"""`TableOnDisk`: a file that is read a chunk at a time, with the numbers of `load_table`."""

import os
import secrets
import tempfile
import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from kappaflow.data.files import explained, path_and_table
from kappaflow.data.labels import columns_to_read, refuse_labels
from kappaflow.data.load import no_such_file, read_source, table_of
from kappaflow.data.memory import array_columns, from_frame
from kappaflow.data.naming import FloatArray
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
SUFFIXES = (".parquet", ".arrow", ".feather", ".ipc", ".npy", ".csv", ".tsv")

OnRows = Callable[[int], None]


def chunk_size(width: int, multiple: int = 1) -> int:
    """Returns the number of rows of a chunk: at least one, and a multiple of `multiple`."""
    rows = min(CHUNK_ROWS, CHUNK_NUMBERS // max(1, width))
    return max(1, rows // multiple) * multiple


@dataclass(frozen=True)
class Source:
    """A table that can be read from any row on."""

    rows: int
    head: RawTable  # all columns, in the types of the whole table, with a few rows
    # By the number of the first row, how many, and names
    read: Callable[[int, int, Sequence[str]], RawTable]


class Chunks:
    """A table in chunks of `size` rows, the last of which may have fewer.

    Contract: the tables of all chunks, concatenated, equal what `load_table` returns with the same
    columns and context: values, names, and row numbers of the whole file. `warnings` are the notes
    that keep the verdict on a fit from being green.
    """

    def __init__(
        self, source: Source, path: Path, reading: Reading, size: int, subject: str
    ) -> None:
        self.path, self.rows, self.size, self.subject = path, source.rows, size, subject
        self._source, self._texts, self._head = source, reading.texts, source.head
        self._lenient = reading.lenient
        if len(self) > 1:
            refuse_labels(source.head, reading)
        head, unused = source.head, {*reading.exclude, *reading.context}
        with explained(path, subject):
            if reading.columns is None and len(self) > 1:
                columns = {
                    name: column if name in unused else self._with_ends(column)
                    for name, column in head.columns.items()
                }
                head = replace(head, columns=columns)
            table = table_of(head, reading)
        self.columns, self.context = table.columns, table.context_columns
        self.left_out, self.notes, self.warnings = table.left_out, table.notes, table.warnings

    def __len__(self) -> int:
        return -(-self.rows // self.size)

    def read(self, number: int) -> Table:
        """Returns a chunk, counted from 0."""
        start = number * self.size
        reading = Reading(
            self.columns, context=self.context, texts=self._texts, lenient=self._lenient
        )
        with explained(self.path, self.subject):
            names = columns_to_read([*self.columns, *self.context, *self._texts], self._head)
            table = table_of(self._source.read(start, self.size, names), reading)
        return replace(table, rows=table.rows + start, notes=())

    def _with_ends(self, column: Column) -> Column:
        """Returns a column with its ends, if it counts all rows of the table."""

        def parts() -> Iterator[FloatArray]:
            for start in range(0, self.rows, self.size):
                raw = self._source.read(start, self.size, [column.name])
                yield raw.columns[column.name].numbers()

        return replace(column, ends=running(parts()) if column.can_count else None)


def open_chunks(
    name: str,
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
    path, subject = path_and_table(name)[0], f"'{name}'"
    source = _source_on_disk(path, name, reading, scratch)
    if source is not None:
        used = len(source.head.columns)
        if reading.columns:
            used = len(reading.columns) + len(reading.context)
        size = chunk_size(used, multiple)
        if source.rows > size:
            return Chunks(source, path, reading, size, subject)
    raw = read_source(name, reading)
    source = Source(raw.row_count, raw, lambda start, count, names: raw)
    return Chunks(source, path, reading, max(1, raw.row_count), subject)


def _source_on_disk(
    path: Path, name: str, reading: Reading, scratch: Path | None
) -> Source | None:
    """Returns a file that can be read in chunks; None for another, or one that is damaged."""
    from polars.exceptions import PanicException, PolarsError

    suffix = path.suffix.lower()
    is_text = suffix in {".csv", ".tsv"}
    if suffix not in SUFFIXES or not path.is_file():
        return None
    if is_text and path.stat().st_size <= 2 * CHUNK_ROWS:  # a row has a character and a line end
        return None
    try:
        if is_text:
            return _text(path, name, reading, scratch)
        return (_array if suffix == ".npy" else _frame)(path, name, reading)
    except (OSError, ValueError, PolarsError, PanicException):
        return None  # `read_source` says what is wrong


def _text(path: Path, name: str, reading: Reading, scratch: Path | None) -> Source:
    """Returns a text file, converted to a parquet file that exists as long as the source."""
    folder = Path(tempfile.gettempdir()) if scratch is None else scratch
    converted = folder / f".{path.stem}.{secrets.token_hex(4)}.tmp"
    try:
        table = convert_text(path, converted, name, f"'{name}'", reading)
    except BaseException:
        converted.unlink(missing_ok=True)
        raise
    source = Source(table.rows, table.head, table.read)
    weakref.finalize(source, converted.unlink, missing_ok=True)
    return source


def _frame(path: Path, name: str, reading: Reading) -> Source:
    """Returns a parquet or Arrow file, in which polars reads rows without the rows before them."""
    import narwhals as nw
    import polars as pl

    is_parquet = path.suffix.lower() == ".parquet"
    scan = (pl.scan_parquet if is_parquet else pl.scan_ipc)(path, glob=False)

    def read(start: int, count: int, names: Sequence[str]) -> RawTable:
        frame = nw.from_native(scan.select(names).slice(start, count).collect())
        return without_missing(from_frame(frame, name, f"'{name}'"), reading)

    rows = int(scan.select(pl.len()).collect().item())
    return Source(rows, read(0, 1, scan.collect_schema().names()), read)


def _array(path: Path, name: str, reading: Reading) -> Source:
    """Returns an npy file, mapped again for each chunk, so that chunks do not stay in memory."""

    def mapped() -> np.memmap[Any, Any]:
        result = np.load(path, mmap_mode="r", allow_pickle=False)
        if not isinstance(result, np.memmap) or result.ndim not in (1, 2):
            raise ValueError("this is not an array of rows")
        return result

    def read(start: int, count: int, names: Sequence[str] | None) -> RawTable:
        columns = array_columns(mapped()[start : start + count], f"'{name}'")
        kept = [column for column in columns if names is None or column.name in names]
        return without_missing(collect(kept, name, f"'{name}'"), reading)

    return Source(len(mapped()), read(0, 1, None), read)


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
        separator: The sign between the fields of a text file; recognized if None.
        comment: The sign of comment lines at the top of a text file; none if None.

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
    separator: str | None = None
    comment: str | None = None

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
        """Returns the chunks of the file; a small file is one chunk."""
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
            self.columns,
            self.exclude,
            self.context,
            None,
            self.decimal,
            self.missing,
            self.separator,
            self.comment,
        )
        return open_chunks(source, reading, scratch=scratch)
