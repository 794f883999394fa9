"""Repairs: what is dropped or changed, what is reported, and that nothing that stops is left."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from kappaflow.data import Table, examine, load_table, prepare
from kappaflow.data.prepare import prepare_table
from kappaflow.errors import ArgumentError, DataError

Array = NDArray[np.float64]


def broken(healthy: Array) -> Table:
    """Returns 4 columns with a hole and an infinity, a constant, a copy, a sum, and no number."""
    table = np.column_stack([
        healthy,
        np.full(400, 2.5),
        healthy[:, 0],
        healthy[:, 1] + healthy[:, 2],
        np.full(400, np.nan),
    ])
    table[9, 0] = table[9, 5] = np.nan
    table[19, 3] = np.inf
    return load_table(table)


def stops(table: Table) -> list[str]:
    """Returns the codes of what still stops."""
    return [problem.code for problem in examine(table) if problem.severity == "error"]


def test_a_sound_table_goes_through_unchanged(healthy: Array) -> None:
    """Without a note."""
    for repair in (None, "drop"):
        table, notes = prepare(load_table(healthy), repair=repair)
        assert notes == () and table.fingerprint() == load_table(healthy).fingerprint()


def test_drop_leaves_a_sound_table_and_says_what_went(healthy: Array) -> None:
    """Rows with holes, and a column of each kind of fault, each in one sentence."""
    table, notes = prepare(broken(healthy), repair="drop")
    assert stops(table) == []
    assert table.rows.tolist() == [row for row in range(1, 401) if row not in {10, 20}]
    assert table.columns == ("x0", "x1", "x2", "x3")
    assert table.left_out == ("x7", "x4", "x5", "x6")
    np.testing.assert_array_equal(table.values, broken(healthy).values[table.rows - 1][:, :4])
    assert notes == (
        "left out column 'x7': no number",
        "left out column 'x4': constant",
        "left out columns 'x5', 'x6': linear in other columns",
        "dropped 2 rows with missing or infinite values (rows 10, 20)",
    )


def test_jitter_keeps_the_columns_and_adds_a_thousandth(healthy: Array) -> None:
    """Only the columns to blame change, by 1e-3 of their spread, or by 1e-3 if constant."""
    before = broken(healthy)
    table, notes = prepare(before, repair="jitter")
    assert stops(table) == []
    assert table.columns == ("x0", "x1", "x2", "x3", "x4", "x5", "x6")
    assert notes[1:3] == (
        "added Gaussian noise of standard deviation 1e-3 to column 'x4': constant",
        "added Gaussian noise of 1e-3 of the spread to columns 'x5', 'x6': linear in other "
        "columns",
    )
    change = table.values - before.values[table.rows - 1][:, :7]
    spread = before.values[table.rows - 1][:, :7].std(axis=0)
    spread[4] = 1.0
    changed = np.flatnonzero(np.abs(change).max(axis=0))
    assert changed.tolist() == [4, 5, 6]
    # 398 draws: the standard error of a standard deviation is 3.5 %, so four of them are 14 %
    np.testing.assert_allclose(change.std(axis=0)[changed], 1e-3 * spread[changed], rtol=0.15)
    assert np.abs(change.mean(axis=0)[changed] / spread[changed]).max() < 4e-3 / np.sqrt(398)


def test_the_noise_is_not_the_data_again() -> None:
    """Data made with the same seed do not depend on the noise of a column that was constant."""
    x = np.random.default_rng(0).standard_normal(100)
    table, _ = prepare(load_table(np.column_stack([x, np.full(100, 2.0)])), repair="jitter")
    # 100 independent pairs: the correlation has a standard error of 0.1
    z = (table.values - table.values.mean(axis=0)) / table.values.std(axis=0)
    assert abs(np.mean(z[:, 0] * z[:, 1])) < 0.4


def test_a_jittered_count_is_no_whole_number_any_more(healthy: Array) -> None:
    """Its warning goes with it."""
    counts = np.rint(healthy[:, 0] * 3)
    table = load_table(np.column_stack([healthy, counts, counts]))
    table, notes = prepare(table, repair="jitter")
    assert table.integer_columns == ("x4",)
    assert sum("whole numbers" in note for note in notes) == 1


def test_the_fewest_dependent_columns_are_left_out(healthy: Array) -> None:
    """Two relations among seven columns cost two columns."""
    x = np.column_stack([
        healthy,
        healthy[:, 0] - healthy[:, 1],
        healthy[:, 2] * 3,
        healthy.sum(axis=1) ** 2,
    ])
    table, _ = prepare(load_table(x), repair="drop")
    assert len(table.columns) == 5
    assert "x6" in table.columns
    assert stops(table) == []


@settings(max_examples=30, deadline=None)
@given(
    st.integers(0, 10_000),
    st.sampled_from(["drop", "jitter"]),
    st.lists(st.sampled_from(["hole", "constant", "copy", "sum", "infinity"]), max_size=6),
)
def test_no_stop_survives_a_repair(seed: int, how: str, faults: list[str]) -> None:
    """Whatever faults come together, in whatever order of columns."""
    generator = np.random.default_rng(seed)
    columns = list(generator.standard_normal((3, 60)))
    for fault in faults:
        chosen = columns[generator.integers(len(columns))]
        if fault == "hole":
            chosen[generator.integers(60)] = np.nan
        elif fault == "infinity":
            chosen[generator.integers(60)] = np.inf
        elif fault == "constant":
            columns.append(np.full(60, generator.normal()))
        elif fault == "copy":
            columns.append(chosen.copy())
        else:
            with np.errstate(invalid="ignore"):
                columns.append(columns[0] + 2 * columns[1] - chosen)
    x = np.column_stack(columns)[:, generator.permutation(len(columns))]
    table, _ = prepare(load_table(x), repair=how)  # pyright: ignore[reportArgumentType]
    assert stops(table) == []


def test_without_repair_one_error_joins_what_stops(healthy: Array) -> None:
    """With the ways out, and without the warnings."""
    healthy[:5, 1] = 0.25
    healthy[6, 0] = np.nan
    table = np.column_stack([healthy, np.full(400, 1.5)])
    with pytest.raises(DataError) as error:
        prepare(load_table(table))
    assert str(error.value) == (
        "no density can be fitted to 'the array': column 'x0' has a missing value (NaN) at row 7; "
        "column 'x4' is constant: every row holds 1.5; repair='drop' leaves out "
        "the rows and the columns concerned, repair='jitter' adds a little "
        "noise to the columns instead."
    )


def test_jitter_is_not_offered_for_rows(healthy: Array) -> None:
    """Noise fills no holes."""
    healthy[6, 0] = np.nan
    with pytest.raises(DataError, match="repair='drop' leaves out the rows concerned[.]$"):
        prepare(load_table(healthy))


def test_at_most_five_problems_are_listed() -> None:
    """And the others counted."""
    x = np.random.default_rng(0).standard_normal((100, 8))
    x[3] = np.nan
    with pytest.raises(
        DataError, match="column 'x4' has .* at row 4; and 3 more; repair"
    ) as error:
        prepare(load_table(x))
    assert "'x5'" not in str(error.value)


def test_warnings_become_notes(healthy: Array) -> None:
    """After the repairs, in one sentence each."""
    healthy[[10, 11]] = healthy[[0, 1]]
    healthy[6, 0] = np.nan
    _, notes = prepare(load_table(healthy), repair="drop")
    assert notes[0] == "dropped 1 row with missing or infinite values (row 7)"
    assert notes[1].startswith(
        "2 rows repeat earlier rows, which rounding does not explain (rows 11, 12)"
    )
    assert len(notes) == 2


def test_rows_with_holes_in_context_are_dropped(healthy: Array) -> None:
    """Context and values stay together."""
    healthy[4, 3] = np.nan
    table, _ = prepare(load_table(healthy, context=["x3"]), repair="drop")
    assert 5 not in table.rows
    assert len(table) == 399
    assert table.context is not None
    np.testing.assert_array_equal(table.context[:, 0], healthy[table.rows - 1, 3])


@pytest.mark.parametrize("how", ["drop", "jitter"])
@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([[0.5, 1.5]], "1 row is too few"),
        ([[0.5, np.nan], [np.nan, 1.5], [0.1, np.inf]], "no rows is too few"),
        ([[np.nan], [np.nan]], "no numeric column left"),
    ],
)
def test_what_no_repair_can_mend_is_said(how: str, rows: list[list[float]], words: str) -> None:
    """Too few rows, no complete row, no column."""
    with pytest.raises(DataError, match=f"repair='{how}' cannot make .*{words}"):
        prepare(load_table(np.array(rows)), repair=how)  # pyright: ignore[reportArgumentType]


def test_one_row_is_not_offered_a_repair() -> None:
    """More data are the only way out."""
    with pytest.raises(DataError, match="1 row is too few: a density needs at least 2 rows[.]$"):
        prepare(load_table(np.array([[0.5, 1.5]])))


def test_noise_cannot_make_up_for_rows() -> None:
    """More columns than rows depend on each other after any noise; leaving columns out helps."""
    table = load_table(np.random.default_rng(0).standard_normal((10, 20)))
    with pytest.raises(DataError, match=r"cannot make .*: 10 rows are too few.*exclude=\['x2', "):
        prepare(table, repair="jitter")
    with pytest.raises(DataError, match="leaves out the columns concerned[.]$"):
        prepare(table)
    assert len(prepare(table, repair="drop")[0].columns) == 9


@pytest.mark.boundary
def test_an_unknown_repair_lists_the_known_ones(healthy: Array) -> None:
    """Also through `prepare`, where a problem calls for it."""
    healthy[0, 0] = np.nan
    table = load_table(healthy)
    with pytest.raises(
        ArgumentError, match="'repair' should be one of 'drop', 'jitter', 'dequantize', got"
    ):
        prepare(table, repair="fill")  # pyright: ignore[reportArgumentType]


def test_many_problems_of_one_kind_are_one_warning() -> None:
    """It has the first message, and names the other columns."""
    x = np.random.default_rng(0).integers(0, 9, (400, 20))
    (warning,) = prepare_table(load_table(x)).warnings
    assert warning.startswith("column 'x0' holds whole numbers only")
    assert warning.endswith(
        "; the same holds for 'x1', 'x2', 'x3', 'x4', 'x5', 'x6', 'x7', 'x8', "
        "'x9', 'x10', 'x11', 'x12' and 7 more"
    )
    assert len(prepare_table(load_table(x[:, :5])).warnings) == 5
