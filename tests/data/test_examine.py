"""Every problem: it fires on the table made for it, at the right place, and on nothing else."""

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from kappaflow.data import Problem, examine, load_table

Array = NDArray[np.float64]


STOPS = {"missing", "infinite", "constant", "dependent-columns", "too-few-rows"}


def only(problems: Sequence[Problem]) -> Problem:
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


def test_a_point_mass_holds_more_than_one_row_in_a_thousand() -> None:
    """10 of 10,000 rows are none, 11 are."""
    x = np.random.default_rng(0).standard_normal((10_000, 1))
    x[:10] = 0.5
    assert examine(load_table(x)) == ()
    x[10] = 0.5
    assert [p.code for p in examine(load_table(x))] == ["atom"]


G = np.random.default_rng(7)
MIXING = np.array([[1, 0, 0, 0], [0.5, 2, 0, 0], [-1, 0.3, 1, 0], [0.2, 0, 0.9, 3]])
HEALTHY = G.standard_normal((400, 4)) @ MIXING.T + [0.0, 5.0, -2.0, 100.0]


def changed(column: int, values: object, rows: object = slice(None)) -> Array:
    """Returns a healthy table, in which some values of a column are others."""
    x = HEALTHY.copy()
    x[rows, column] = values  # pyright: ignore[reportArgumentType]
    return x


LARGE = changed(0, HEALTHY[:, 0] + 1e6 * HEALTHY[:, 0].std())
MANY = np.tile(HEALTHY, (5, 1)) + G.normal(size=(2000, 4))
CASES = {  # values, and the codes, columns and messages of their problems
    "float32": (HEALTHY.astype(np.float32), []),
    "large floats": (HEALTHY[:, :3] * 1e17, []),
    "a missing value": (
        changed(1, np.nan, 6),
        [("missing", "x1", "column 'x1' has a missing value (NaN) at row 7")],
    ),
    "missing values": (
        changed(1, np.nan, [6, *range(10, 20)]),
        [("missing", "x1", "has 11 missing values (NaN) at rows 7, 11, 12, 13, 14 and 6 more")],
    ),
    "infinite values": (
        changed(2, [np.inf, -np.inf, np.nan], [3, 4, 8]),
        [
            ("missing", "x2", "column 'x2' has a missing value (NaN) at row 9"),
            ("infinite", "x2", "column 'x2' has 2 infinite values at rows 4, 5"),
        ],
    ),
    "a constant": (
        changed(2, 7.5),
        [("constant", "x2", "column 'x2' is constant: every row holds 7.5")],
    ),
    "rounding": (changed(3, 0.1 + np.arange(400) % 2 * 2e-17), [("constant", "x3", "0.1")]),
    "a copy with a hole": (
        np.column_stack([HEALTHY, changed(0, np.nan, 5)[:, 0]]),
        [
            ("missing", "x4", "at row 6"),
            ("dependent-columns", "x0 x4", "linearly, x4 = 1.00*x0: leave out 'x4'"),
        ],
    ),
    "a column without numbers": (
        np.column_stack([HEALTHY, np.full(400, np.nan), 2 * HEALTHY[:, 0]]),
        [("missing", "x4", "400"), ("dependent-columns", "x0 x5", "x5 = 2.00*x0")],
    ),
    "one row": (HEALTHY[:1], [("too-few-rows", "", "1 row is too few")]),
    "few rows": (HEALTHY[:39], [("few-rows", "", "39 rows are few for 4 columns")]),
    "enough rows": (HEALTHY[:40], []),
    "whole numbers": (
        changed(1, np.rint(HEALTHY[:, 1] * 3)),
        [("integer-valued", "x1", "holds whole numbers only")],
    ),
    "a fraction": (changed(3, [0.5, *np.rint(HEALTHY[1:, 3] * 1e6)]), []),
    "a rounded column": (
        np.column_stack([MANY[:, 0].round(3), MANY[:, 1].round(1), MANY[:, 2:]]),
        [("rounded", "x1", "adds uniform noise of width 0.1 unless repair= is")],
    ),
    "an offset": (LARGE, [("large-offset", "x0", "or leave the column out (exclude=['x0'])")]),
    **{
        f"values of {scale}": (
            changed(1, HEALTHY[:, 1] * scale),
            [("extreme-scale", "x1", "whose squares float32 cannot hold")],
        )
        for scale in (1e30, 1e-30, 1e300, 1e-300)
    },
    "repeated rows": (
        HEALTHY[[*range(397), 0, 1, 2]],
        [("duplicate-rows", "", "which rounding does not explain (rows 398, 399, 400)")],
    ),
    "four equal values": (changed(2, 0.25, [5, 50, 60, 70]), []),
    "a point mass": (
        changed(2, 0.25, [5, 50, 60, 70, 300]),
        [
            (
                "atom",
                "x2",
                "the value 0.25 in 5 of 400 rows (rows 6, 51, 61, 71, 301), where its neighbors "
                "predict 0.06: a density can grow without bound there",
            )
        ],
    ),
    "errors first": (
        np.column_stack([changed(0, 0.5, slice(6))[:, :3], 2 * HEALTHY[:, 1] + 1]),
        [("dependent-columns", "x1 x3", "x3 = 1.00 + 2.00*x1"), ("atom", "x0", "the value 0.5")],
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_each_problem_is_named_with_its_columns_and_rows(name: str) -> None:
    """And nothing else is."""
    values, expected = CASES[name]
    problems = examine(load_table(values))
    assert [(p.code, " ".join(p.columns)) for p in problems] == [(c, n) for c, n, _ in expected]
    for problem, (_, _, message) in zip(problems, expected, strict=True):
        assert message in problem.message
        assert (problem.severity == "error") == (problem.code in STOPS)


def test_context_and_filtered_rows_are_examined_too() -> None:
    """With the number of a row in the source; a repair can leave no column."""
    x = changed(3, [np.nan, np.inf], [0, 1])
    messages = [problem.message for problem in examine(load_table(x, context=["x3"]))]
    assert messages == [
        "context column 'x3' has a missing value (NaN) at row 1",
        "context column 'x3' has an infinite value at row 2",
    ]
    x = changed(1, np.nan, 6)
    x[:5, 0] = -50.0
    table = load_table(x, where="x0>-50")
    assert len(table) == 395 and only(examine(table)).rows == (7,)
    assert only(examine(table.without_columns(table.columns))).code == "no-numeric-column"
