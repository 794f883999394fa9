"""Splitting: a partition of the rows, fixed by its seed, no part empty."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kappaflow.data import load_table, split
from kappaflow.errors import ArgumentError, DataError


@settings(deadline=None)
@given(
    st.lists(st.floats(0.001, 1), min_size=2, max_size=5),
    st.integers(0, 200),
    st.integers(0, 2**32),
)
def test_the_parts_are_a_partition_without_an_empty_part(
    weights: list[float], more: int, seed: int
) -> None:
    """Every row is in one part, with its values, and sizes are the fractions to a few rows."""
    rows = len(weights) + more
    table = load_table(np.arange(rows) + 0.5)
    fractions = tuple(weight / sum(weights) for weight in weights)
    parts = split(table, fractions=fractions, seed=seed)
    assert len(parts) == len(fractions)
    together = np.concatenate([part.rows for part in parts])
    assert sorted(together.tolist()) == list(range(1, rows + 1))
    for part, fraction in zip(parts, fractions, strict=True):
        np.testing.assert_array_equal(part.values[:, 0], part.rows - 0.5)
        assert len(part) >= 1
        assert abs(len(part) - fraction * rows) <= len(fractions)


def test_the_parts_are_fixed_by_the_seed() -> None:
    """The same for the same seed, 0 unless given, and another for another."""
    table = load_table("magic")
    prints = [
        [part.fingerprint() for part in parts] for parts in (split(table), split(table, seed=0))
    ]
    assert prints[0] == prints[1]
    other = split(table, seed=1)
    assert set(prints[0]).isdisjoint(part.fingerprint() for part in other)


def test_the_rows_are_shuffled_and_not_cut() -> None:
    """The test part of a sorted table spans it all."""
    table = load_table(np.linspace(0.0, 1.0, 1001)[:, None])
    _, _, test = split(table)
    assert test.values.min() < 0.1
    assert test.values.max() > 0.9


def test_context_goes_with_its_rows() -> None:
    """In every part."""
    x = np.random.default_rng(0).standard_normal((50, 1))
    table = load_table(np.hstack([x, -x]), context=["x1"])
    for part in split(table):
        assert part.context is not None
        np.testing.assert_array_equal(part.context, -part.values)


def test_three_rows_make_three_parts_of_one() -> None:
    """The least that can be split."""
    table = load_table(np.array([[0.5], [1.5], [2.5]]))
    assert [len(part) for part in split(table)] == [1, 1, 1]


@pytest.mark.parametrize("rows", [1, 2])
def test_fewer_than_three_rows_cannot_be_split(rows: int) -> None:
    """An empty part is no part."""
    table = load_table(np.linspace(0.1, 0.9, rows)[:, None])
    with pytest.raises(DataError, match=f"a table of {rows} rows? cannot be split"):
        split(table)


@pytest.mark.parametrize(
    "fractions",
    [
        (0.8, 0.1, 0.2),
        (0.9, 0.1, 0.0),
        (1.2, -0.1, -0.1),
        (0.5, 0.25, float("nan")),
        (0.0, 0.5, 0.5),
        (1.0,),
        (),
    ],
)
def test_fractions_are_positive_shares_of_one(fractions: tuple[float, ...]) -> None:
    """Nothing is normalised silently."""
    table = load_table(np.linspace(0.1, 0.9, 30)[:, None])
    with pytest.raises(
        ArgumentError, match="'fractions' should be two or more positive numbers that sum to 1"
    ):
        split(table, fractions=fractions)


def test_a_seed_below_zero_is_refused() -> None:
    """In the words of every other whole number."""
    table = load_table(np.linspace(0.1, 0.9, 30)[:, None])
    with pytest.raises(ArgumentError, match="'seed' should be at least 0, got -1"):
        split(table, seed=-1)
