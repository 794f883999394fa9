"""`join_parts`: parquet files, one below the other, as one file of any kind that is written."""

import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING

import numpy as np

from kappaflow.errors import WriteError

if TYPE_CHECKING:
    import polars as pl


def join_parts(parts: Sequence[Path], path: Path) -> None:
    """Writes the rows of parquet files into one file, a few of them in memory at a time.

    The file holds what `write_table` writes of all rows at once.

    Args:
        parts: With the same columns of numbers, in order.
        path: Ends in .csv, .parquet, .arrow, .feather, .ipc, .npy or .npz.

    Raises:
        WriteError: There is no room, or a part is damaged.
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
    import polars as pl

    with path.open("wb") as file:
        for place, part in enumerate(parts):
            pl.read_parquet(part).write_csv(file, include_header=place == 0)


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
    """Writes the arrays of all parts as numpy writes one of all their rows."""
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
