"""Duplicate rows and atoms, and the facts about them that MAGIC has."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from kappaflow.data import atom_rows, drop_duplicate_rows, examine, load_table, split
from kappaflow.errors import ArgumentError


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


def test_magic_has_115_duplicate_rows() -> None:
    """All of them hadrons, which were 19,020 rows with the gammas."""
    table = load_table("magic")
    assert len(table) == 19_020
    clean, dropped = drop_duplicate_rows(table)
    assert (len(clean), dropped) == (18_905, 115)
    assert [drop_duplicate_rows(load_table("magic", where=f"class={c}"))[1] for c in "gh"] == [
        0,
        115,
    ]
    assert [p.code for p in examine(clean)] == ["atom"] * 5


def test_magic_has_atoms_at_exact_zeros_and_no_problem_that_stops() -> None:
    """The counts of zeros its description gives; five zeros of fAlpha are too few for an atom."""
    table = load_table("magic")
    zeros = {name: int((table.values[:, j] == 0).sum()) for j, name in enumerate(table.columns)}
    counted = {name: count for name, count in zeros.items() if count}
    assert counted == {"fWidth": 98, "fAsym": 41, "fM3Long": 39, "fM3Trans": 59, "fAlpha": 5}
    problems = examine(table)
    assert {problem.severity for problem in problems} == {"warning"}
    atoms = {p.columns[0]: p.message for p in problems if p.code == "atom"}
    for name in ("fWidth", "fAsym", "fM3Long", "fM3Trans"):
        assert f"the value 0 in {zeros[name]} of 19,020 rows" in atoms[name]
    # fSize is written with four decimals, so that its most frequent values come up to 27 times.
    assert set(atoms) == {"fWidth", "fAsym", "fM3Long", "fM3Trans", "fSize"}


def test_magic_rows_with_an_atom_hold_a_frequent_value() -> None:
    """Counted by hand, column by column."""
    table = load_table("magic")
    expected = np.zeros(len(table), dtype=bool)
    for column in table.values.T:
        values, counts = np.unique(column, return_counts=True)
        expected |= np.isin(column, values[counts > 0.001 * len(table)])
    mask = atom_rows(table)
    np.testing.assert_array_equal(mask, expected)
    zero = (table.values[:, [1, 5, 6, 7]] == 0).any(axis=1)
    assert mask[zero].all()


def test_atoms_are_counted_in_the_reference() -> None:
    """A value frequent in training marks a test row; one frequent among the test rows does not."""
    generator = np.random.default_rng(0)
    x = generator.standard_normal((100, 2))
    y = generator.standard_normal((50, 2))
    x[:5, 0] = 0.25
    y[7, 0] = 0.25
    y[:9, 1] = 0.75
    mask = atom_rows(load_table(y), load_table(x))
    assert np.flatnonzero(mask).tolist() == [7]


def test_columns_of_whole_numbers_have_no_atoms() -> None:
    """Whether a column is whole is decided where the table was loaded, not in the part."""
    x = np.random.default_rng(0).standard_normal((300, 2))
    x[:, 1] = np.arange(300) % 3
    assert not atom_rows(load_table(x)).any()
    x[0, 1] = 0.5
    train, _, _ = split(load_table(x))
    rest = train.select(train.rows > 1)
    assert atom_rows(rest).all()


def test_a_value_shared_by_two_rows_of_a_small_table_is_no_atom() -> None:
    """Three rows at least."""
    x = np.random.default_rng(0).standard_normal((20, 1))
    x[:2] = 0.5
    assert not atom_rows(load_table(x)).any()
    x[2] = 0.5
    assert np.flatnonzero(atom_rows(load_table(x))).tolist() == [0, 1, 2]


def test_a_reference_with_other_columns_is_refused() -> None:
    """Positions without names would compare what does not belong together."""
    x = np.random.default_rng(0).standard_normal((20, 2))
    with pytest.raises(
        ArgumentError, match="'reference' should have the columns of 'table', x0, x1"
    ):
        atom_rows(load_table(x), load_table(x, columns=["x1", "x0"]))
