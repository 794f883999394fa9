"""Rows that repeat earlier ones: counted, predicted, kept together, dropped or weighed."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from kappaflow.data import (
    drop_duplicate_rows,
    examine,
    load_table,
    split,
    weigh_duplicate_rows,
    weighted,
)
from kappaflow.data.duplicates import repeats_of
from kappaflow.data.prepare import prepare_table
from kappaflow.errors import ArgumentError, DataError


@settings(deadline=None)
@given(
    arrays(
        np.float64,
        st.tuples(st.integers(1, 12), st.integers(1, 3)),
        elements=st.sampled_from([0.0, -0.0, 1.5, np.nan]),
    )
)
def test_the_first_of_equal_rows_is_kept_in_order(x: np.ndarray) -> None:
    """As a slow loop over the rows does it, 0.0 equal to -0.0 and NaN to NaN."""
    seen: set[tuple[str, ...]] = set()
    expected = []
    for row, values in enumerate(x, start=1):
        key = tuple(str(value + 0.0) for value in values)
        if key not in seen:
            seen.add(key)
            expected.append(row)
    table, dropped = drop_duplicate_rows(load_table(x))
    assert table.rows.tolist() == expected
    assert dropped == len(x) - len(expected)


def test_rows_with_different_context_are_different() -> None:
    """The density given one context is not that given another."""
    x = np.array([[0.5, 1.0], [0.5, 2.0], [0.5, 1.0]])
    table, dropped = drop_duplicate_rows(load_table(x, context=["x1"]))
    assert (table.rows.tolist(), dropped) == ([1, 2], 1)


def rounded(seed: int, rows: int = 20_000) -> np.ndarray:
    """Returns normal rows of two columns, rounded to 2 and 1 decimals."""
    x = np.random.default_rng(seed).normal(size=(rows, 2))
    return np.stack([x[:, 0].round(2), x[:, 1].round(1)], axis=1)


@pytest.mark.parametrize(
    "make",
    [
        lambda g: g.normal(size=(5000, 2)).round(1),
        lambda g: g.poisson(40, (5000, 2)).astype(float),
        lambda g: (g.normal(size=(5000, 1)) + 0.01 * g.normal(size=(5000, 2))).round(2),
        lambda g: np.hstack([g.integers(0, 3, (9000, 1)), g.normal(size=(9000, 1)).round(3)]),
        lambda g: g.integers(0, 3, (900, 3)).astype(float),
        lambda g: g.normal(size=(20_000, 1)).astype(np.float32),
        lambda g: np.repeat(g.normal(size=(5, 2)), 9, axis=0),
    ],
)
def test_repeats_that_rounding_explains_do_not_warn(make) -> None:  # noqa: ANN001
    """At an edge, in counts, near a line, with labels, in float32, among few values."""
    table = load_table(make(np.random.default_rng(0)))
    prepared = prepare_table(table, repair="keep")
    assert not prepared.repeats.unexpected and prepared.repeats.total > 0
    assert "rows repeat earlier rows: all are kept, and copies stay in" in prepared.notes[-1]
    assert not any("repeat" in message for message in prepared.warnings)
    assert "rows repeat earlier rows: all are kept" in prepare_table(table).notes[-1]


def test_pasted_rows_warn_with_their_number() -> None:
    """In a table with two continuous columns or more, whatever the others are."""
    g = np.random.default_rng(0)
    x = np.hstack([g.normal(size=(2000, 2)), g.integers(0, 3, (2000, 1))])
    x[-200:] = x[:200]
    (problem,) = (p for p in examine(load_table(x)) if p.code == "duplicate-rows")
    assert problem.message.startswith("200 rows repeat earlier rows, which rounding does not expl")
    assert problem.rows[0] == 1801
    assert not repeats_of(load_table(x[:, 1:])).unexpected


@settings(deadline=None, max_examples=60)
@given(
    arrays(np.float64, st.tuples(st.integers(4, 60), st.integers(1, 2)),
           elements=st.sampled_from([0.0, -0.0, 0.5, 1.5, 2.5, 3.5])),
    st.integers(0, 100),
    st.sampled_from([(0.8, 0.1, 0.1), (0.9, 0.1), (0.5, 0.5)]),
)  # fmt: skip
def test_copies_of_a_row_never_straddle_a_split(
    x: np.ndarray, seed: int, fractions: tuple[float, ...]
) -> None:
    """Every row is in one part with all its copies; parts are as large as that allows."""
    table = load_table(x)
    sets = [set(map(tuple, (x + 0.0).tolist()))]
    if len(sets[0]) < len(fractions):
        with pytest.raises(DataError, match="equal rows stay in one part"):
            split(table, fractions=fractions, seed=seed)
        return
    parts = split(table, fractions=fractions, seed=seed)
    assert sorted(np.concatenate([part.rows for part in parts])) == list(range(1, len(x) + 1))
    sets = [set(map(tuple, (part.values + 0.0).tolist())) for part in parts]
    assert sum(map(len, sets)) == len(set.union(*sets)) and all(sets)
    again = split(table, fractions=fractions, seed=seed)
    assert [p.rows.tolist() for p in again] == [p.rows.tolist() for p in parts]


def test_parts_with_copies_have_the_sizes_that_were_asked_for() -> None:
    """To half of the largest group of copies."""
    table = load_table(rounded(0))
    largest = np.unique(table.values, axis=0, return_counts=True)[1].max()
    for seed in range(5):
        sizes = np.array([len(part) for part in split(table, seed=seed)])
        assert np.abs(sizes - [16_000, 2000, 2000]).max() <= largest


def test_noise_after_the_copies_were_marked_does_not_part_them() -> None:
    """Jitter and dequantization make them different."""
    table = prepare_table(load_table(rounded(1, 500)), repair="dequantize").table
    before = load_table(rounded(1, 500)).values
    parts = [set(map(tuple, before[part.rows - 1])) for part in split(table)]
    assert not (parts[0] & parts[1] or parts[0] & parts[2] or parts[1] & parts[2])


def test_weighed_rows_have_the_moments_of_all_rows() -> None:
    """Weights that were there are summed; without repeats there are none."""
    table = load_table(rounded(0, 500))
    result, counted = weigh_duplicate_rows(table)
    assert len(result) + counted == 500 and result.weights is not None
    np.testing.assert_allclose(
        np.average(result.values, axis=0, weights=result.weights), table.values.mean(0)
    )
    assert weigh_duplicate_rows(load_table(np.arange(5.0)))[0].weights is None
    given = weighted(load_table(np.array([1.0, 2.0, 1.0])), [1.0, 2.0, 4.0])
    assert weigh_duplicate_rows(given)[0].weights.tolist() == [5.0, 2.0]  # pyright: ignore


def test_what_cannot_be_done_with_repeats_is_refused() -> None:
    """In a sentence that names the argument and the way out."""
    table = load_table(rounded(0, 50))
    with pytest.raises(ArgumentError, match="'duplicates' should be one of 'keep', 'drop', 'wei"):
        prepare_table(table, duplicates="forget")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ArgumentError, match="'duplicates' should be 'keep' with repair='dequant"):
        prepare_table(table, duplicates="weigh", repair="dequantize")
    with pytest.raises(ArgumentError, match="'duplicates' should be 'keep' or 'weigh' with wei"):
        prepare_table(weighted(table, np.arange(50.0)), duplicates="drop")
