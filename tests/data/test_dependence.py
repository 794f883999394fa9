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
    results = [p for p in examine(load_table(values)) if p.code == "dependent-columns"]
    assert all(problem.severity == "error" for problem in results)
    return results


def grid(rows: int = 2000) -> Array:
    """Returns 12 columns of which x4..x7 sum to zero, as the power in a grid does."""
    generator = np.random.default_rng(1)
    drawn = generator.uniform(-2.0, -0.5, (rows, 3))
    produced = -drawn.sum(axis=1, keepdims=True)
    delays, prices = generator.uniform(0.5, 10, (rows, 4)), generator.random((rows, 4))
    return np.hstack([delays, produced, drawn, prices])


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
    results = relations(x)
    assert len(results) == min(extra, width + extra - np.linalg.matrix_rank(x - x.mean(axis=0)))
    for relation in results:
        right = relation.constant + x[:, relation.others] @ np.array(relation.coefficients)
        error = np.abs(x[:, relation.column] - right).max() / x[:, relation.column].std()
        assert error < 1e-3
    kept = np.delete(x, [relation.column for relation in results], axis=1)
    assert relations(kept) == ()


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


G = np.random.default_rng(2)
A, B = G.standard_normal((2, 3000)).astype(np.float32)
CELSIUS, OTHER = G.normal(20, 5, 500), G.standard_normal(500)
POWER = "x4 = -1.00*x5 - 1.00*x6 - 1.00*x7: leave out 'x4'"
WRITTEN = np.vectorize(lambda value: float(f"{value:.7g}"))(grid())  # from float32, in a CSV
LONG, MANY = G.standard_normal((500, 31)), G.standard_normal((500, 8))
LONG[:, 30] = LONG[:, :30].sum(axis=1)
MANY[:, 5] = 3 * MANY[:, 1] - 0.5
MANY[:, 2] = MANY[:, 0] + MANY[:, 7]
MANY[:, 6] = 2 * MANY[:, 3] - MANY[:, 4]
CASES = {  # values, and the relations that are written
    "a sum constraint": (grid(), [POWER]),
    "seven written digits": (WRITTEN, [POWER]),
    **{
        f"float32 around {offset}": (
            np.column_stack([A + np.float32(offset), B, A + np.float32(offset) + B]),
            ["x2 = 1.00*x0 + 1.00*x1"],
        )
        for offset in (0, 10, 1000)
    },
    "Fahrenheit": (
        np.column_stack([CELSIUS, OTHER, 32 + 1.8 * CELSIUS]),
        ["x2 = 32.00 + 1.80*x0:"],
    ),
    "large coefficients": (
        np.column_stack([CELSIUS, OTHER, 4000 * OTHER - 5 * CELSIUS]),
        ["x2 = -5.00*x0 + 4000*x1"],
    ),
    "shares": (G.dirichlet([2.0, 3.0, 4.0], 500), [" = 1.00 - 1.00*x"]),
    "three": (MANY, ["x2 = 1.00*x0 + 1.00*x7", "x5 = -0.50 + 3.00*x1", "x6 = 2.00*x3 - 1.00*x4"]),
    "a long one": (LONG, ["1.00*x5 + 24 more terms: leave out 'x30'"]),
    "more columns than rows": (LONG[:10, :20], ["10 rows are too few for 20 columns"]),
    "large whole numbers": (np.column_stack([2.0**24 - G.integers(0, 3, 500), OTHER]), []),
    **{
        f"noise of {noise}": (
            grid() + noise * np.eye(12)[4] * G.standard_normal((2000, 1)),
            [],
        )
        for noise in (1e-5, 1e-4, 1e-2)
    },
}


@pytest.mark.parametrize("name", CASES)
def test_relations_are_written_in_the_units_of_the_columns(name: str) -> None:
    """Where they are, and only there: ten times the threshold is a density, if a narrow one."""
    values, expected = CASES[name]
    problems = dependent(values)
    assert len(problems) == len(expected)
    for problem, text in zip(problems, expected, strict=True):
        assert text in problem.message
        assert len(problem.drop) == (11 if "too few" in text else 1)
