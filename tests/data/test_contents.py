"""What a file holds: each sort of value is read, or refused with the way out."""

import re

import numpy as np
import pandas as pd
import polars as pl
import pytest

from kappaflow.data import examine, load_table, prepare
from kappaflow.data.chunks import open_chunks
from kappaflow.data.load import read_table
from kappaflow.data.raw import Reading
from kappaflow.data.statistics import sentinels_of
from kappaflow.errors import ArgumentError, DataError, FileError

N = 40
DRAWN = np.random.default_rng(0).normal(size=(N, 3)) + 3


def rows(form, header, separator=","):
    """Returns a text of 40 rows; `form` turns a place and a number into the fields of a row."""
    lines = [separator.join(form(i, *DRAWN[i])) for i in range(N)]
    return "\n".join([header, *lines]) + "\n"


def comma(value, digits=4):
    """Returns a number with a decimal comma."""
    return f"{value:.{digits}f}".replace(".", ",")


READ = {  # text of a file, what is added to the numbers drawn, and a note
    "decimal comma": (
        rows(lambda i, a, b, c: (comma(a), comma(b)), "a;b", ";"),
        "'a' holds numbers written like '{comma}' (line 2), which is read as {a} (40 values)",
    ),
    "decimal comma within quotes": (
        rows(lambda i, a, b, c: (f'"{comma(a)}"', f"{b:.4f}"), "a,b"),
        "'a' holds numbers written like '{comma}' (line 2)",
    ),
    "thousands": (
        rows(lambda i, a, b, c: (f"{a + 1000:,.4f}", f"{b:.4f}"), "a;b", ";"),
        "'a' holds numbers written like '1,003.1257' (line 2), which is read as 1003.1257",
    ),
    "thousands with a decimal comma": (
        rows(lambda i, a, b, c: (f"1.00{comma(a)}", comma(b)), "a;b", ";"),
        "'a' holds numbers written like '1.003,1257' (line 2), which is read as 1003.1257",
    ),
    "thousands with spaces": (
        rows(lambda i, a, b, c: (f"1\u00a000{a:.4f}", f"{b:.4f}"), "a\tb", "\t"),
        "which is read as 1003.1257",
    ),
    "comma in the header": (
        rows(lambda i, a, b, c: (f"{a:.4f}", f"{b:.4f}"), "a;b, in m", ";"),
        None,
    ),
}


@pytest.mark.parametrize("name", READ)
def test_numbers_in_any_spelling_are_read(tmp_path, name):
    """Both columns are modeled, with the numbers that were written, and the spelling is named."""
    text, note = READ[name]
    path = tmp_path / "t.csv"
    path.write_text(text, encoding="utf-8")
    table = load_table(path)
    assert len(table.columns) == 2 and table.left_out == ()
    extra = 1000 if "thousands" in name else 0
    np.testing.assert_allclose(table.values, np.round(DRAWN[:, :2], 4) + [extra, 0], atol=1e-9)
    if note is None:
        assert table.notes == ()
        return
    a = f"{DRAWN[0, 0]:.4f}"
    expected = note.format(a=a, comma=a.replace(".", ","))
    assert any(expected in item for item in table.notes), table.notes


LEFT_OUT = {  # text of a file, the column that is left out, and the sentence about it
    "dates": (
        rows(lambda i, a, b, c: (f"2020-01-{i % 28 + 1:02d}", f"{a}", f"{b}"), "day,a,b"),
        "column 'day' is left out: it holds dates or times, such as '2020-01-01' at line 2 (40 "
        "values); kappaflow.fit_table or FlowDensity(kinds='auto') can model it, and where= can "
        "choose rows by it",
    ),
    "times": (
        rows(lambda i, a, b, c: (f"10:{i + 10}", f"{a}", f"{b}"), "day,a,b"),
        "column 'day' is left out: it holds dates or times, such as '10:10' at line 2 (40 values)",
    ),
    "words with a few numbers": (
        rows(lambda i, a, b, c: ("x" if i % 3 else "7", f"{a}", f"{b}"), "day,a,b"),
        "column 'day' is left out: it holds text, such as '7' at line 2 (40 values)",
    ),
    "categories": (
        rows(lambda i, a, b, c: ("gh"[i % 2], f"{a}", f"{b}"), "day,a,b"),
        "column 'day' is left out: it holds text, such as 'g' at line 2 (40 values)",
    ),
    "booleans": (
        rows(lambda i, a, b, c: (str(a > 3), f"{a}", f"{b}"), "day,a,b"),
        "column 'day' is left out: it holds true and false, on which a density can grow without",
    ),
    "units": (
        rows(lambda i, a, b, c: (f"{a:.4f} kg", f"{a}", f"{b}"), "day,a,b"),
        "column 'day' is left out: it holds text, such as '3.1257 kg' at line 2 (40 values);",
    ),
    "a counter with thousands": (
        rows(lambda i, a, b, c: (f"{990 + i:,}", f"{a}", f"{b}"), "day;a;b", ";"),
        "column 'day' is left out: it counts the rows, from 990 to 1029; name it in columns=",
    ),
    "an index": (
        rows(lambda i, a, b, c: (f"{i}", f"{a}", f"{b}"), ",a,b"),
        "column 'column_1' is left out: it is the index of the rows; name it in columns=",
    ),
    "an index in any order": (
        rows(lambda i, a, b, c: (f"{i * 7 % N}", f"{a}", f"{b}"), "Unnamed: 0,a,b"),
        "column 'Unnamed: 0' is left out: it is the index of the rows",
    ),
    "a running number": (
        rows(lambda i, a, b, c: (f"{1000 + 2 * i}", f"{a}", f"{b}"), "day,a,b"),
        "column 'day' is left out: it counts the rows, from 1000 to 1078; name it in columns=",
    ),
}


@pytest.mark.parametrize("name", LEFT_OUT)
def test_no_column_is_left_out_without_a_sentence(tmp_path, name):
    """Which column, what it holds, and how to use it."""
    text, note = LEFT_OUT[name]
    path = tmp_path / "t.csv"
    path.write_text(text)
    table = load_table(path)
    assert table.columns == ("a", "b")
    assert len(table.notes) == len(table.left_out) == 1
    assert table.notes[0].startswith(note), table.notes
    assert prepare(table)[1][0] == table.notes[0]


@pytest.mark.parametrize("name", ["booleans", "an index", "a running number"])
def test_a_column_of_numbers_that_is_left_out_can_be_named(tmp_path, name):
    """By the option that the sentence names."""
    path = tmp_path / "t.csv"
    path.write_text(LEFT_OUT[name][0])
    column = load_table(path).left_out[0]
    assert load_table(path, columns=[column, "a"]).columns == (column, "a")
    assert load_table(path, context=[column]).context_columns == (column,)


REFUSED = {
    "one bad cell": (
        rows(lambda i, a, b, c: (f"{a}", "oops" if i == 30 else f"{b}"), "a,b"),
        "column 'b' of '{path}' holds numbers and a text 'oops' at line 32: correct it, read it "
        "as missing (missing=['oops']), or leave the column out (exclude=['b']).",
    ),
    "several bad cells": (
        rows(lambda i, a, b, c: (f"{a}", "-" if i in {3, 5} else f"{b}"), "a,b"),
        "column 'b' of '{path}' holds numbers and 2 texts, first '-' at line 5: correct them, "
        "name all that mean a missing value (as in missing=['-']), or leave",
    ),
    "one cell with a decimal comma": (
        rows(lambda i, a, b, c: (f"{a:.4f}", comma(b) if i == 7 else f"{b:.4f}"), "a;b", ";"),
        "holds numbers and a text '{comma}' at line 9",
    ),
    "1,234 alone": (
        rows(lambda i, a, b, c: (f"{i + 1},{i + 234}", "x"), "a;k", ";"),
        "column 'a' of '{path}' holds '1,234' at line 2, which is 1234 with a decimal point and "
        "1.234 with a decimal comma: say which with decimal='.' or decimal=','.",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_read_is_refused_with_the_way_out(tmp_path, name):
    """One sentence, with line and text."""
    text, sentence = REFUSED[name]
    path = tmp_path / "t.csv"
    path.write_text(text)
    expected = sentence.format(path=path, comma=comma(DRAWN[7, 1]))
    with pytest.raises(DataError, match=re.escape(expected)):
        load_table(path)


def test_the_ways_out_of_a_refusal_work(tmp_path):
    """`decimal` decides what 1,234 is, `missing` makes a text a missing value."""
    path = tmp_path / "t.csv"
    path.write_text(REFUSED["1,234 alone"][0])
    assert load_table(path, columns="a", decimal=",").values[0] == [1.234]
    assert load_table(path, columns="a", decimal=".").values[0] == [1234]
    path.write_text(REFUSED["one bad cell"][0])
    table = load_table(path, missing="oops")
    assert np.flatnonzero(np.isnan(table.values[:, 1])).tolist() == [30]
    assert table.notes == ("column 'b' has 1 value oops, read as missing: the first at line 32",)
    with pytest.raises(ArgumentError, match="'decimal' should be '.' or ',', got ';'"):
        load_table(path, decimal=";")


def test_the_other_columns_of_a_file_tell_the_decimal_sign(tmp_path):
    """1,234 is 1.234 next to 0,5, and 1234 next to 0.5; 1.234 is 1234 next to 0,5."""
    path = tmp_path / "t.csv"
    for cells, expected in ((("1,234", "0,5"), 1.234), (("1,234", "0.5"), 1234.0)):
        path.write_text("a;b\n" + ";".join(cells) + "\n")
        assert load_table(path, columns=["a"]).values.tolist() == [[expected]]
    path.write_text("a;b\n1.234;0,5\n")
    table = load_table(path)
    assert table.values.tolist() == [[1234.0, 0.5]]
    assert "'1.234' (line 2), which is read as 1234" in table.notes[0]


def test_a_decimal_sign_that_is_named_holds_for_every_column(tmp_path):
    """Numbers with a point are refused then, not read as others."""
    path = tmp_path / "t.csv"
    path.write_text("a;b\n1,5;0.25\n2,5;0.5\n")
    assert load_table(path).values.tolist() == [[1.5, 0.25], [2.5, 0.5]]
    with pytest.raises(
        DataError, match="'b' .* holds '0.25' at line 2, which is not a number with a decimal"
    ):
        load_table(path, decimal=",")
    path.write_text("a;b\n1,5;1.250\n2,5;0.5\n")  # of which the first can be 1250
    with pytest.raises(DataError, match="'b' .* holds '0.5' at line 3, which is not a number"):
        load_table(path, decimal=",")


def test_values_named_as_missing_are_missing_in_any_source(tmp_path):
    """As text, and as the same number."""
    path = tmp_path / "t.csv"
    path.write_text("a,b\n1.5,2\n-999.0,3\n-999,4\n")
    frame = pl.DataFrame({"a": [1.5, -999.0, -999.0], "b": [2, 3, 4]})
    frame.write_parquet(tmp_path / "t.parquet")
    sources = [
        path,
        tmp_path / "t.parquet",
        frame,
        pd.DataFrame(frame.to_dict(as_series=False)),
        frame.to_numpy(),
    ]
    for source in sources:
        table = load_table(source, missing=["-999"])
        np.testing.assert_array_equal(table.values, [[1.5, 2], [np.nan, 3], [np.nan, 4]])
        name = "line 3" if source is path else "row 2"
        name = "index 1" if isinstance(source, pd.DataFrame) else name
        assert table.notes[0].endswith(f"2 values -999, read as missing: the first at {name}")


def test_only_the_values_named_as_missing_are_missing():
    """-99999999 is the float32 number -100000000, and 1e300 is none."""
    table = load_table(np.array([[-100000000], [5]]), missing=["-99999999", "1e300"])
    np.testing.assert_array_equal(table.values, [[-1e8], [5]])
    single = load_table(np.array([[-999.9], [5]], dtype=np.float32), missing="-999.9")
    np.testing.assert_array_equal(single.values, [[np.nan], [5]])


@pytest.mark.parametrize(
    ("texts", "other", "decimal", "numbers"),
    [
        (("abc", "1,234.5", "2,345.5"), "0.5", None, [np.nan, 1234.5, 2345.5]),
        (("1,234", "abc", "5,678"), "0,5", None, [1.234, np.nan, 5.678]),
        (("abc", "3", "4,5"), "0,5", ",", [np.nan, 3, 4.5]),
    ],
)
def test_a_text_among_the_numbers_to_score_changes_no_number(
    tmp_path, texts, other, decimal, numbers
):
    """With thousands, with the decimal sign of the other column, and with one that is named."""
    path = tmp_path / "t.csv"
    path.write_text("a;b\n" + "".join(f"{text};{other}\n" for text in texts))
    table = read_table(path, Reading(("a",), decimal=decimal, lenient=True))
    np.testing.assert_array_equal(table.values[:, 0], numbers)
    path.write_text("a;b\n1,234;5\nabc;5\n5,678;5\n")
    with pytest.raises(DataError, match="'1,234' at line 2, which is 1234 with a decimal point"):
        read_table(path, Reading(("a",), lenient=True))


def test_frames_go_by_the_same_rules():
    """An index that was read from a file, a running number, booleans."""
    frame = pd.DataFrame({
        "Unnamed: 0": np.arange(N)[::-1],
        "id": np.arange(N) + 7,
        "flag": DRAWN[:, 0] > 3,
        "a": DRAWN[:, 0],
    })
    for source in (frame, pl.from_pandas(frame)):
        table = load_table(source)
        assert table.columns == ("a",)
        assert [note.split("'")[1] for note in table.notes[:3]] == ["Unnamed: 0", "id", "flag"]
    few = load_table(frame[["id", "a"]].head(19))
    assert few.columns == ("id", "a")  # 19 rows can count by chance


def test_arrays_keep_all_columns_and_are_warned_about():
    """A flow of three features is fitted to an array of three columns."""
    array = np.stack([np.arange(N), DRAWN[:, 0] > 3, DRAWN[:, 1]], axis=1)
    table = load_table(array)
    assert table.columns == ("x0", "x1", "x2") and table.notes == ()
    problems = {problem.code: problem.message for problem in examine(table)}
    assert problems["counts-rows"].startswith("column 'x0' counts the rows, from 0 to 39")
    assert problems["two-values"].startswith("column 'x1' holds only 0 and 1")
    assert problems["two-values"] in prepare(table, repair="keep")[1]


def test_a_fit_to_few_of_the_columns_is_warned_about(tmp_path):
    """Where nobody has asked for it."""
    path = tmp_path / "t.csv"
    path.write_text(rows(lambda i, a, b, c: ("x", "y", "z", f"{a}"), "k,l,m,a"))
    table = load_table(path)
    assert table.warnings[0].startswith("only 1 of 4 columns is modeled: kappaflow.fit_table")
    assert table.warnings[0] in table.notes
    for given in ({"columns": ["a"]}, {"exclude": ["k", "l"]}):
        assert load_table(path, **given).warnings == ()


def test_many_columns_of_one_sort_share_a_sentence():
    """All of them are named."""
    names = [f"t{i}" for i in range(30)]
    frame = pl.DataFrame({"a": DRAWN[:, 0]}).with_columns(pl.lit("x").alias(n) for n in names)
    note = load_table(frame).notes[0]
    assert all(f"'{name}'" in note for name in names) and note.startswith(
        "column 't0' is left out: it holds text"
    )


def with_code(value, column):
    """Returns a table in which every eighth value is a code."""
    values = np.array(column, dtype=float)
    values[::8] = value
    return load_table(np.stack([values, DRAWN[: len(values), 1]], axis=1))


@pytest.mark.parametrize(
    ("value", "column"),
    [
        (-999, DRAWN[:, 0]),
        (-9999, np.exp(3 * DRAWN[:, 0])),
        (9999, 100 * DRAWN[:, 0]),
        (-99.9, DRAWN[:, 0]),
        (99, DRAWN[:, 0]),
        (-1, 2 + np.random.default_rng(1).random(N)),
    ],
)
def test_codes_for_missing_values_are_found(value, column):
    """Far from the rest, or negative among lengths."""
    table = with_code(value, column)
    (sentinel,) = sentinels_of(table)
    assert (sentinel.column, sentinel.value, sentinel.mask.sum()) == ("x0", value, 5)
    (problem,) = (item for item in examine(table) if item.code == "sentinel")
    expected = (
        f"column 'x0' holds {value:g} in 5 of 40 rows, first at row 1, far from its other "
        f"values: if it stands for a missing value, say so by missing=['{value:g}'], if it "
        "is a measurement, by missing=['none']"
    )
    assert problem.message == expected
    known = load_table(table.values, missing="none")
    assert not [item for item in examine(known) if item.code == "sentinel"]


@pytest.mark.parametrize(
    ("value", "column"),
    [
        (0, DRAWN[:, 0] + 100),
        (9999, np.random.default_rng(0).integers(0, 10_000, N)),
        (99, np.random.default_rng(0).integers(0, 100, N)),
        (-1, DRAWN[:, 0] - 3),
        (-1, np.random.default_rng(0).integers(0, 7, N)),
        (-1, np.ones(N)),
        (9, np.random.default_rng(0).poisson(3, N)),
        (-999, 500 * DRAWN[:, 0] - 1500),
    ],
)
def test_honest_values_are_not_taken_for_codes(value, column):
    """Zeros, whole numbers up to 99 or 9999, labels, values among others."""
    assert sentinels_of(with_code(value, column)) == []


def test_a_single_column_can_have_decimal_commas(tmp_path):
    """If the user says so: they could as well separate a column whose name is missing."""
    path = tmp_path / "t.csv"
    path.write_text("a\n" + "".join(f"{comma(a)}\n" for a in DRAWN[:, 0]))
    table = load_table(path, decimal=",")
    np.testing.assert_allclose(table.values[:, 0], np.round(DRAWN[:, 0], 4), atol=1e-9)
    assert "holds numbers written like '3,1257' (line 2)" in table.notes[0]
    message = r"line 2 of '.*' has 2 fields where the header has 1: .*or if it is a decimal comma"
    with pytest.raises(FileError, match=message):
        load_table(path)


@pytest.mark.parametrize("name", [*READ, *LEFT_OUT, *REFUSED, "missing"])
def test_a_file_read_in_chunks_is_read_the_same(tmp_path, name, monkeypatch):
    """Values, columns, and the same notes; or the same words where it is refused."""
    monkeypatch.setattr("kappaflow.data.chunks.CHUNK_ROWS", 7)
    coded = rows(lambda i, a, b, c: ("-999.0" if i % 9 == 8 else f"{a}", f"{b}"), "a,b")
    path, reading = tmp_path / "t.csv", Reading(missing=("-999",) * (name == "missing"))
    path.write_text((READ | LEFT_OUT | REFUSED | {"missing": (coded,)})[name][0], encoding="utf-8")
    if name in REFUSED:
        with pytest.raises(DataError) as at_once:
            load_table(str(path))
        with pytest.raises(DataError, match=re.escape(str(at_once.value))):
            open_chunks(str(path))
        return
    table = load_table(str(path), missing=reading.missing)
    chunks = open_chunks(str(path), reading)
    parts = [chunks.read(number) for number in range(len(chunks))]
    assert np.concatenate([part.values for part in parts]).tobytes() == table.values.tobytes()
    assert (chunks.columns, chunks.left_out) == (table.columns, table.left_out)
    assert (chunks.notes, chunks.warnings) == (table.notes, table.warnings)


def test_an_index_in_a_parquet_file_is_left_out_in_chunks_too(tmp_path, monkeypatch):
    """And so is a running number."""
    monkeypatch.setattr("kappaflow.data.chunks.CHUNK_ROWS", 7)
    index, nearly = np.arange(N)[::-1], [*range(N - 1), 7]
    columns = {"__index_level_0__": index, "id": index, "nearly": nearly, "a": DRAWN[:, 0]}
    pl.DataFrame(columns).write_parquet(tmp_path / "t.parquet")
    chunks = open_chunks(str(tmp_path / "t.parquet"))
    assert chunks.columns == load_table(tmp_path / "t.parquet").columns == ("nearly", "a")
