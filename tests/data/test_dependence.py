"""Exact linear relations: found where they are, and only there, and written as a user would."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from kappaflow.data import Problem, examine, load_table
from kappaflow.data.statistics import nearest_relation, relations

Array = NDArray[np.float64]


def dependent(values: NDArray[np.floating]) -> list[Problem]:
    """Returns the problems of dependence of an array."""
    found = [p for p in examine(load_table(values)) if p.code == "dependent-columns"]
    assert all(problem.severity == "error" for problem in found)
    return found


def grid(rows: int = 2000) -> Array:
    """Returns 12 columns of which x4..x7 sum to zero, as the power in a grid does."""
    generator = np.random.default_rng(1)
    drawn = generator.uniform(-2.0, -0.5, (rows, 3))
    produced = -drawn.sum(axis=1, keepdims=True)
    delays, prices = generator.uniform(0.5, 10, (rows, 4)), generator.random((rows, 4))
    return np.hstack([delays, produced, drawn, prices])


def test_a_sum_constraint_is_written_in_input_units() -> None:
    """Four columns of power, of which the producer follows from the consumers."""
    (problem,) = dependent(grid())
    assert problem.columns == ("x4", "x5", "x6", "x7")
    assert problem.drop == ("x4",)
    assert "x4 = -1.00*x5 - 1.00*x6 - 1.00*x7: leave out 'x4'" in problem.message


def test_a_relation_exact_to_float32_rounding_is_found() -> None:
    """C = a + b computed in float32, and with offsets that cost more digits."""
    generator = np.random.default_rng(2)
    for offset in (0, 10, 1000):
        a, b = generator.standard_normal((2, 3000)).astype(np.float32)
        a += np.float32(offset)
        (problem,) = dependent(np.column_stack([a, b, a + b]))
        assert "x2 = 1.00*x0 + 1.00*x1" in problem.message


def test_a_relation_exact_to_seven_written_digits_is_found() -> None:
    """As a CSV that was written from float32 has it."""
    x = np.vectorize(lambda value: float(f"{value:.7g}"))(grid())
    (problem,) = dependent(x)
    assert problem.columns == ("x4", "x5", "x6", "x7")


@pytest.mark.parametrize("noise", [1e-5, 1e-4, 1e-2])
def test_a_relation_with_noise_of_its_own_is_none(noise: float) -> None:
    """Ten times the threshold is a density, if a narrow one."""
    x = grid()
    x[:, 4] += noise * x[:, 4].std() * np.random.default_rng(3).standard_normal(len(x))
    assert dependent(x) == []


def test_constants_and_coefficients_of_any_size_are_written() -> None:
    """Fahrenheit from Celsius, and a coefficient of a thousand."""
    generator = np.random.default_rng(4)
    celsius, other = generator.normal(20, 5, 500), generator.standard_normal(500)
    (problem,) = dependent(np.column_stack([celsius, other, 32 + 1.8 * celsius]))
    assert "x2 = 32.00 + 1.80*x0:" in problem.message
    (problem,) = dependent(np.column_stack([celsius, other, 4000 * other - 5 * celsius]))
    assert "x2 = -5.00*x0 + 4000*x1" in problem.message


def test_shares_that_sum_to_one_are_found() -> None:
    """A relation with a constant and no natural left side."""
    shares = np.random.default_rng(5).dirichlet([2.0, 3.0, 4.0], 500)
    (problem,) = dependent(shares)
    assert problem.columns == ("x0", "x1", "x2")
    assert " = 1.00 - 1.00*x" in problem.message


def test_several_relations_are_told_apart() -> None:
    """Three null directions at once are written as the three relations they came from."""
    x = np.random.default_rng(6).standard_normal((500, 8))
    x[:, 5] = 3 * x[:, 1] - 0.5
    x[:, 2] = x[:, 0] + x[:, 7]
    x[:, 6] = 2 * x[:, 3] - x[:, 4]
    messages = [problem.message for problem in dependent(x)]
    assert [problem.drop for problem in dependent(x)] == [("x2",), ("x5",), ("x6",)]
    assert "x2 = 1.00*x0 + 1.00*x7" in messages[0]
    assert "x5 = -0.50 + 3.00*x1" in messages[1]
    assert "x6 = 2.00*x3 - 1.00*x4" in messages[2]


def test_a_long_relation_is_cut_short() -> None:
    """The first terms and the number of the others."""
    x = np.random.default_rng(7).standard_normal((500, 31))
    x[:, 30] = x[:, :30].sum(axis=1)
    (problem,) = dependent(x)
    assert "1.00*x5 + 24 more terms: leave out 'x30'" in problem.message
    assert len(problem.columns) == 31


def test_more_columns_than_rows_are_one_problem() -> None:
    """Which says how many columns are too many."""
    (problem,) = dependent(np.random.default_rng(8).standard_normal((10, 20)))
    assert "10 rows are too few for 20 columns" in problem.message
    assert len(problem.drop) == 11


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 9), st.integers(1, 3), st.floats(-5, 5))
def test_every_relation_holds_and_none_is_left(
    seed: int, width: int, extra: int, unit: float
) -> None:
    """For random relations in random units: as many as were made, each true in every row."""
    generator = np.random.default_rng(seed)
    base = generator.standard_normal((200, width)) + generator.normal(0, 3, width)
    x = np.hstack([base, base @ generator.uniform(0.5, 2, (width, extra))]) * 10.0**unit
    x = x[:, generator.permutation(width + extra)]
    found = relations(x)
    assert len(found) == min(extra, width + extra - np.linalg.matrix_rank(x - x.mean(axis=0)))
    for relation in found:
        right = relation.constant + x[:, relation.others] @ np.array(relation.coefficients)
        error = np.abs(x[:, relation.column] - right).max() / x[:, relation.column].std()
        assert error < 1e-3
    kept = np.delete(x, [relation.column for relation in found], axis=1)
    assert relations(kept) == ()


def test_large_whole_numbers_are_not_related_to_anything() -> None:
    """Values that float32 happens to hold far from zero explain no relation by their rounding."""
    generator = np.random.default_rng(9)
    x = np.column_stack([2.0**24 - generator.integers(0, 3, 500), generator.standard_normal(500)])
    assert dependent(x) == []


@pytest.mark.parametrize("noise", [1e-5, 1e-2])
def test_the_nearest_relation_says_what_it_leaves_of_a_column(noise):
    rng = np.random.default_rng(1)
    x = rng.normal(size=(5000, 3)) * (1, 20, 3) + 7
    d = 2 * x[:, 0] - 0.1 * x[:, 1]
    values = np.column_stack([x, d + noise * d.std() * rng.normal(size=5000)])
    relation, left = nearest_relation(values)
    assert relation.column == 3
    assert relation.others == (0, 1)
    assert relation.coefficients == pytest.approx((2.0, -0.1), rel=10 * noise)
    assert left == pytest.approx(noise, rel=0.1)
