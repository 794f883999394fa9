"""Reads tables from files by suffix, within the available memory. Nothing is ever unpickled."""

import io
import math
import sys
import textwrap
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.lib.format import read_array_header_1_0, read_array_header_2_0, read_magic
from numpy.typing import NDArray

from kappaflow.data.binary_files import BINARY_READERS
from kappaflow.data.limits import OPENERS, decompressed, refuse_large, refuse_wide, unpacked
from kappaflow.data.memory import array_columns, from_frame
from kappaflow.data.raw import READ_ALL, Column, RawTable, Reading, collect, without_missing
from kappaflow.data.text import LOOSE, read_delimited
from kappaflow.errors import FileError, KappaflowError

Reader = Callable[[Path, str, str, Reading], RawTable]
STDIN = "standard input"
STREAM = b"\xff\xff\xff\xff"  # the first bytes of a stream of Arrow
_OF_A_VALUE = 16  # bytes in memory: a number has 8, a text 16 and more


def standard_input() -> bytes:
    """Returns what is piped into this process; raises FileError if that is nothing."""
    data = sys.stdin.buffer.read()
    if not data:
        raise FileError(f"{STDIN} is empty: pipe a CSV into it.")
    return data


def path_and_table(source: str) -> tuple[Path, str | None]:
    """Returns the path of a file and the table named after it, as in "events.root::Events"."""
    path, (name, sign, table) = Path(source).expanduser(), source.partition("::")
    return (path, None) if path.exists() or not sign else (Path(name).expanduser(), table)


def read_file(
    path: Path, source: str, reading: Reading = READ_ALL, table: str | None = None
) -> RawTable:
    """Returns the columns of a file, or of a table in it; raises FileError if there is none."""
    subject, name = f"'{source}'", path.name.lower()
    if path.is_dir():
        raise FileError(f"{subject} is a folder: give a file in it.")
    if name.endswith(".zst"):
        raise FileError(f"{subject} is compressed: decompress it first, by zstd -d {path.name}.")
    suffix = next((suffix for suffix in SUFFIXES if name.endswith(suffix)), None)
    if suffix is None:
        named = ", ".join(name for name in SUFFIXES if _TEXTS.get(name, name) == name)
        packed = ", ".join(PACKED)
        raise FileError(
            f"{subject} has no suffix that names a table: use one of {named}, text also with "
            f"{packed} after it."
        )
    of_many = BINARY_READERS.get(suffix)
    if table is not None and of_many is None and not suffix.endswith(".zip"):
        raise FileError(f"{subject} names a table, and a {suffix} file holds only one.")
    with explained(path, subject):
        if path.stat().st_size == 0:
            raise FileError(f"{subject} is empty (0 bytes).")
        if of_many is not None:
            return without_missing(of_many(path, source, subject, table), reading)
        if suffix in _READERS:
            return _READERS[suffix](path, source, subject, reading)
        is_packed = suffix != _TEXTS[suffix]
        content = decompressed(path, subject, table) if is_packed else path.read_bytes()
        return read_delimited(content, source, subject, _TEXTS[suffix], reading)


@contextmanager
def explained(
    path: Path, subject: str, sentence: Callable[[str, str], str] | None = None
) -> Iterator[None]:
    """Turns any exception of a reader into a FileError; `sentence` words those of damage."""
    try:
        yield
    except KappaflowError:
        raise
    except FileNotFoundError:
        raise FileError(f"there is no file {subject} (any more).") from None
    except PermissionError:
        raise FileError(f"{subject} may not be read: its permissions forbid it.") from None
    except MemoryError:
        raise FileError(f"{subject} does not fit in memory, or is damaged.") from None
    except BaseException as error:
        kind = type(error).__name__
        if not isinstance(error, Exception) and kind != "PanicException":  # of polars
            raise
        reason = textwrap.shorten(str(error) or kind, 90).rstrip(".")
        damage = f"{subject} is damaged or is not a {path.suffix.lower()} file ({reason})"
        way_out = "write it again, or correct its suffix"
        text = f"{damage}: {way_out}." if sentence is None else sentence(kind, reason)
        raise FileError(text) from None


def _frame(path: Path, source: str, subject: str, reading: Reading) -> RawTable:
    """Returns the columns of a parquet or Arrow file, or of a stream of Arrow."""
    import narwhals as nw
    import polars as pl

    with path.open("rb") as file:
        is_stream = file.read(4) == STREAM
    if is_stream:
        frame = pl.read_ipc_stream(path)
    else:
        is_parquet = path.suffix.lower() == ".parquet"
        scan = (pl.scan_parquet if is_parquet else pl.scan_ipc)(path, glob=False)
        width = len(scan.collect_schema())
        refuse_wide(width, subject)
        rows = scan.select(pl.len()).collect().item()
        refuse_large(rows * width * _OF_A_VALUE, subject)
        frame = scan.collect()
    return without_missing(from_frame(nw.from_native(frame), source, subject), reading)


def _numpy(path: Path, source: str, subject: str, reading: Reading) -> RawTable:
    try:
        # numpy leaves a damaged file open if it is given the path
        with path.open("rb") as file:
            if file.read(2) == b"PK":
                columns = _columns_of(_arrays_of(file, subject), subject)
            else:
                columns = array_columns(_array(file, path.stat().st_size, subject), subject)
    except ValueError as error:
        if "allow_pickle" not in str(error):
            raise
        raise FileError(
            f"{subject} holds pickled objects, which are never read: save an array of numbers."
        ) from None
    return without_missing(collect(columns, source, subject), reading)


def _columns_of(arrays: dict[str, NDArray[Any]], subject: str) -> list[Column]:
    """Returns x0, x1, ... for one array; for several the key, or key0, key1, ... of 2-D ones."""
    if len(arrays) == 1:
        return array_columns(next(iter(arrays.values())), subject)
    if len({array.shape[:1] for array in arrays.values()}) > 1:
        listed = ", ".join(f"'{name}' {array.shape}" for name, array in arrays.items())
        raise FileError(f"{subject} holds arrays of different lengths: {listed}.")
    return [
        column
        for name, array in arrays.items()
        for column in array_columns(array, f"'{name}' in {subject}", name)
    ]


def _array(file: BinaryIO, size: int, subject: str) -> NDArray[Any]:
    """Returns the array of an open npy file of `size` bytes; raises an error if it is damaged."""
    file.seek(0)
    major, _ = read_magic(file)
    shape, _, dtype = (read_array_header_1_0 if major == 1 else read_array_header_2_0)(file)
    promised = math.prod(shape) * max(1, dtype.itemsize)
    negative = any(length < 0 for length in shape)
    if negative or (not dtype.hasobject and promised > size - file.tell()):
        raise FileError(
            f"{subject} is damaged or cut off: it promises an array of shape {shape} and holds "
            f"{size - file.tell()} bytes."
        )
    refuse_wide(shape[1] if len(shape) > 1 else len(dtype.names or ()), subject)
    file.seek(0)
    return np.load(file, allow_pickle=False)


def _arrays_of(file: BinaryIO, subject: str) -> dict[str, NDArray[Any]]:
    """Returns the arrays of an npz file by name; its names never become paths."""
    with zipfile.ZipFile(file) as archive:
        entries = archive.infolist()
        refuse_wide(len(entries), subject)
        refuse_large(sum(entry.file_size for entry in entries), subject)
        arrays = {}
        for entry in entries:
            with archive.open(entry) as member:
                content = unpacked(member, subject, entry.file_size)
            name = entry.filename.removesuffix(".npy")
            arrays[name] = _array(io.BytesIO(content), len(content), subject)
        return arrays


PACKED = (*OPENERS, ".zip")  # suffixes of compressed files
_TEXTS = {text + packed: text for text in (".csv", ".tsv", *LOOSE) for packed in ("", *PACKED)}
_READERS: dict[str, Reader] = {
    **dict.fromkeys((".parquet", ".arrow", ".feather", ".ipc"), _frame),
    **dict.fromkeys((".npy", ".npz"), _numpy),
}
SUFFIXES = (*_TEXTS, *_READERS, *BINARY_READERS)
