"""Repairs: what is dropped or changed, what is reported, and that nothing that stops is left."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from kappaflow.data import Table, examine, load_table, prepare
from kappaflow.data.prepare import jitter_columns, prepare_table
from kappaflow.errors import ArgumentError, DataError

Array = NDArray[np.float64]


@pytest.fixture
def healthy() -> Array:
    """Returns 400 rows of 4 correlated Gaussian columns with which nothing is wrong."""
    mixing = np.array([[1, 0, 0, 0], [0.5, 2, 0, 0], [-1, 0.3, 1, 0], [0.2, 0, 0.9, 3]])
    x = np.random.default_rng(7).standard_normal((400, 4))
    return x @ mixing.T + [0.0, 5.0, -2.0, 100.0]


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


@pytest.mark.boundary
def test_an_unknown_repair_lists_the_known_ones(healthy: Array) -> None:
    """Also through `prepare`, where a problem calls for it."""
    healthy[0, 0] = np.nan
    table = load_table(healthy)
    with pytest.raises(
        ArgumentError, match="'repair' should be one of 'drop', 'jitter', 'dequantize', 'keep', g"
    ):
        prepare(table, repair="fill")  # pyright: ignore[reportArgumentType]


def test_many_problems_of_one_kind_are_one_warning() -> None:
    """It has the first message, and names the other columns."""
    x = np.random.default_rng(0).integers(0, 9, (400, 20))
    (warning,) = prepare_table(load_table(x), repair="keep").warnings
    assert warning.startswith("column 'x0' holds whole numbers only")
    assert warning.endswith(
        "; the same holds for 'x1', 'x2', 'x3', 'x4', 'x5', 'x6', 'x7', 'x8', "
        "'x9', 'x10', 'x11', 'x12' and 7 more"
    )
    assert len(prepare_table(load_table(x[:, :5]), repair="keep").warnings) == 5


def test_a_column_gets_a_thousandth_of_its_spread_and_the_others_nothing():
    values = np.random.default_rng(0).normal(size=(4000, 3)) * (1, 50, 3)
    table = load_table(values)
    moved = jitter_columns(table, ["x1"]).values - table.values
    assert not moved[:, [0, 2]].any()
    assert moved[:, 1].std() == pytest.approx(0.05, rel=0.05)
    assert np.array_equal(jitter_columns(table, ["x1"]).values - table.values, moved)
    with pytest.raises(DataError, match="'nothing' cannot be given noise"):
        jitter_columns(table, ["nothing"])


def rows_with(values: Array, row: int, value: float) -> Array:
    """Returns values, one row of which holds another value."""
    changed = values.copy()
    changed[row] = value
    return changed


NORMAL = np.random.default_rng(0).standard_normal((100, 8))
FEWER = NORMAL[:5]  # rows than columns
WAYS_OUT = [
    (None, rows_with(NORMAL, 3, np.nan), "'x4' has .* at row 4; and 3 more; "
     "kappaflow.fit_table .* models missing values, repair='drop' leaves out the rows .*[.]$"),
    (None, np.column_stack([NORMAL, np.full(100, 1.5)]), "column 'x8' is constant: every row "
     "holds 1.5; kappaflow.* leaves out constant columns, repair='drop' leaves out the columns "
     "concerned, repair='jitter' adds a little"),
    (None, np.array([[0.5, 1.5]]), "1 row is too few: a density needs at least 2 rows[.]$"),
    (None, FEWER, "leaves out the columns concerned[.]$"),
    ("jitter", FEWER, r"cannot make .*: 5 rows are too few for 8 columns.*exclude=\['x\d', "),
    *(
        (how, np.array(rows), f"repair='{how}' cannot make .*{words}")
        for how in ("drop", "jitter")
        for rows, words in (
            ([[0.5, 1.5]], "1 row is too few"),
            ([[0.5, np.nan], [np.nan, 1.5], [0.1, np.inf]], "no rows is too few"),
            ([[np.nan], [np.nan]], "no numeric column left"),
        )
    ),
]  # fmt: skip


@pytest.mark.parametrize(("how", "values", "message"), WAYS_OUT)
def test_what_stops_is_refused_with_the_repairs_that_help(how, values, message) -> None:
    """At most five problems are listed; noise fills no holes, and makes up for no rows."""
    with pytest.raises(DataError, match=message):
        prepare(load_table(values), repair=how)


def test_a_sound_table_goes_through_unchanged(healthy: Array) -> None:
    """Without a note; its context too, of which rows with holes are dropped."""
    for how in (None, "drop"):
        table, notes = prepare(load_table(healthy), repair=how)
        assert notes == () and table.fingerprint() == load_table(healthy).fingerprint()
    healthy[4, 3] = np.nan
    table, _ = prepare(load_table(healthy, context=["x3"]), repair="drop")
    assert len(table) == 399 and 5 not in table.rows
    np.testing.assert_array_equal(table.context, healthy[table.rows - 1, 3:])  # pyright: ignore
