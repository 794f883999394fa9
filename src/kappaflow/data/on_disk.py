"""`TableOnDisk`: a table that is trained on without being read into memory."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from kappaflow.data.chunks import Chunks
from kappaflow.data.files import read_file
from kappaflow.data.load import as_names, no_such_file
from kappaflow.data.open_chunks import OPENED, kind_of, open_chunks
from kappaflow.data.raw import RawTable, ReadOptions
from kappaflow.errors import ArgumentError, FileError


@dataclass(frozen=True)
class TableOnDisk:
    """A table in a file, which `kappaflow.fit` reads a chunk at a time.

    Args:
        source: A path to a parquet, arrow, feather, ipc, npy, csv or tsv file.
        columns: The columns to model, in that order; all columns of numbers if None.
        exclude: Columns to leave out.
        context: Columns of numbers that the density is conditioned on.
        decimal: The decimal sign of a text file, "." or ","; recognised if None.
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
        """Checks that there can be such a file."""
        if not isinstance(self.source, str | os.PathLike):
            raise ArgumentError(
                f"'source' should be the path of a file, got {type(self.source).__name__}."
            )

    @property
    def options(self) -> ReadOptions:
        """How the values are read."""
        return ReadOptions(self.decimal, as_names(self.missing))

    @property
    def path(self) -> Path:
        """Where the file is."""
        return Path(self.source).expanduser()

    def chunks(self) -> Chunks:
        """Returns the chunks of the file; one that is small is one chunk.

        Returns:
            The chunks.

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
        columns = None if self.columns is None else as_names(self.columns)
        context, exclude = as_names(self.context), as_names(self.exclude)
        options = self.options
        found = open_chunks(source, columns, context, exclude=exclude, options=options)
        return found or _Whole(path, source, columns, context, exclude=exclude, options=options)


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
