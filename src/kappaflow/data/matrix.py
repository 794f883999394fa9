"""`load_matrix`: the numbers of a file, every one in its place."""

import csv
import io
from pathlib import Path

import numpy as np

from kappaflow.data.files import STDIN, explained, read_file, standard_input
from kappaflow.data.load import no_such_file
from kappaflow.data.naming import FloatArray
from kappaflow.data.raw import RawTable, quoted
from kappaflow.data.text import all_numbers, consecutive, decoded, separator_of
from kappaflow.data.text_numbers import MISSING
from kappaflow.errors import DataError, FileError


def load_matrix(source: str) -> FloatArray:
    r"""Returns the numbers of a file as a matrix, one row a line.

    A first line without any number is a header, which is left out; so is a first line that counts
    the columns of a square matrix below it.

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
        return _from_text(standard_input(), STDIN)
    path, subject = Path(source).expanduser(), f"'{source}'"
    if not path.exists():
        raise FileError(f"{no_such_file(path)}: give a path.")
    if path.suffix.lower() not in {".csv", ".tsv"} or path.is_dir() or not path.stat().st_size:
        return _from_columns(read_file(path, source))
    with explained(path, subject):
        data = path.read_bytes()
    return _from_text(data, subject, "\t" if path.suffix.lower() == ".tsv" else None)


def _from_columns(raw: RawTable) -> FloatArray:
    columns = raw.columns.values()
    if raw.source.lower().endswith(".npz") and "x0" not in raw.columns:
        raise DataError(
            f"{raw.subject} holds several arrays, with {quoted(tuple(raw.columns))}: a matrix "
            "should be alone in its file, as np.save writes it."
        )
    for column in columns:
        if not column.is_number:
            raise DataError(f"column '{column.name}' of {raw.subject} should hold numbers.")
    return np.stack([column.numbers() for column in columns], axis=1)


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
    """Returns the numbers of a line; the error names the place that holds none."""
    if len(line) != width:
        raise DataError(
            f"line {number} of {subject} should have {width} numbers as the first line has, "
            f"got {len(line)}."
        )
    numbers = []
    for position, cell in enumerate(map(str.strip, line), start=1):
        try:
            numbers.append(float("" if "_" in cell else cell))  # "1_0" is ten to Python only
        except ValueError:
            what = "nothing" if cell in MISSING else f"{cell[:40]!r}"
            raise DataError(
                f"line {number} of {subject} should hold numbers only, got {what} at place "
                f"{position}."
            ) from None
    return numbers
