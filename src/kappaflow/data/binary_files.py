"""Reads tables from HDF5, FITS, ROOT, SQLite, DuckDB and Excel files, mostly by optional packages.

Nothing is unpickled and no code in a file is run: columns of objects or lists are left out, with a
note. A file of several tables needs the name of one.
"""

import io
import math
import re
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kappaflow.data.limits import choose_table, decompressed, refuse_large, refuse_wide
from kappaflow.data.memory import array_columns, from_frame
from kappaflow.data.raw import RawTable, collect, quoted
from kappaflow.data.text import header_of
from kappaflow.errors import FileError

BinaryReader = Callable[[Path, str, str, str | None], RawTable]
Arrays = Mapping[str, NDArray[Any] | None]
_OF_A_VALUE = 16  # bytes in memory: a number has 8, a text 16 and more
BLOCK = 2880  # bytes; FITS files have a multiple of it
_TREES = ["TTree", "TNtuple", "TNtupleD", "ROOT::RNTuple"]
_NUMBER = r"(?:std::)?(?:double|float|Double32_t|bool|u?int(?:8|16|32|64)_t)"
_FLAT = re.compile(
    rf"{_NUMBER}(?:\[(\d+)\])?|std::array<{_NUMBER}, ?(\d+)>"
)  # branches of numbers
CLOSED = {  # a database cannot make DuckDB read other files or load code
    "enable_external_access": "false",
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
}


def _imported(module: str, subject: str) -> Any:
    try:
        return import_module(module)
    except ImportError:
        package = module.partition(".")[0]
        raise FileError(
            f"{subject} needs the package {package}: pip install 'kappaflow[files]'."
        ) from None


def _hdf5(path: Path, source: str, subject: str, table: str | None) -> RawTable:
    """Returns a dataset of records or of two axes, or those of one axis in a group."""
    h5py = _imported("h5py", subject)
    with h5py.File(path, "r") as file:
        tables: dict[str, dict[str, Any]] = {}
        frames: dict[str, Any] = {}  # groups that pandas wrote

        def visit(name: str, item: Any) -> None:
            home, _, last = name.rpartition("/")
            if "pandas_type" in item.attrs:
                frames[name] = tables[name] = item
            elif any(name.startswith(f"{frame}/") for frame in frames):
                return
            elif isinstance(item, h5py.Dataset) and not (item.is_virtual or item.external):
                if item.dtype.names or item.ndim == 2:
                    tables[name] = {last: item}
                elif item.ndim == 1:
                    tables.setdefault(home or "/", {})[last] = item

        file.visititems(visit)
        name = choose_table(list(tables), table, subject)
        datasets = _pandas(frames[name], subject) if name in frames else tables[name]
        refuse_large(sum(dataset.nbytes for dataset in datasets.values()), subject)
        first = next(iter(datasets.values()))
        if len(datasets) == 1 and first.dtype.names:
            return _table(_records(first), source, subject)
        if len(datasets) == 1 and first.ndim == 2 and name not in frames:
            return collect(array_columns(first[()], subject), source, subject)
        arrays = {}
        for last, dataset in datasets.items():
            if not dataset.dtype.hasobject:
                arrays[last] = dataset[()]
            elif h5py.check_string_dtype(dataset.dtype):
                arrays[last] = dataset.asstr("utf-8", "replace")[()].astype(str)
            else:
                arrays[last] = None
        return _table(_named_blocks(arrays) if name in frames else arrays, source, subject)


def _records(dataset: Any) -> Arrays:
    """Returns the fields of records by name, None for those that hold objects or records."""
    plain = [name for name in dataset.dtype.names if dataset.dtype[name].base.kind in "biufS"]
    values = dataset.fields(plain)[()] if plain else {}
    return {name: values[name] if name in plain else None for name in dataset.dtype.names}


def _pandas(group: Any, subject: str) -> dict[str, Any]:
    """Returns the datasets of a data frame that pandas wrote, in its fixed or its table format."""
    kind = group.attrs["pandas_type"]
    kind = kind.decode() if isinstance(kind, bytes) else str(kind)
    if kind == "frame":
        return {name: group[name] for name in group if name.startswith("block")}
    names = group["table"].dtype.names if kind == "frame_table" else ("values_block",)
    if any(name.startswith("values_block") for name in names):
        raise FileError(
            f"{subject} holds names of columns that pandas pickled, which are never read: write "
            "it by to_parquet, or by to_hdf with data_columns=True."
        )
    return {"table": group["table"]}


def _named_blocks(arrays: Arrays) -> Arrays:
    """Returns the columns of the blocks of a data frame: block0_items names block0_values."""
    columns: dict[str, NDArray[Any] | None] = {}
    for name, values in arrays.items():
        block, _, role = name.partition("_")
        items = arrays.get(f"{block}_items")
        if role == "values" and items is not None:
            for index, item in enumerate(items.tolist()):
                column = item.decode("utf-8", "replace") if isinstance(item, bytes) else item
                columns[column] = None if values is None else values[:, index]
    return columns


def _fits(path: Path, source: str, subject: str, table: str | None) -> RawTable:
    """Returns a table of a FITS file, whole numbers that mean a missing value as NaN."""
    fits = _imported("astropy.io.fits", subject)
    is_packed = path.suffix.lower() == ".gz"
    packed = io.BytesIO(decompressed(path, subject)) if is_packed else None
    with packed or path.open("rb") as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.filterwarnings("error", ".*truncated")
        is_fits = file.read(6) == b"SIMPLE"  # astropy would unpack a zip file into a folder
        if not is_fits or file.seek(0, io.SEEK_END) % BLOCK:
            raise ValueError(f"it does not consist of blocks of {BLOCK} bytes")
        file.seek(0)
        with fits.open(file, memmap=False) as units:
            tables = {}
            for index, unit in enumerate(units):
                if type(unit) in {fits.BinTableHDU, fits.TableHDU}:
                    tables[str(index) if unit.name in {"", *tables} else unit.name] = unit
            unit = tables[choose_table(list(tables), table, subject)]
            refuse_large(unit.header["NAXIS1"] * unit.header["NAXIS2"], subject)
            arrays = {column.name: _field(unit, column) for column in unit.columns}
    return _table(arrays, source, subject)


def _field(unit: Any, column: Any) -> NDArray[Any] | None:
    """Returns a column of a FITS table, or None if its rows differ in length."""
    if re.match(r"\d*[PQ]", column.format):
        return None
    values = np.asarray(unit.data.field(column.name))
    if column.null is not None and values.dtype.kind in "iu":
        return np.where(values == column.null, np.nan, values)
    return values


def _root(path: Path, source: str, subject: str, table: str | None) -> RawTable:
    """Returns the branches of a tree that have a fixed number of numbers for each entry."""
    uproot = _imported("uproot", subject)
    with _without_code(subject), uproot.open(path) as file:
        names = dict.fromkeys(file.keys(cycle=False, filter_classname=_TREES))
        tree = file[choose_table(list(names), table, subject)]
        kinds = tree.typenames()
        flat = {name: match for name in kinds if (match := _FLAT.fullmatch(kinds[name]))}
        width = sum(int(match[1] or match[2] or 1) for match in flat.values())
        refuse_wide(width, subject)
        refuse_large(tree.num_entries * width * _OF_A_VALUE, subject)
        arrays = {name: tree[name].array(library="np") if name in flat else None for name in kinds}
    return _table(arrays, source, subject)


@contextmanager
def _without_code(subject: str) -> Iterator[None]:
    """A context in which uproot refuses objects that it would read by code made from the file."""
    parts = _imported("uproot.deserialization", subject)
    compile_class = parts.compile_class

    def refuse(*_: object) -> None:
        raise FileError(
            f"{subject} needs code that it describes itself, and kappaflow runs no code from a "
            "file: write its numbers to a tree of plain branches, or to parquet."
        )

    parts.compile_class = refuse
    try:
        yield
    finally:
        parts.compile_class = compile_class


def _table(arrays: Arrays, source: str, subject: str) -> RawTable:
    """Returns arrays as columns, of two axes as name0, name1, ...; a note names the others."""
    kept = {
        name: np.char.decode(array, "utf-8", "replace") if array.dtype.kind == "S" else array
        for name, array in arrays.items()
        if array is not None and array.ndim <= 2 and array.dtype.kind in "biufSU"
    }
    if len({len(array) for array in kept.values()}) > 1:
        listed = ", ".join(f"'{name}' {array.shape}" for name, array in kept.items())
        raise FileError(f"{subject} holds arrays of different lengths: {listed}.")
    refuse_wide(sum(math.prod(array.shape[1:]) for array in kept.values()), subject)
    columns = [
        replace(column, origin="frame")
        for name, array in kept.items()
        for column in array_columns(array, subject, name)
    ]
    left_out = [name for name in arrays if name not in kept]
    note = f"left out of {subject}, since they hold lists or objects: {quoted(left_out)}"
    return replace(collect(columns, source, subject), notes=(note,) if left_out else ())


def _sqlite(path: Path, source: str, subject: str, table: str | None) -> RawTable:
    sqlite3 = _imported("sqlite3", subject)
    with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as connection:
        connection.execute("PRAGMA trusted_schema = OFF")
        listing = "SELECT 'main', name FROM sqlite_master WHERE type = 'table'"
        return _database(
            connection, f"{listing} AND name NOT GLOB 'sqlite_*'", source, subject, table
        )


def _duckdb(path: Path, source: str, subject: str, table: str | None) -> RawTable:
    duckdb = _imported("duckdb", subject)
    with closing(duckdb.connect(str(path), read_only=True, config=CLOSED)) as connection:
        listing = "SELECT schema_name, table_name FROM duckdb_tables() WHERE NOT internal"
        return _database(connection, listing, source, subject, table)


def _database(
    connection: Any, listing: str, source: str, subject: str, table: str | None
) -> RawTable:
    """Returns a table of an open database, whose name is one of those that `listing` returns."""
    import narwhals as nw
    import polars as pl

    tables = {
        name if schema == "main" else f"{schema}.{name}": (schema, name)
        for schema, name in connection.execute(listing).fetchall()
    }
    parts = tables[choose_table(list(tables), table, subject)]
    name = ".".join('"' + part.replace('"', '""') + '"' for part in parts)
    (count,) = connection.execute(f"SELECT count(*) FROM {name}").fetchone()
    cursor = connection.execute(f"SELECT * FROM {name}")
    names = [column[0] for column in cursor.description]
    refuse_wide(len(names), subject)
    refuse_large(count * len(names) * _OF_A_VALUE, subject)
    values = list(zip(*cursor.fetchall(), strict=True)) or [()] * len(names)
    series = [pl.Series(*pair, strict=False) for pair in zip(names, values, strict=True)]
    return from_frame(nw.from_native(pl.DataFrame(series)), source, subject)


def _excel(path: Path, source: str, subject: str, table: str | None) -> RawTable:
    """Returns a sheet, whose first row has the names of its columns."""
    import narwhals as nw
    import polars as pl

    fastexcel = _imported("fastexcel", subject)
    with zipfile.ZipFile(path) as archive:
        refuse_large(sum(entry.file_size for entry in archive.infolist()), subject)
    name = choose_table(fastexcel.read_excel(path).sheet_names, table, subject, "sheets")
    frame = pl.read_excel(path, sheet_name=name, engine="calamine", raise_if_empty=False)
    refuse_wide(frame.width, subject)
    header_of(frame.columns, subject)
    return from_frame(nw.from_native(frame), source, subject)


BINARY_READERS: dict[str, BinaryReader] = {
    **dict.fromkeys((".h5", ".hdf5"), _hdf5),
    **dict.fromkeys((".fits", ".fit", ".fits.gz"), _fits),
    ".root": _root,
    **dict.fromkeys((".sqlite", ".db"), _sqlite),
    ".duckdb": _duckdb,
    ".xlsx": _excel,
}
