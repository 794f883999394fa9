"""Every problem: it fires on the table made for it, at the right place, and on nothing else."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from kappaflow.data import Problem, examine, load_table

Array = NDArray[np.float64]


def only(problems: tuple[Problem, ...]) -> Problem:
    """Returns the one problem there is."""
    assert len(problems) == 1, problems
    return problems[0]


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 12), st.floats(-6, 6), st.floats(-3, 3))
def test_a_healthy_gaussian_table_has_no_problem(
    seed: int, width: int, scale: float, offset: float
) -> None:
    """Of any width, in any unit, correlated up to a condition number of about a thousand."""
    generator = np.random.default_rng(seed)
    left, _ = np.linalg.qr(generator.standard_normal((width, width)))
    mixing = left * np.logspace(0, -1.5, width)
    x = generator.standard_normal((40 * width, width)) @ mixing.T
    assert examine(load_table((x + offset) * 10.0**scale)) == ()


def test_a_healthy_float32_table_has_no_problem(healthy: Array) -> None:
    """Rounding to float32 alone makes no relation."""
    assert examine(load_table(healthy.astype(np.float32))) == ()


def test_a_missing_value_is_named_with_its_column_and_row(healthy: Array) -> None:
    """One value in the words a user reads, several with their number."""
    healthy[6, 1] = np.nan
    problem = only(examine(load_table(healthy)))
    assert problem.message == "column 'x1' has a missing value (NaN) at row 7"
    assert (problem.code, problem.severity) == ("missing", "error")
    assert (problem.columns, problem.rows) == (("x1",), (7,))
    healthy[10:20, 1] = np.nan
    problem = only(examine(load_table(healthy)))
    assert (
        problem.message
        == "column 'x1' has 11 missing values (NaN) at rows 7, 11, 12, 13, 14 and 6 more"
    )
    assert problem.rows == (7, 11, 12, 13, 14)


def test_rows_are_named_by_their_number_in_the_source(healthy: Array) -> None:
    """A filter before does not shift them."""
    healthy[:5, 0] = -50.0
    healthy[6, 1] = np.nan
    table = load_table(healthy, where="x0>-50")
    assert len(table) == 395
    assert only(examine(table)).rows == (7,)


def test_infinite_values_are_told_from_missing_ones(healthy: Array) -> None:
    """Both kinds in one column are two problems."""
    healthy[3, 2], healthy[4, 2], healthy[8, 2] = np.inf, -np.inf, np.nan
    missing, infinite = examine(load_table(healthy))
    assert missing.message == "column 'x2' has a missing value (NaN) at row 9"
    assert infinite.message == "column 'x2' has 2 infinite values at rows 4, 5"
    assert (infinite.code, infinite.severity) == ("infinite", "error")


def test_context_is_examined_for_missing_and_infinite_values(healthy: Array) -> None:
    """And reported as context."""
    healthy[0, 3], healthy[1, 3] = np.nan, np.inf
    messages = [problem.message for problem in examine(load_table(healthy, context=["x3"]))]
    assert messages == [
        "context column 'x3' has a missing value (NaN) at row 1",
        "context column 'x3' has an infinite value at row 2",
    ]


def test_a_constant_column_stops(healthy: Array) -> None:
    """Exactly constant, or constant up to the rounding of its own size."""
    healthy[:, 2] = 7.5
    healthy[:, 3] = 0.1 + np.arange(400) % 2 * 2e-17
    first, second = examine(load_table(healthy))
    assert first.message == "column 'x2' is constant: every row holds 7.5"
    assert (first.code, first.severity, first.columns) == ("constant", "error", ("x2",))
    assert (second.code, second.columns) == ("constant", ("x3",))


def test_a_copy_with_a_hole_stops(healthy: Array) -> None:
    """Columns are compared on complete rows."""
    table = np.column_stack([healthy, healthy[:, 0]])
    table[5, 4] = np.nan
    missing, copy = examine(load_table(table))
    assert (missing.code, copy.code, copy.drop) == ("missing", "dependent-columns", ("x4",))
    assert "'x0', 'x4' depend on each other linearly, x4 = 1.00*x0: leave out" in copy.message


@pytest.mark.parametrize(("rows", "words"), [(1, "1 row is too few"), (0, "no rows is too few")])
def test_fewer_than_two_rows_stop(healthy: Array, rows: int, words: str) -> None:
    """Nothing else is reported about a single row."""
    problem = only(examine(load_table(healthy).select(slice(0, rows))))
    assert (problem.code, problem.severity) == ("too-few-rows", "error")
    assert problem.message.startswith(words)


def test_a_table_without_columns_stops(healthy: Array) -> None:
    """As it can come out of a repair."""
    table = load_table(healthy)
    problem = only(examine(table.without_columns(table.columns)))
    assert (problem.code, problem.severity) == ("no-numeric-column", "error")


def test_whole_numbers_warn(healthy: Array) -> None:
    """Counts do, measurements with one fraction among them do not."""
    healthy[:, 1] = np.rint(healthy[:, 1] * 3)
    healthy[:, 3] = np.rint(healthy[:, 3] * 1e6)
    healthy[0, 3] += 0.5
    problem = only(examine(load_table(healthy)))
    assert (problem.code, problem.severity, problem.columns) == (
        "integer-valued",
        "warning",
        ("x1",),
    )


def test_large_float_values_are_not_called_whole(healthy: Array) -> None:
    """From 2**53 on every float64 is whole."""
    assert examine(load_table(healthy[:, :3] * 1e17)) == ()


def test_duplicate_rows_warn(healthy: Array) -> None:
    """The repetitions are counted, not the first; context makes rows different."""
    healthy[[10, 20, 21]] = healthy[[0, 1, 2]]
    problem = only(examine(load_table(healthy)))
    assert (problem.code, problem.severity) == ("duplicate-rows", "warning")
    assert problem.rows == (11, 21, 22)
    assert problem.message == (
        "3 rows repeat earlier rows, which rounding does not explain (rows 11, 21, 22)"
    )
    context = np.column_stack([healthy, np.arange(400.0)])
    assert examine(load_table(context, context=["x4"])) == ()


def test_a_point_mass_warns(healthy: Array) -> None:
    """With column, value, count, expected count and rows; 4 rows of 400 are too few to tell."""
    healthy[[5, 50, 60, 70], 2] = 0.25
    assert examine(load_table(healthy)) == ()
    healthy[300, 2] = 0.25
    problem = only(examine(load_table(healthy)))
    assert (problem.code, problem.severity) == ("atom", "warning")
    assert (problem.columns, problem.rows) == (("x2",), (6, 51, 61, 71, 301))
    assert problem.message == (
        "column 'x2' holds the value 0.25 in 5 of 400 rows (rows 6, 51, 61, 71, 301), where its "
        "neighbors predict 0.06: a density can grow without bound there"
    )


def test_three_equal_values_of_750_rows_are_no_point_mass() -> None:
    """Of a continuous column: hardly any likelihood can be gained on them."""
    x = np.random.default_rng(0).standard_normal((750, 2))
    x[:3, 0] = x[0, 0]
    assert examine(load_table(x)) == ()


def test_a_point_mass_holds_more_than_one_row_in_a_thousand() -> None:
    """10 of 10,000 rows are none, 11 are."""
    x = np.random.default_rng(0).standard_normal((10_000, 1))
    x[:10] = 0.5
    assert examine(load_table(x)) == ()
    x[10] = 0.5
    assert [p.code for p in examine(load_table(x))] == ["atom"]


def test_a_rounded_column_warns_where_a_flow_can_resolve_its_steps(healthy: Array) -> None:
    """With the width of noise; rounding to a thousandth of the spread says nothing."""
    wide = np.tile(healthy, (5, 1)) + np.random.default_rng(0).normal(size=(2000, 4))
    wide[:, 1] = wide[:, 1].round(1)
    wide[:, 2] = wide[:, 2].round(3)
    problem = only(examine(load_table(wide)))
    assert (problem.code, problem.severity, problem.columns) == ("rounded", "warning", ("x1",))
    assert "is rounded to 0.1" in problem.message
    assert "noise of width 0.1 (repair='dequantize')" in problem.message


def test_few_rows_warn(healthy: Array) -> None:
    """Fewer than ten for each column."""
    assert examine(load_table(healthy[:40])) == ()
    problem = only(examine(load_table(healthy[:39])))
    assert (problem.code, problem.severity) == ("few-rows", "warning")
    assert "39 rows are few for 4 columns" in problem.message


@pytest.mark.parametrize("single", [True, False])
def test_an_offset_that_float32_cannot_hold_warns(healthy: Array, single: bool) -> None:  # noqa: FBT001
    """A hundred thousand spreads away from zero, whatever type the file had."""
    healthy[:, 0] = 1e6 * healthy[:, 0].std() + healthy[:, 0]
    table = load_table(healthy.astype(np.float32) if single else healthy)
    problem = next(p for p in examine(table) if p.code == "large-offset")
    assert (problem.severity, problem.columns) == ("warning", ("x0",))
    assert "store the difference from" in problem.message and "exclude=['x0']" in problem.message
    assert not [p for p in examine(table) if p.severity == "error"]


@pytest.mark.parametrize("scale", [1e30, 1e-30, 1e300, 1e-300])
def test_values_whose_squares_leave_float32_warn(healthy: Array, scale: float) -> None:
    """And no sum or square overflows on the way to saying so."""
    healthy[:, 1] *= scale
    problem = only(examine(load_table(healthy)))
    assert (problem.code, problem.severity, problem.columns) == (
        "extreme-scale",
        "warning",
        ("x1",),
    )


def test_what_stops_comes_first(healthy: Array) -> None:
    """Warnings after, however they were found."""
    healthy[:6, 0] = 0.5
    healthy[4, 2] = np.nan
    healthy[:, 3] = 2 * healthy[:, 1] + 1
    severities = [problem.severity for problem in examine(load_table(healthy))]
    assert severities == ["error", "error", "warning"]


def test_a_column_without_any_number_hides_nothing_else(healthy: Array) -> None:
    """The other columns are compared on their own complete rows."""
    table = np.column_stack([healthy, np.full(400, np.nan), 2 * healthy[:, 0]])
    codes = [problem.code for problem in examine(load_table(table))]
    assert codes == ["missing", "dependent-columns"]
