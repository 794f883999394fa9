"""CSV text: numbers in every spelling, missing values, strays, and lines that do not fit."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kappaflow.data import load_table
from kappaflow.data.text import read_delimited
from kappaflow.errors import DataError, FileError

Write = Callable[[str, str | bytes], Path]


@settings(deadline=None)
@given(st.lists(st.floats(allow_nan=False), min_size=1, max_size=30))
def test_every_float_comes_back_from_text_unchanged(numbers: list[float]) -> None:
    """The shortest spelling of a float64, infinities included, is read to the same bits."""
    text = "a\n" + "".join(f"{number!r}\n" for number in numbers)
    column = read_delimited(text.encode(), "t", "t").columns["a"]
    np.testing.assert_array_equal(column.numbers(), np.array(numbers))


def test_usual_spellings_of_numbers_are_numbers(write: Write) -> None:
    """Signs, exponents, bare points, spaces around, and whole numbers beyond 64 bits."""
    path = write("t.csv", "a, b\n+1, 1e3\n-.5, 2E-2\n 3. ,123456789012345678901234\n")
    table = load_table(path)
    assert table.columns == ("a", "b")
    np.testing.assert_array_equal(
        table.values, [[1, 1e3], [-0.5, 2e-2], [3, 123456789012345678901234.0]]
    )


@pytest.mark.parametrize(
    "word", ["", "NA", "N/A", "n/a", "nan", "NaN", "NULL", "null", "None", "?", '""']
)
def test_usual_spellings_of_nothing_are_missing(write: Write, word: str) -> None:
    """A column with such a word stays a column of numbers."""
    table = load_table(write("t.csv", f"a,b\n1.5,2\n{word},3\n2.5,{word}\n"))
    np.testing.assert_array_equal(np.isnan(table.values), [[0, 0], [1, 0], [0, 1]])


def test_truth_values_count_as_one_and_zero_where_they_are_named(write: Write) -> None:
    """In any case of letters, missing ones staying missing; they are left out otherwise."""
    path = write("t.csv", "a,b\n1.5,true\n2.5,FALSE\n3.5,\n4.5,True\n")
    assert load_table(path).left_out == ("b",)
    table = load_table(path, columns=["a", "b"])
    np.testing.assert_array_equal(table.values[:, 1], [1, 0, np.nan, 1])
    assert table.integer_columns == ("b",)


def test_a_late_word_among_numbers_is_named_with_its_line(write: Write) -> None:
    """The word stands far beyond any sample of the file; its line counts the header."""
    lines = [f"{number / 4},{number / 2}" for number in range(1, 20_001)]
    lines[15_006] = "3751.75,n.a."
    path = write("t.csv", "a,b\n" + "\n".join(lines))
    with pytest.raises(DataError, match=r"column 'b' .* a text 'n.a.' at line 15008"):
        load_table(path)
    assert load_table(path, exclude="b").columns == ("a",)
    kept = load_table(path, where="b!=n.a.")
    assert kept.columns == ("a",)
    assert len(kept) == 19_999


def test_a_column_without_a_name_is_called_by_its_place(write: Write) -> None:
    """As a written index has it; the empty column of a trailing comma is passed over."""
    path = write("t.csv", ",a\n0.5,1.5\n1,2.5\n")
    assert load_table(path).columns == ("column_1", "a")
    assert load_table(write("x.csv", ",a\n0,1.5\n,2.5\n9,3.5\n")).columns == ("column_1", "a")
    assert load_table(write("u.csv", "a,b,\n1.5,2,\n2.5,3,\n")).columns == ("a", "b")
    assert load_table(write("v.csv", "0,1\n1.5,2.5\n")).columns == ("0", "1")  # as pandas writes
    assert load_table(write("w.csv", "0\n1.5\n")).columns == ("0",)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a,b\n1,2\n1,2,3\n", "line 3 of .* has 3 fields where the header has 2"),
        ("a,b\n1,2\n1\n2,3\n", "line 3 of .* has 1 field where the header has 2"),
        ("a,b\n1,2,3\n1,2,4\n", "line 2 of .* has 3 fields where the header has 2"),
        ('a,b\n1,"x\n2,3\n', "quote|has 1 field"),
        ("\n\n", "is empty"),
        ("a,b\n1,\0\n", "binary data"),
        ("a,b\n1,x\n2,\xe9\n".encode("latin-1"), "not UTF-8 text .byte 0xe9 in line 3.: save it"),
        ("a,b\n1,2\n".encode("utf-32"), "binary data"),
        ("a,b\n", "has a header but no rows"),
        ("a,b,a\n1,2,3\n", "more than one column named 'a'"),
        ("0.5,1.5\n1,2\n", r"first line of .*holds numbers \(0.5, 1.5\)"),
    ],
)
def test_a_text_that_is_no_table_is_refused(write: Write, text: str | bytes, words: str) -> None:
    """With the line of what does not fit."""
    with pytest.raises((DataError, FileError), match=words):
        load_table(write("t.csv", text))


def test_rows_are_counted_as_rows(write: Write) -> None:
    """Quotes may hold separators and line ends; blank lines are rows except at the end."""
    table = load_table(write("t.csv", 'a,b\n1.5,"x,\ny"\n2.5,"z"\n'), where="b=z")
    assert table.values.tolist() == [[2.5]] and table.rows.tolist() == [2]
    table = load_table(write("u.csv", "a,b\n1.5,2\n\n3.5,4\n\n\n"))
    assert np.isnan(table.values).all(axis=1).tolist() == [False, True, False]
