"""`write_table`: named columns to a file, whole or not at all, or to standard output."""

import io
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from kappaflow.errors import ArgumentError, FileError

if TYPE_CHECKING:
    import polars as pl

WRITTEN = (".csv", ".parquet", ".arrow", ".feather", ".ipc", ".npy", ".npz")


def check_writable(path: str) -> None:
    """Refuses a path that `write_table` could not write, before the work is done.

    Args:
        path: A file to be, or "-" for standard output.

    Raises:
        ArgumentError: The suffix is of no kind that can be written, or the path is a folder.
        FileError: The folder that it would be in does not exist.
    """
    if path == "-":
        return
    target = Path(path)
    if target.suffix.lower() not in WRITTEN:
        raise ArgumentError(
            f"'out' should end in one of {', '.join(WRITTEN)}, or be - for CSV on stdout, "
            f"got {path!r}."
        )
    if target.is_dir():
        raise ArgumentError(f"'out' should be a file, {path} is a folder.")
    if not target.parent.is_dir():
        raise FileError(f"{path} cannot be written: there is no folder {target.parent}.")


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
    from kappaflow.storage import write_bytes

    check_writable(path)
    if path == "-":
        sys.stdout.write(frame_of(columns).write_csv())
        return
    write_bytes(Path(path), table_bytes(columns, Path(path).suffix.lower()))


def table_bytes(columns: Mapping[str, NDArray[Any]], suffix: str) -> bytes:
    """Returns what a file of a kind has in it."""
    buffer = io.BytesIO()
    if suffix == ".npy":
        arrays = [_filled(values) for values in columns.values()]
        np.save(buffer, np.stack(arrays, axis=1), allow_pickle=False)
    elif suffix == ".npz":
        _write_archive(buffer, columns)
    elif suffix == ".csv":
        frame_of(columns).write_csv(buffer)
    elif suffix == ".parquet":
        frame_of(columns).write_parquet(buffer)
    else:
        frame_of(columns).write_ipc(buffer)
    return buffer.getvalue()


def frame_of(columns: Mapping[str, NDArray[Any]]) -> "pl.DataFrame":
    """Returns columns as a frame; masked values are null."""
    import polars as pl

    frame = pl.DataFrame({name: _filled(values) for name, values in columns.items()})
    gaps = [name for name, values in columns.items() if isinstance(values, np.ma.MaskedArray)]
    return frame.with_columns(pl.col(gaps).fill_nan(None)) if gaps else frame


def _filled(values: NDArray[Any]) -> NDArray[Any]:
    """Returns an array with NaN for its masked values."""
    return values.filled(np.nan) if isinstance(values, np.ma.MaskedArray) else np.asarray(values)


def _write_archive(buffer: io.BytesIO, columns: Mapping[str, NDArray[Any]]) -> None:
    """Writes what `np.savez` writes, which takes a name such as "file" for its own argument."""
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, values in columns.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                np.lib.format.write_array(file, _filled(values), allow_pickle=False)
