"""Writes tables to files, a chunk of rows at a time; a file is replaced as a whole."""

import sys
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from kappaflow.errors import ArgumentError, WriteError
from kappaflow.locking import locked
from kappaflow.storage import check_place, remove_unfinished, replace_file

if TYPE_CHECKING:
    import polars as pl

ARRAYS = (".npy", ".npz")
WRITTEN = (".csv", ".parquet", ".arrow", ".feather", ".ipc", ".npy", ".npz")


def check_writable(path: str, *, read: str | None = None) -> None:
    """Raises an error for a path that `write_table` could not write.

    Raises:
        ArgumentError: The suffix is of no kind that can be written, or the path is a folder, or
            that of the file to `read`.
        FileError: The folder that it would be in does not exist.
    """
    if path == "-":
        return
    target = Path(path)
    if read is not None and target.exists() and target.resolve() == Path(read).resolve():
        raise ArgumentError(
            f"'out' should be another file than the one to read, got {path!r}: its rows would be "
            "lost."
        )
    if target.suffix.lower() not in WRITTEN:
        raise ArgumentError(
            f"'out' should end in one of {', '.join(WRITTEN)}, or be - for CSV on stdout, "
            f"got {path!r}."
        )
    check_place("out", target)


def write_table(columns: Mapping[str, NDArray[Any]], path: str) -> None:
    """Writes columns of equal length to a file of the kind that its suffix names.

    Args:
        columns: Values by name; an npy file holds them side by side, without names. The masked
            values of a masked array are empty, or NaN where a file has arrays.
        path: Ends in .csv, .parquet, .arrow, .feather, .ipc, .npy or .npz; "-" is CSV on standard
            output.

    Example:
        >>> write_table({"a": np.array([1.5, 2.5])}, "-")
        a
        1.5
        2.5
    """
    with table_writer(path) as writer:
        writer.append(columns)


class TableWriter:
    """Appends rows to a table; `folder` has the rows until the table is complete."""

    def __init__(self, path: str, folder: Path | None) -> None:
        self.path, self.folder = path, folder
        self._parts: list[Path] = []
        self._is_empty = True

    def append(self, columns: "Mapping[str, NDArray[Any]] | pl.DataFrame") -> None:
        """Appends columns of equal length, of the same names and types in each call."""
        frame = frame_of(columns) if isinstance(columns, Mapping) else columns
        if Path(self.path).suffix.lower() in ARRAYS:
            texts = [name for name, dtype in frame.schema.items() if not dtype.is_numeric()]
            if texts:
                raise ArgumentError(
                    f"'out' should be a csv, parquet or arrow file, got {self.path!r}: the values "
                    f"of {texts[0]!r} are text, and such a file holds numbers."
                )
        if self.folder is None:
            sys.stdout.write(frame.write_csv(include_header=self._is_empty))
        else:
            part = self.folder / f".{len(self._parts):06}.tmp"
            with _explained(self.path):
                frame.write_parquet(part)
            self._parts.append(part)
        self._is_empty = False

    def finish(self) -> None:
        """Writes all rows to the file, which is replaced as a whole."""
        if self.folder is not None:
            joined, target = self.folder / ".whole.tmp", Path(self.path)
            with _explained(self.path):
                _join(self._parts, joined, target.suffix.lower())
            replace_file(joined, target)


@contextmanager
def table_writer(path: str) -> Iterator[TableWriter]:
    """Yields a writer of a table, whose file appears when the context ends without an error.

    Until then the rows are in a hidden folder next to the file. If the process is killed, the next
    writer of the same file removes them.
    """
    check_writable(path)
    if path == "-":
        yield TableWriter(path, None)
        return
    folder = Path(path).with_name(f".{Path(path).name}.parts")
    with locked(folder):  # removes what a killed process left
        try:
            writer = TableWriter(path, folder)
            yield writer
            writer.finish()
        finally:
            remove_unfinished(folder)
    with suppress(OSError):
        folder.rmdir()


@contextmanager
def _explained(path: str) -> Iterator[None]:
    from polars.exceptions import PolarsError

    try:
        yield
    except (OSError, PolarsError) as error:
        raise WriteError(f"{path} cannot be written: {error}.") from None


def frame_of(columns: Mapping[str, NDArray[Any]]) -> "pl.DataFrame":
    """Returns columns as a frame; masked values are null."""
    import polars as pl

    frame = pl.DataFrame({
        name: values.filled(np.nan) if isinstance(values, np.ma.MaskedArray) else values
        for name, values in columns.items()
    })
    gaps = [name for name, values in columns.items() if isinstance(values, np.ma.MaskedArray)]
    return frame.with_columns(pl.col(gaps).fill_nan(None)) if gaps else frame


def _join(parts: Sequence[Path], path: Path, suffix: str) -> None:
    """Writes the rows of parquet files to a file of a kind, a few of them in memory at a time."""
    import polars as pl

    scan = pl.scan_parquet(list(parts), glob=False)
    if suffix == ".csv":
        scan.sink_csv(path)
    elif suffix == ".parquet":
        scan.sink_parquet(path)
    elif suffix == ".npy":
        _join_array(parts, scan, path)
    elif suffix == ".npz":
        with zipfile.ZipFile(path, "w") as archive:
            for name in scan.collect_schema().names():
                values = scan.select(name).collect().to_series().to_numpy()
                with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                    np.lib.format.write_array(file, values, allow_pickle=False)
    else:
        scan.sink_ipc(path, compression="uncompressed")


def _join_array(parts: Sequence[Path], scan: "pl.LazyFrame", path: Path) -> None:
    import polars as pl

    with path.open("wb") as file:
        for part in parts:
            columns = [column.to_numpy() for column in pl.read_parquet(part)]
            array = np.stack(columns, axis=1)
            if not file.tell():
                header = {
                    "descr": np.lib.format.dtype_to_descr(array.dtype),
                    "fortran_order": False,
                    "shape": (scan.select(pl.len()).collect().item(), len(columns)),
                }
                np.lib.format.write_array_header_1_0(file, header)
            file.write(array.tobytes())
