"""A matrix is read with every number in its place, or refused in one sentence."""

import io
import sys

import numpy as np
import polars as pl
import pytest

from kappaflow.data import load_matrix
from kappaflow.errors import DataError, FileError

MATRIX = np.array([[0.5, -1.0, 2e-3], [3.0, 4.0, 5.0], [6.0, 7.0, 8.5]])


def written(tmp_path, name, text):
    """Returns the path of a text file."""
    path = tmp_path / name
    path.write_text(text)
    return str(path)


def lines(separator=",", header=""):
    """Returns the matrix as text."""
    rows = [separator.join(map(repr, row)) for row in MATRIX.tolist()]
    return header + "\n".join(rows) + "\n"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("plain.csv", lines()),
        ("named.csv", lines(header="a,b,c\n")),
        ("counted.csv", lines(header="0,1,2\n")),
        ("semicolons.csv", lines(";")),
        ("plain.tsv", lines("\t")),
        ("empty lines.csv", lines().replace("\n", "\n\n")),
        ("spaces.csv", lines(" , ")),
    ],
)
def test_text_is_read_with_and_without_a_header(tmp_path, name, text):
    """Names are left out, and so are the numbers that pandas gives to unnamed columns."""
    assert (load_matrix(written(tmp_path, name, text)) == MATRIX).all()


def test_binary_files_and_standard_input_are_read_too(tmp_path, monkeypatch):
    """Npy of whole numbers, npz, parquet, and a csv through the pipe."""
    np.save(tmp_path / "m.npy", np.array([[1, 2], [3, 4]]))
    np.savez(tmp_path / "m.npz", matrix=MATRIX)
    pl.DataFrame(MATRIX).write_parquet(tmp_path / "m.parquet")
    assert load_matrix(str(tmp_path / "m.npy")).tolist() == [[1.0, 2.0], [3.0, 4.0]]
    for name in ("m.npz", "m.parquet"):
        assert (load_matrix(str(tmp_path / name)) == MATRIX).all()
    pipe = io.TextIOWrapper(io.BytesIO(lines().encode()))
    monkeypatch.setattr(sys, "stdin", pipe)
    assert (load_matrix("-") == MATRIX).all()


@pytest.mark.parametrize(
    ("name", "text", "printed"),
    [
        ("word.csv", "1,2\n3,x\n", "line 2 .* got 'x' at place 2"),
        ("gap.csv", "1,2\n3,\n", "line 2 .* got nothing at place 2"),
        ("gap after a header.csv", "a,b\n1,2\nnan?,4\n", "line 3"),
        ("ragged.csv", "1,2\n3,4,5\n", "line 2 .* should have 2 numbers"),
        ("header only.csv", "a,b\n", "no rows of numbers"),
        ("index.csv", ",0,1\n0,1,2\n1,3,4\n", "line 1 .* got nothing at place 1"),
        ("a.csv", "1,2\n3,4_0\n", "line 2 of .* got '4_0' at place 2"),
    ],
)
def test_a_place_without_a_number_is_named(tmp_path, name, text, printed):
    """Nothing is left out or filled in."""
    with pytest.raises(DataError, match=printed):
        load_matrix(written(tmp_path, name, text))


def test_several_arrays_in_one_file_are_named_and_refused(tmp_path):
    """Of whatever shapes: which is meant cannot be known."""
    np.savez(tmp_path / "two.npz", weight=MATRIX, shift=np.zeros(3))
    np.savez(tmp_path / "odd.npz", a=MATRIX, b=np.zeros(2))
    (tmp_path / "cut.npz").write_bytes((tmp_path / "two.npz").read_bytes()[:-30])
    for name, error, message in (
        ("two", DataError, "several arrays, with 'weight0', 'weight1', 'weight2', 'shift'"),
        ("odd", FileError, "arrays of different lengths: 'a' .*, 'b' "),
        ("cut", FileError, "damaged"),
    ):
        with pytest.raises(error, match=message):
            load_matrix(str(tmp_path / f"{name}.npz"))


def test_files_that_hold_no_matrix_are_refused(tmp_path):
    """Pickled objects, columns of text, no file, an empty one."""
    np.save(tmp_path / "objects.npy", np.array([[1, "a"]], dtype=object), allow_pickle=True)
    pl.DataFrame({"a": [1.0], "b": ["x"]}).write_parquet(tmp_path / "text.parquet")
    (tmp_path / "empty.csv").touch()
    for name, error, printed in (
        ("objects.npy", FileError, "pickled objects, which are never read"),
        ("text.parquet", DataError, "column 'b'"),
        ("empty.csv", FileError, "empty"),
        ("object.npy", FileError, "did you mean 'objects.npy'"),
    ):
        with pytest.raises(error, match=printed):
            load_matrix(str(tmp_path / name))
