"""The table: selections, fingerprints and the shapes it insists on."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from kappaflow.data import Table, examine, load_table
from kappaflow.data.domains import clip_to_domain, domains_of
from kappaflow.data.naming import describe_rows, require_finite
from kappaflow.errors import ArgumentError, DataError


def table_with_context() -> Table:
    """Returns 6 rows of 2 modeled columns and 1 context column."""
    values = np.array([
        [0.5, 1, 9],
        [1.5, 2, 8],
        [2.5, 3, 7],
        [3.5, 4, 6],
        [4.5, 5, 5],
        [5.5, 6, 4],
    ])
    return load_table(values, context=["x2"])


@settings(deadline=None)
@given(st.lists(st.booleans(), min_size=6, max_size=6))
def test_a_mask_keeps_values_context_and_row_numbers_together(mask: list[bool]) -> None:
    """Every kept row keeps its own context and its own number."""
    table = table_with_context()
    part = table.select(np.array(mask))
    assert part.rows.tolist() == [row for row, kept in enumerate(mask, start=1) if kept]
    np.testing.assert_array_equal(part.values[:, 0], part.rows - 0.5)
    assert part.context is not None
    np.testing.assert_array_equal(part.context[:, 0], 10.0 - part.rows)


def test_row_numbers_survive_a_filter_a_slice_and_an_index() -> None:
    """Three selections in a row still point into the source."""
    table = load_table(np.arange(20.0).reshape(10, 2), where="x0>4")
    assert table.rows.tolist() == [4, 5, 6, 7, 8, 9, 10]
    part = table.select(slice(1, None, 2)).select(np.array([2, 0]))
    assert part.rows.tolist() == [9, 5]
    np.testing.assert_array_equal(part.values[:, 0], [16.0, 8.0])


@pytest.mark.parametrize("keep", [np.array([True]), np.array([6]), np.array([-7])])
def test_a_selection_outside_the_table_is_refused(keep: NDArray[np.int64]) -> None:
    """A mask of another length or a position beyond the end is reported, not padded."""
    with pytest.raises(ArgumentError, match="'keep' should"):
        table_with_context().select(keep)


def test_a_selection_shares_no_memory_with_its_table() -> None:
    """Writing into a part leaves the whole alone."""
    table = table_with_context()
    part = table.select(slice(None))
    part.values[:] = -1
    assert table.values.min() > 0


def test_a_column_left_out_is_listed_and_no_longer_modeled() -> None:
    """The values, the names and the whole-number columns shrink together."""
    table = table_with_context()
    assert table.integer_columns == ("x1",)
    left = table.without_columns(["x1", "unknown"])
    assert left.columns == ("x0",)
    assert left.left_out == ("x1",)
    assert left.integer_columns == ()
    np.testing.assert_array_equal(left.values, table.values[:, :1])


def test_the_fingerprint_is_the_same_for_the_same_numbers() -> None:
    """The source, its path and its row numbers do not enter."""
    table = table_with_context()
    assert (
        replace(table, source="elsewhere", rows=table.rows + 1).fingerprint()
        == table.fingerprint()
    )
    assert len(table.fingerprint()) == 64


def test_the_fingerprint_changes_with_every_part_it_covers() -> None:
    """A last bit, a name, the context, its name, the order and the number of rows all count."""
    table = table_with_context()
    assert table.context is not None
    values, context = table.values.copy(), table.context.copy()
    values[3, 1] = np.nextafter(values[3, 1], 10)
    context[0, 0] += 1e-9
    changed = [
        replace(table, values=values),
        replace(table, columns=("x0", "y")),
        replace(table, context=context),
        replace(table, context_columns=("y",)),
        replace(table, context=None, context_columns=()),
        table.select(slice(None, None, -1)),
        table.select(slice(0, 5)),
        table.without_columns(["x1"]),
    ]
    prints = {table.fingerprint(), *(other.fingerprint() for other in changed)}
    assert len(prints) == len(changed) + 1


@pytest.mark.parametrize(
    "change", [{"columns": ("a",)}, {"context_columns": ()}, {"context": None}]
)
def test_parts_of_different_shapes_are_no_table(change: dict[str, None]) -> None:
    """Names without columns, and columns without names, are refused at once."""
    with pytest.raises(ArgumentError, match="should have shape"):
        replace(table_with_context(), **change)


def test_rows_of_a_text_file_are_named_by_their_line(tmp_path: Path) -> None:
    """The header, blank lines and line ends within quotes all count; the order may change."""
    path = tmp_path / "t.csv"
    path.write_text('"a","b\nin m",text\n1.5,2,"x\ny"\n\n2.5,3,x\n3.5,7,"x"\n')
    table = load_table(path)
    assert describe_rows(table, [0, 1, 2, 3]) == ["line 3", "line 5", "line 6", "line 7"]
    assert describe_rows(table.select(table.values[:, 0] > 2), [0]) == ["line 6"]
    assert describe_rows(load_table(path, where="a>3"), [0]) == ["line 7"]
    assert describe_rows(load_table(np.eye(3)), [2, 0]) == ["row 3", "row 1"]  # has no lines


def test_rows_of_a_frame_with_an_index_are_named_by_it() -> None:
    """Labels are numbers, text, dates or tuples, and follow their rows."""
    frame = pd.DataFrame({"a": [0.5, 1.5, np.nan], "k": ["x", "y", "x"]}, index=[7, 3, 5])
    table = load_table(frame)
    assert describe_rows(table, [2, 0]) == ["index 5", "index 7"]
    assert "'x' at index 7 (3 values)" in table.notes[0]
    (problem,) = (problem for problem in examine(table) if problem.code == "missing")
    assert problem.message == "column 'a' has a missing value (NaN) at index 5"
    assert describe_rows(load_table(frame, where="k=y"), [0]) == ["index 3"]
    for index, name in (
        (["p q", "r", "s"], "index 'p q'"),
        (pd.date_range("2020-01-01", periods=3), "index 2020-01-01 00:00:00"),
        (pd.MultiIndex.from_tuples([("u", 1), ("v", 2), ("w", 3)]), "index ('u', 1)"),
    ):
        assert describe_rows(load_table(frame.set_axis(index)), [0]) == [name]


def test_messages_about_rows_of_a_text_file_name_lines(tmp_path: Path) -> None:
    """A missing value, and a value outside its bounds."""
    path = tmp_path / "t.csv"
    path.write_text("a,b\n1.5,2\n,3\n1.5,2\n-3.5,7\n1.5,2\n")
    table = load_table(path)
    messages = [problem.message for problem in examine(table)]
    assert "column 'a' has a missing value at line 3" in messages
    with pytest.raises(DataError, match="line 5 has -3.5"):
        clip_to_domain(table, domains_of(["a=positive"], table))
    with pytest.raises(DataError, match="line 3 has NaN"):
        require_finite(table, "t.csv")
