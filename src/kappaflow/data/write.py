"""Writes tables to files, at once or by joining chunks."""

import io
import sys
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from kappaflow.errors import ArgumentError, WriteError

if TYPE_CHECKING:
    import polars as pl

WRITTEN = (".csv", ".parquet", ".arrow", ".feather", ".ipc", ".npy", ".npz")


def check_writable(path: str, *, read: str | None = None) -> None:
    """Raises an error for a path that `write_table` could not write.

    Raises:
        ArgumentError: The suffix is of no kind that can be written, or the path is a folder, or
            that of the file to `read`.
        FileError: The folder that it would be in does not exist.
    """
    from kappaflow.storage import check_place

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
    from kappaflow.storage import write_bytes

    check_writable(path)
    if path == "-":
        sys.stdout.write(frame_of(columns).write_csv())
        return
    write_bytes(Path(path), table_bytes(columns, Path(path).suffix.lower()))


def table_bytes(columns: Mapping[str, NDArray[Any]], suffix: str) -> bytes:
    """Returns the content of a file with this suffix."""
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
    """Writes the same as `np.savez`, which takes a name such as "file" for its own argument."""
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, values in columns.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                np.lib.format.write_array(file, _filled(values), allow_pickle=False)


def join_parts(parts: Sequence[Path], path: Path) -> None:
    """Writes the rows of parquet files into one file, a few of them in memory at a time.

    `write_table` would write the same file from all rows at once. The suffix of the path decides
    its kind.
    """
    from polars.exceptions import PolarsError

    join = _JOINS.get(path.suffix.lower(), _arrow)
    try:
        join(parts, path)
    except (OSError, PolarsError) as error:
        raise WriteError(f"{path} cannot be written: {error}.") from None


def _parquet(parts: Sequence[Path], path: Path) -> None:
    _scan(parts).sink_parquet(path)


def _arrow(parts: Sequence[Path], path: Path) -> None:
    _scan(parts).sink_ipc(path, compression="uncompressed")


def _csv(parts: Sequence[Path], path: Path) -> None:
    _scan(parts).sink_csv(path)


def _npy(parts: Sequence[Path], path: Path) -> None:
    names = _scan(parts).collect_schema().names()
    with path.open("wb") as file:
        _write_array(
            file, parts, lambda part: np.stack([_column(part, name) for name in names], axis=1)
        )


def _npz(parts: Sequence[Path], path: Path) -> None:
    with zipfile.ZipFile(path, "w", allowZip64=True) as archive:
        for name in _scan(parts).collect_schema().names():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                _write_array(file, parts, lambda part, name=name: _column(part, name))


def _write_array(
    file: IO[bytes], parts: Sequence[Path], array_of: Callable[[Path], np.ndarray]
) -> None:
    """Writes the arrays of all parts as one array in numpy's format."""
    import polars as pl

    first = array_of(parts[0])
    rows = _scan(parts).select(pl.len()).collect().item()
    header = {
        "descr": np.lib.format.dtype_to_descr(first.dtype),
        "fortran_order": False,
        "shape": (rows, *first.shape[1:]),
    }
    np.lib.format.write_array_header_1_0(file, header)
    for place, part in enumerate(parts):
        file.write((array_of(part) if place else first).tobytes())


def _scan(parts: Sequence[Path]) -> "pl.LazyFrame":
    import polars as pl

    return pl.scan_parquet(list(parts), glob=False)


def _column(part: Path, name: str) -> np.ndarray:
    import polars as pl

    return pl.read_parquet(part, columns=[name]).to_series().to_numpy()


_JOINS: dict[str, Callable[[Sequence[Path], Path], None]] = {
    ".parquet": _parquet,
    ".csv": _csv,
    ".npy": _npy,
    ".npz": _npz,
}
