"""`load_matrix`: a matrix from a file, where every number counts and none is left out."""

import csv
import io
import sys
import zipfile
from pathlib import Path

import numpy as np

from kappaflow.data.delimited import all_numbers, consecutive, decoded, separator_of
from kappaflow.data.files import read_file
from kappaflow.data.load import no_such_file
from kappaflow.data.raw import quoted
from kappaflow.data.table import FloatArray
from kappaflow.data.text_numbers import MISSING
from kappaflow.errors import DataError, FileError

TEXT = (".csv", ".tsv")


def load_matrix(source: str) -> FloatArray:
    r"""Returns the numbers of a file as a matrix, a row a line.

    A header line is left out. Text tells it by its names; one of numbers is a row, unless it
    counts the columns and is one line more than a square matrix has.

    Args:
        source: A csv, tsv, parquet, arrow, feather, ipc, npy or npz file; "-" for CSV on standard
            input. Pickles are never read.

    Returns:
        The matrix, float64, (rows, columns).

    Raises:
        DataError: A place holds text, or nothing; or there are several arrays.
        FileError: The file is missing, damaged, or of an unknown kind.

    Example:
        >>> import pathlib, tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = pathlib.Path(folder) / "turn.csv"
        ...     _ = path.write_text("0,-1\n1,0\n")
        ...     load_matrix(str(path))
        array([[ 0., -1.],
               [ 1.,  0.]])
    """
    if source == "-":
        data = sys.stdin.buffer.read()
        if not data:
            raise FileError("standard input is empty: pipe a CSV of numbers into it.")
        return _from_text(data, "standard input")
    path = Path(source).expanduser()
    if not path.exists():
        raise FileError(f"{no_such_file(path)}: give a path.")
    if path.suffix.lower() not in TEXT or path.is_dir() or not path.stat().st_size:
        return _from_columns(path, source)
    try:
        data = path.read_bytes()
    except PermissionError:
        raise FileError(f"'{source}' may not be read: its permissions forbid it.") from None
    return _from_text(data, f"'{source}'", "\t" if path.suffix.lower() == ".tsv" else None)


def _from_columns(path: Path, source: str) -> FloatArray:
    if len(arrays := _array_names(path)) > 1:
        raise DataError(
            f"'{source}' holds {len(arrays)} arrays, {quoted(arrays)}: a matrix should be alone "
            "in its file, as np.save writes it."
        )
    raw = read_file(path, source)
    for column in raw.columns.values():
        if not column.is_number:
            raise DataError(f"column '{column.name}' of {raw.subject} should hold numbers.")
    return np.stack([column.numbers() for column in raw.columns.values()], axis=1)


def _array_names(path: Path) -> list[str]:
    """Returns the names of the arrays of an npz file; none for others, or if it is damaged."""
    if path.suffix.lower() != ".npz" or not path.is_file():
        return []
    try:
        with zipfile.ZipFile(path) as file:
            return [name.removesuffix(".npy") for name in file.namelist()]
    except Exception:  # of whatever kind: who reads it next says what is wrong
        return []


def _from_text(data: bytes, subject: str, separator: str | None = None) -> FloatArray:
    text = decoded(data, subject)
    reader = csv.reader(io.StringIO(text), delimiter=separator or separator_of(text))
    try:
        lines = [(reader.line_num, line) for line in reader if line]
    except csv.Error as error:
        raise FileError(f"line {reader.line_num} of {subject} cannot be read: {error}.") from None
    first = [name.strip() for name in lines[0][1]]
    counts = consecutive(first) and len(lines) == len(first) + 1
    if counts or not any(all_numbers([name]) for name in first):
        lines = lines[1:]
    if not lines:
        raise DataError(f"{subject} has no rows of numbers.")
    return np.array([_numbers(line, number, len(first), subject) for number, line in lines])


def _numbers(line: list[str], number: int, width: int, subject: str) -> list[float]:
    """Returns the numbers of a line, or says which of its places holds none."""
    if len(line) != width:
        raise DataError(
            f"line {number} of {subject} should have {width} numbers as the first line has, "
            f"got {len(line)}."
        )
    found = []
    for place, text in enumerate(line, start=1):
        held = text.strip()
        try:
            found.append(float("" if "_" in held else held))  # "1_0" is ten to Python only
        except ValueError:
            what = "nothing" if held in MISSING else f"{held[:40]!r}"
            raise DataError(
                f"line {number} of {subject} should hold numbers only, got {what} at place "
                f"{place}."
            ) from None
    return found
