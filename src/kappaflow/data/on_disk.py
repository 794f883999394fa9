"""`TableOnDisk`: a table that is trained on without being read into memory."""

import functools
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from kappaflow.data.chunks import ArrayChunks, Chunks, FrameChunks, TextChunks, chunk_size
from kappaflow.data.dataset import Model
from kappaflow.data.files import read_file
from kappaflow.data.load import as_names, no_such_file, table_names
from kappaflow.data.raw import AS_USUAL, RawTable, ReadOptions
from kappaflow.data.split import places_of
from kappaflow.data.table import IntArray, Table
from kappaflow.errors import ArgumentError, FileError

if TYPE_CHECKING:
    from kappaflow.data.batches import MappedBatches

Kind = type[FrameChunks] | type[ArrayChunks] | type[TextChunks]
OPENED: dict[str, Kind] = {
    ".parquet": FrameChunks,
    ".arrow": FrameChunks,
    ".feather": FrameChunks,
    ".ipc": FrameChunks,
    ".npy": ArrayChunks,
    ".csv": TextChunks,
    ".tsv": TextChunks,
}


def kind_of(path: Path) -> Kind | None:
    """Returns the reader of chunks for a file of this name; None if there is none."""
    return OPENED.get(path.suffix.lower())


def open_chunks(
    source: str,
    columns: Sequence[str] | None,
    context: Sequence[str] = (),
    *,
    exclude: Sequence[str] = (),
    multiple: int = 1,
    options: ReadOptions = AS_USUAL,
) -> Chunks | None:
    """Returns the chunks of a table on disk, whose sizes are a multiple of `multiple` rows.

    None if `load_table` should read it at once: it is one chunk, a built-in table, or of a kind
    that cannot be read in chunks (npz, gz, standard input, an Arrow stream), or something is wrong
    with the file, which `load_table` then reports.
    """
    from polars.exceptions import PanicException, PolarsError

    path = Path(source).expanduser()
    kind = kind_of(path)
    comes_along = source in table_names() and not path.is_file()
    # polars takes such signs for patterns, of which several files may be one
    is_pattern = kind is FrameChunks and any(sign in str(path) for sign in "*?[")
    if kind is None or comes_along or is_pattern or not path.is_file():
        return None
    try:
        chunks = kind(
            path,
            source,
            columns,
            context,
            exclude=exclude,
            multiple=multiple,
            options=options,
        )
    except (OSError, ValueError, PolarsError, PanicException):
        return None
    return chunks if chunks.rows > chunks.size else None


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
    def options(self) -> ReadOptions:
        return ReadOptions(self.decimal, as_names(self.missing, "missing"))

    @property
    def path(self) -> Path:
        return Path(self.source).expanduser()

    def chunks(self) -> Chunks:
        """Returns the chunks of the file; a small file is one chunk.

        Raises:
            ArgumentError: A file of this kind cannot be read a chunk at a time.
            FileError: There is no such file, or it is damaged.
        """
        path, source = self.path, str(self.source)
        if kind_of(path) is None:
            raise ArgumentError(
                f"'on_disk' should be given for a file that can be read a chunk at a time, "
                f"{', '.join(OPENED)}, got {source!r}: write it as one of these, or have it read "
                "into memory."
            )
        if not path.exists():
            raise FileError(f"{no_such_file(path)}: give the path of a table.")
        columns = None if self.columns is None else as_names(self.columns, "columns")
        context, exclude = as_names(self.context, "context"), as_names(self.exclude, "exclude")
        options = self.options
        result = open_chunks(source, columns, context, exclude=exclude, options=options)
        return result or _Whole(path, source, columns, context, exclude=exclude, options=options)


class _Whole(Chunks):
    """A file that is read at once: it is small, or `read_file` says what is wrong with it."""

    def _open(self) -> int:
        self._read: RawTable = read_file(self.path, self.source, self.options)
        self.size = max(self.size, self._read.row_count)
        return self._read.row_count

    def _width(self) -> int:
        return 1

    def _raw(self, place: int) -> RawTable:
        return self._read

    def _head(self) -> RawTable:
        return self._read


@dataclass(frozen=True, eq=False)
class MappedTable:
    """Rows to train on, in an npy file: the modeled columns, then those of the context.

    The file need not exist before the first row is read. `sample` has some rows in random order,
    `digest` is a SHA-256 over columns and rows, in hex, and `held_out` are the rows of the source
    that are not in the file, counted from 0, ascending.
    """

    path: Path
    length: int
    sample: Table
    digest: str
    held_out: IntArray

    def __len__(self) -> int:
        return self.length

    @property
    def columns(self) -> tuple[str, ...]:
        return self.sample.columns

    @property
    def context_columns(self) -> tuple[str, ...]:
        return self.sample.context_columns

    @property
    def source(self) -> str:
        return self.sample.source

    def fingerprint(self) -> str:
        """Returns the digest of the rows."""
        return self.digest

    def describe(self) -> dict[str, Any]:
        return self.sample.describe()

    @property
    def warnings(self) -> tuple[str, ...]:
        return self.sample.warnings

    def batches(self, flow: Model) -> "MappedBatches":
        """Returns the rows in batches that are read when they are needed."""
        from kappaflow.data.batches import MappedBatches

        return MappedBatches(self, flow)

    def check(self, flow: Model, *, held_out: bool = False) -> None:  # noqa: ARG002
        """Raises DataError for values that a flow cannot represent."""
        from kappaflow.data.batches import check_mapped

        check_mapped(self, flow)

    def at(self, index: IntArray | slice) -> NDArray[Any]:
        """Returns some of the rows, (n, columns and context), as a copy in the file's dtype."""
        return np.array(self.mapped[index])

    def blocks(self) -> Iterator[Table]:
        """Yields all rows as tables, a chunk at a time, with their numbers in the source."""
        width = len(self.columns)
        size = chunk_size(width + len(self.context_columns))
        for start in range(0, self.length, size):
            result = self.at(slice(start, start + size)).astype(np.float64)
            numbers = np.arange(start, start + len(result))
            yield replace(
                self.sample,
                values=result[:, :width],
                context=result[:, width:] if self.context_columns else None,
                rows=places_of(numbers, self.held_out) + 1,
            )

    @functools.cached_property
    def mapped(self) -> NDArray[Any]:
        """The file as an array, (rows, columns and context)."""
        width = len(self.columns) + len(self.context_columns)
        try:
            result = np.load(self.path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError) as error:
            raise FileError(f"{self.path} cannot be read ({error}).") from None
        if result.shape != (self.length, width):
            raise FileError(f"{self.path} does not hold the rows that it should: remove it.")
        return result.view(np.ndarray)
