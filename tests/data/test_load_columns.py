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


def test_columns_come_in_the_order_asked_for() -> None:
    """What is not asked for is left out."""
    table = load_table(FRAME, columns=["count", "length"])
    assert table.columns == ("count", "length")
    assert table.left_out == ("flag", "class", "day")
    assert load_table(FRAME, columns="count").columns == ("count",)


@pytest.mark.parametrize("argument", ["columns", "exclude", "context", "where", "missing"])
@pytest.mark.parametrize("given", [5, [0.5], ["count", None], np.ones(3)])
def test_names_should_be_text(argument: str, given: object) -> None:
    """A number is no name of a column, nor a condition."""
    with pytest.raises(ArgumentError, match=f"'{argument}' should be .*, got "):
        load_table(FRAME, **{argument: given})  # pyright: ignore[reportArgumentType]


def test_text_dates_and_booleans_are_left_out() -> None:
    """Without a choice, all columns of numbers are modeled; a boolean that is named counts."""
    table = load_table(FRAME)
    assert table.columns == ("length", "count")
    assert table.left_out == ("flag", "class", "day")
    values = load_table(FRAME, columns=["flag"]).values
    np.testing.assert_array_equal(values[:, 0], [1, 0, 1, np.nan])


def test_context_is_kept_beside_the_values() -> None:
    """A context column is not modeled, and not left out either."""
    table = load_table(FRAME, context=["flag"], exclude=["count"], where="class!=x")
    assert table.columns == ("length",)
    assert table.context_columns == ("flag",)
    assert table.context is not None
    np.testing.assert_array_equal(table.context, [[1], [0], [1]])
    assert table.left_out == ("count", "class", "day")


@pytest.mark.parametrize("argument", ["columns", "exclude", "context", "where"])
def test_an_unknown_column_suggests_the_nearest_and_lists_all(argument: str) -> None:
    """Every argument that names columns says so by its own name."""
    given = "lenght=1" if argument == "where" else ["lenght"]
    with pytest.raises(
        ArgumentError,
        match=rf"'{argument}' names column 'lenght'.*did you mean 'length'.*'count', 'flag'",
    ):
        load_table(FRAME, **{argument: given})


@pytest.mark.parametrize("argument", ["columns", "context"])
@pytest.mark.parametrize(("name", "held"), [("class", "text"), ("day", "dates or times")])
def test_text_cannot_be_asked_for_as_numbers(argument: str, name: str, held: str) -> None:
    """The way out, choosing rows by it, is named."""
    with pytest.raises(
        ArgumentError, match=f"'{argument}' names column '{name}', which holds {held}"
    ):
        load_table(FRAME, **{argument: [name]})


def test_a_column_has_one_role() -> None:
    """Twice in one argument, or once in two, is refused."""
    with pytest.raises(ArgumentError, match="'columns' names 'count' twice"):
        load_table(FRAME, columns=["count", "count"])
    with pytest.raises(ArgumentError, match="'columns' and 'context' both name 'count'"):
        load_table(FRAME, columns=["count"], context=["count"])
    with pytest.raises(ArgumentError, match="'columns' and 'exclude' both name 'count'"):
        load_table(FRAME, columns=["count"], exclude=["count"])
    with pytest.raises(ArgumentError, match="'context' and 'exclude' both name 'count'"):
        load_table(FRAME, context=["count"], exclude=["count"])


def test_a_table_without_a_numeric_column_is_refused() -> None:
    """Whether all is text, or all numbers were excluded."""
    with pytest.raises(
        DataError, match="no numeric column to model: its columns are 'class', 'day'"
    ):
        load_table(FRAME.select("class", "day"))
    with pytest.raises(DataError, match="no numeric column to model"):
        load_table(FRAME, exclude=["length", "count"], context=["flag"])
    with pytest.raises(ArgumentError, match="'columns' names no column"):
        load_table(FRAME, columns=[])


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


@pytest.mark.parametrize("where", ["", "class", "=g", "class~g"])
def test_what_is_no_comparison_is_answered_with_examples(where: str) -> None:
    """Nothing is guessed from a half condition."""
    with pytest.raises(ArgumentError, match="'where' should compare a column with a value, as in"):
        load_table(FRAME, where=where)


def test_a_comparison_that_does_not_fit_its_column_is_refused() -> None:
    """An order on text, and a word among numbers."""
    with pytest.raises(ArgumentError, match="'class', which holds text, with '<'"):
        load_table(FRAME, where="class<g")
    with pytest.raises(ArgumentError, match="'count', which holds numbers, with 'two'"):
        load_table(FRAME, where="count=two")


def test_a_condition_that_no_row_meets_says_what_the_column_holds() -> None:
    """The values of text, the range of numbers."""
    with pytest.raises(DataError, match="no row .*where='class=x': its values are 'g', 'h'"):
        load_table(FRAME, where="class=x")
    with pytest.raises(
        DataError, match="no row .*where='count>9': its values lie between 1 and 3"
    ):
        load_table(FRAME, where="count>9")


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


def test_decimals_become_floats() -> None:
    """A decimal column is a column of numbers."""
    frame = pl.DataFrame({"price": [decimal.Decimal("1.25"), decimal.Decimal("2.50")]})
    np.testing.assert_array_equal(load_table(frame).values, [[1.25], [2.5]])


def test_a_frame_with_two_columns_of_one_name_is_refused() -> None:
    """Pandas allows it; a model cannot."""
    with pytest.raises(DataError, match="several columns of the same name"):
        load_table(pd.DataFrame(np.eye(2), columns=["a", "a"]))


def test_an_empty_frame_is_refused() -> None:
    """Without columns, and without rows."""
    with pytest.raises(DataError, match="has no columns"):
        load_table(pd.DataFrame())
    with pytest.raises(DataError, match="has no rows"):
        load_table(FRAME.clear())


def test_arrays_and_tensors_are_the_same_table() -> None:
    """Whatever their float type or their place in a graph."""
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


def test_a_table_does_not_change_with_the_array_it_came_from() -> None:
    """The numbers are copied."""
    array = np.array([[0.5], [1.5]])
    tensor = torch.tensor(array)
    tables = [load_table(array), load_table(tensor)]
    array[:] = 0
    tensor[:] = 0
    assert all(table.values.min() == 0.5 for table in tables)


@pytest.mark.parametrize("source", [None, 3, [[1.0, 2.0]], {"a": [1.0]}, b"t.csv"])
def test_a_source_of_another_type_lists_what_can_be_given(source: object) -> None:
    """Lists and dictionaries are not guessed at."""
    with pytest.raises(ArgumentError, match="'source' should be a path, .*got"):
        load_table(source)


@pytest.mark.parametrize(
    "tensor", [torch.zeros(2, 2, 2), torch.zeros(2, 2, dtype=torch.complex64), torch.tensor(1.0)]
)
def test_a_tensor_that_is_no_table_is_refused(tensor: torch.Tensor) -> None:
    """Too many axes, none, and complex numbers."""
    with pytest.raises(DataError, match="the tensor (has shape|holds complex)"):
        load_table(tensor)


def test_a_tensor_without_numbers_is_refused() -> None:
    """A tensor on the meta device has shapes only."""
    with pytest.raises(ArgumentError, match="without readable numbers"):
        load_table(torch.zeros(2, 2, device="meta"))


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
