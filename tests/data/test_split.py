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


SHARES = [
    (0.8, 0.1, 0.2),
    (0.9, 0.1, 0.0),
    (1.2, -0.1, -0.1),
    (0.5, 0.25, float("nan")),
    (1.0,),
    (),
]


def test_what_cannot_be_split_is_refused() -> None:
    """Too few rows, shares that are not positive or do not sum to 1, and a seed below zero."""
    for rows in (1, 2):
        table = load_table(np.linspace(0.1, 0.9, rows)[:, None])
        with pytest.raises(DataError, match=f"a table of {rows} rows? cannot be split"):
            split(table)
    table = load_table(np.linspace(0.1, 0.9, 30)[:, None])
    for fractions in SHARES:
        with pytest.raises(ArgumentError, match="'fractions' should be two or more positive num"):
            split(table, fractions=fractions)
    with pytest.raises(ArgumentError, match="'seed' should be at least 0, got -1"):
        split(table, seed=-1)
