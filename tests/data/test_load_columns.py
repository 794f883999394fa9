"""Choosing columns and rows by name, and sources that are already in memory."""

import datetime
import decimal

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch

from kappaflow.data import load_table
from kappaflow.errors import ArgumentError, DataError

FRAME = pl.DataFrame({
    "length": pl.Series([0.1, 0.2, 0.3, 0.4], dtype=pl.Float32),
    "count": [1, 2, 3, None],
    "flag": [True, False, True, None],
    "class": ["g", "h", "g", None],
    "day": [datetime.date(2020, 1, day) for day in (1, 2, 3, 4)],
})


@pytest.mark.parametrize(
    ("where", "rows"),
    [
        ("class=g", [1, 3]),
        ("class==g", [1, 3]),
        (" class = 'g' ", [1, 3]),
        ('class="g"', [1, 3]),
        ("class!=g", [2]),
        ("count<2", [1]),
        ("count<=2", [1, 2]),
        ("count>2", [3]),
        ("count>=2", [2, 3]),
        ("count=2", [2]),
        ("count!=2", [1, 3]),
        ("length=0.1", [1]),
        ("length<0.3", [1, 2]),
        ("length>=0.3", [3, 4]),
        ("flag=true", [1, 3]),
        ("flag=0", [2]),
        ("day=2020-01-04", [4]),
        (["class=g", "count>1"], [3]),
    ],
)
def test_rows_are_chosen_by_one_comparison_each(where: str | list[str], rows: list[int]) -> None:
    """A missing value meets none, not even !=; a number is rounded as a float32 column is."""
    assert load_table(FRAME, where=where).rows.tolist() == rows


def test_a_column_that_a_condition_made_constant_is_not_modeled() -> None:
    """Unless it is asked for; a column cut by an inequality stays."""
    assert load_table(FRAME, where="count=2").columns == ("length",)
    assert load_table(FRAME, where="count=2", columns=["count"]).columns == ("count",)
    assert load_table(FRAME, where="count>1").columns == ("length", "count")


def test_a_name_that_holds_a_sign_can_be_compared() -> None:
    """The longest name that the source has wins."""
    frame = pl.DataFrame({"a": [1.5, 2.5], "a<b": [1.0, 3.0], "p=q": ["x", "y"]})
    assert load_table(frame, where="a<b>2").rows.tolist() == [2]
    assert load_table(frame, where="p=q=x").rows.tolist() == [1]
    assert load_table(frame, where="a<2").rows.tolist() == [1]


def test_frames_of_any_library_are_the_same_table() -> None:
    """polars, a lazy frame and pandas, with missing values of each kind."""
    pandas = pd.DataFrame({
        "length": np.array([0.1, 0.2, 0.3, 0.4], dtype=np.float32),
        "count": pd.array([1, 2, 3, None], dtype="Int64"),
        "flag": pd.array([True, False, True, None], dtype="boolean"),
        "class": ["g", "h", "g", None],
        "day": pd.to_datetime(["2020-01-01", "2020-01-02", "2020-01-03", "2020-01-04"]),
    })
    tables = [load_table(frame, where="class=g") for frame in (FRAME, FRAME.lazy(), pandas)]
    assert len({table.fingerprint() for table in tables}) == 1
    assert {table.left_out for table in tables} == {("flag", "class", "day")}


def test_arrays_and_tensors_are_the_same_table() -> None:
    """Whatever their float type or their place in a graph; their numbers are copied."""
    array = np.array([[0.5, 1.0], [1.5, 2.0], [2.5, 3.25]])
    sources = [
        array,
        np.asfortranarray(array),
        array.astype(np.float16),
        torch.tensor(array, requires_grad=True),
        torch.tensor(array).bfloat16(),
        torch.tensor(array).to_sparse(),
    ]
    tables = [load_table(source) for source in sources]
    assert len({table.fingerprint() for table in tables}) == 1
    assert tables[0].columns == ("x0", "x1")
    array[:] = 0
    assert tables[0].values.min() == 0.5


def test_python_numbers_in_a_frame_are_numbers():
    """Columns of objects, as a transposed frame has them; those of other objects are left out."""
    frame = pd.DataFrame(
        {
            "a": [1, 2.5, None],
            "b": [decimal.Decimal("0.1"), np.float32(2), np.int8(3)],
            "c": [True, None, False],
            "d": [1, "x", 2],
        },
        dtype=object,
    )
    table = load_table(frame)
    np.testing.assert_array_equal(table.values, [[1, 0.1], [2.5, 2], [np.nan, 3]])
    assert table.columns == ("a", "b") and table.left_out == ("c", "d")


def test_columns_have_the_roles_that_are_named() -> None:
    """Modeled in their order, context, or left out; without a choice all numbers are modeled."""
    table = load_table(FRAME)
    assert table.columns == ("length", "count")
    assert table.left_out == ("flag", "class", "day")
    table = load_table(FRAME, columns=["flag", "length"])
    assert table.columns == ("flag", "length") and table.left_out == ("count", "class", "day")
    np.testing.assert_array_equal(table.values[:, 0], [1, 0, 1, np.nan])
    assert load_table(FRAME, columns="count").columns == ("count",)
    table = load_table(FRAME, context=["flag"], exclude=["count"], where="class!=x")
    assert table.columns == ("length",) and table.left_out == ("count", "class", "day")
    np.testing.assert_array_equal(table.context, [[1], [0], [1]])  # pyright: ignore[reportArgumentType]


WHERE = "'where' should compare a column with a value, as in"
REFUSED = [
    ({"columns": ["class"]}, "'columns' names column 'class', which holds text"),
    ({"context": ["day"]}, "'context' names column 'day', which holds dates or times"),
    ({"columns": ["count", "count"]}, "'columns' names 'count' twice"),
    ({"columns": ["count"], "context": ["count"]}, "'columns' and 'context' both name 'count'"),
    ({"columns": ["count"], "exclude": ["count"]}, "'columns' and 'exclude' both name 'count'"),
    ({"context": ["count"], "exclude": ["count"]}, "'context' and 'exclude' both name 'count'"),
    ({"columns": []}, "'columns' names no column"),
    *(({"where": text}, WHERE) for text in ("", "class", "=g", "class~g")),
    ({"where": "class<g"}, "'class', which holds text, with '<'"),
    ({"where": "count=two"}, "'count', which holds numbers, with 'two'"),
    *(
        ({name: ["lenght"]}, f"'{name}' names column 'lenght'.*did you mean 'length'.*'flag'")
        for name in ("columns", "exclude", "context")
    ),
    ({"where": "lenght=1"}, "'where' names column 'lenght'.*did you mean 'length'"),
    *(
        ({name: value}, f"'{name}' should be .*, got ")
        for name in ("columns", "exclude", "context", "where", "missing")
        for value in (5, ["count", None], np.ones(3))
    ),
]


@pytest.mark.parametrize(("options", "message"), REFUSED)
def test_options_that_do_not_fit_the_source_are_refused(options: dict, message: str) -> None:
    """By the name of the argument, with the way out."""
    with pytest.raises(ArgumentError, match=message):
        load_table(FRAME, **options)


NO_TABLES = [
    (FRAME.select("class", "day"), "no numeric column to model: its columns are 'class', 'day'"),
    (FRAME.clear(), "has no rows"),
    (pd.DataFrame(), "has no columns"),
    (pd.DataFrame(np.eye(2), columns=["a", "a"]), "several columns of the same name"),
    (torch.zeros(2, 2, 2), "the tensor has shape"),
    (torch.tensor(1.0), "the tensor has shape"),
    (torch.zeros(2, 2, dtype=torch.complex64), "the tensor holds complex"),
    (torch.zeros(2, 2, device="meta"), "without readable numbers"),
    *((other, "'source' should be a path, .*got") for other in (None, 3, [[1.0]], {"a": [1.0]})),
]


@pytest.mark.parametrize(("source", "message"), NO_TABLES)
def test_what_is_no_table_is_refused(source: object, message: str) -> None:
    """Frames without numbers, rows or one name a column; tensors and objects of other kinds."""
    with pytest.raises((ArgumentError, DataError), match=message):
        load_table(source)


def test_a_condition_that_no_row_meets_says_what_the_column_holds() -> None:
    """The values of text, the range of numbers; all numbers can be excluded."""
    for options, message in (
        ({"where": "class=x"}, "no row .*where='class=x': its values are 'g', 'h'"),
        ({"where": "count>9"}, "no row .*where='count>9': its values lie between 1 and 3"),
        ({"exclude": ["length", "count"], "context": ["flag"]}, "no numeric column to model"),
    ):
        with pytest.raises(DataError, match=message):
            load_table(FRAME, **options)
