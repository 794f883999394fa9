"""Resolutions of columns, point masses, and noise as wide as a step."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import kstest

from kappaflow.data import (
    atom_rows,
    dequantize,
    examine,
    load_table,
    prepare,
    resolutions,
    split,
)
from kappaflow.data.prepare import prepare_table
from kappaflow.data.rounding import coarse_columns, grid_of, point_masses, resolution
from kappaflow.domains import Interval
from kappaflow.errors import ArgumentError, DataError


@settings(deadline=None, max_examples=60)
@given(
    st.sampled_from([0.001, 0.01, 0.1, 0.25, 0.5, 1.0, 2.5, 20.0, 1 / 3, 1 / 64]),
    st.integers(30, 500),
    st.floats(-100, 100),
    st.booleans(),
    st.integers(0, 1000),
)
def test_the_step_of_a_grid_is_found(
    step: float, rows: int, offset: float, single: bool, seed: int
) -> None:
    """Whatever the step and the offset, also after rounding to float32."""
    x = np.rint(np.random.default_rng(seed).normal(size=rows) * 20) * step + offset
    if single and step * 2**15 > abs(offset) + 100 * step:
        x = x.astype(np.float32).astype(np.float64)
        assert resolution(x) == pytest.approx(step, rel=1e-3)
    else:
        assert resolution(x) == pytest.approx(step, rel=1e-6)


@pytest.mark.parametrize("kind", ["float64", "float32", "far away", "uniform", "large"])
@pytest.mark.parametrize("rows", [5, 40, 3000])
def test_a_continuous_column_has_no_resolution(kind: str, rows: int) -> None:
    """The float type itself is no rounding."""
    generator = np.random.default_rng(rows)
    x = generator.standard_normal(rows)
    column = {
        "float64": x,
        "float32": x.astype(np.float32).astype(np.float64),
        "far away": x + 1e9,
        "uniform": generator.random(rows, dtype=np.float32).astype(np.float64),
        "large": np.rint(x * 1e17),
    }[kind]
    assert resolution(column) is None


def test_one_value_off_the_grid_leaves_no_resolution() -> None:
    """All values have to lie on it; missing ones do not count."""
    x = np.random.default_rng(0).normal(size=200).round(1)
    x[3] = np.nan
    assert resolution(x) == 0.1
    x[4] = 0.123456789012
    assert resolution(x) is None


SMOOTH = {
    "one decimal": lambda g: g.normal(size=20_000).round(1),
    "two decimals": lambda g: g.normal(size=20_000).round(2),
    "float32": lambda g: g.normal(size=20_000).astype(np.float32).astype(float),
    "exponential": lambda g: g.exponential(size=5000).round(1),
    "heavy tails": lambda g: g.standard_cauchy(4000).round(1),
    "log-normal": lambda g: np.exp(g.normal(size=5000)).round(1),
    "counts": lambda g: g.poisson(5, 3000).astype(float),
    "few counts": lambda g: g.poisson(0.5, 3000).astype(float),
    "two values": lambda g: g.integers(0, 2, 500).astype(float),
    "bootstrap": lambda g: g.choice(g.normal(size=1000), 1000),
    "uniform": lambda g: g.uniform(size=9000).round(2),
}


@pytest.mark.parametrize("name", SMOOTH)
def test_a_smooth_density_has_no_point_mass(name: str) -> None:
    """However it is rounded, in the tails too."""
    for seed in range(5):
        assert not len(point_masses(SMOOTH[name](np.random.default_rng(seed))).values)


@pytest.mark.parametrize("name", ["one decimal", "two decimals", "counts", "exponential"])
def test_a_point_mass_is_found_among_rounded_values(name: str) -> None:
    """With its count, and how many rows the values around it predict."""
    x = SMOOTH[name](np.random.default_rng(0))
    value = float(np.unique(x)[10])
    plain = int((x == value).sum())
    x[: 3 * plain + 100] = value
    result = point_masses(x)
    assert result.values.tolist() == [value]
    assert result.counts[0] == (x == value).sum()
    assert plain / 2 - 10 < result.expected[0] < 3 * plain + 10


def test_magic_has_point_masses_at_exact_zeros_and_no_problem_that_stops() -> None:
    """The counts of zeros its description gives; five zeros of fAlpha are too few."""
    table = load_table("magic")
    zeros = {name: int((table.values[:, j] == 0).sum()) for j, name in enumerate(table.columns)}
    counted = {name: count for name, count in zeros.items() if count}
    assert counted == {"fWidth": 98, "fAsym": 41, "fM3Long": 39, "fM3Trans": 59, "fAlpha": 5}
    problems = examine(table)
    assert {problem.severity for problem in problems} == {"warning", "note"}
    masses = {p.columns[0]: p.message for p in problems if p.code == "atom"}
    for name in ("fWidth", "fAsym", "fM3Long", "fM3Trans"):
        assert f"the value 0 in {zeros[name]} of 19,020 rows" in masses[name]
    # fSize is a logarithm of rounded values: some values come up to 27 times, five times as often
    # as those around them.
    assert set(masses) == {"fWidth", "fAsym", "fM3Long", "fM3Trans", "fSize"}
    mask = atom_rows(table)
    assert mask[(table.values[:, [1, 5, 6, 7]] == 0).any(axis=1)].all()
    assert mask.mean() < 0.02


def test_point_masses_are_counted_in_the_reference() -> None:
    """A value frequent in training marks a test row; one frequent among the test rows does not."""
    generator = np.random.default_rng(0)
    x = generator.standard_normal((100, 2))
    y = generator.standard_normal((50, 2))
    x[:5, 0] = 0.25
    y[7, 0] = 0.25
    y[:9, 1] = 0.75
    mask = atom_rows(load_table(y), load_table(x))
    assert np.flatnonzero(mask).tolist() == [7]


def test_evenly_spread_whole_numbers_hold_no_point_mass() -> None:
    """Also in a part of the table; zeros that are far too many do."""
    x = np.random.default_rng(0).standard_normal((300, 2))
    x[:, 1] = np.arange(300) % 30
    table = load_table(x)
    assert not atom_rows(table).any()
    assert not atom_rows(split(table)[0]).any()
    x[:100, 1] = 0
    assert np.array_equal(atom_rows(load_table(x)), x[:, 1] == 0)


def test_noise_is_uniform_and_exactly_as_wide_as_a_step() -> None:
    """It depends on the row number and the column, not on the other rows."""
    x = np.random.default_rng(0).normal(size=(4000, 2)).round(1)
    table = load_table(x)
    result = dequantize(table, {"x0": 0.1, "x1": 0.1})
    noise = (result.values - x) / 0.1
    assert np.abs(noise).max() <= 0.5
    for column in noise.T:
        assert kstest(column + 0.5, "uniform").pvalue > 0.01
    assert abs(np.corrcoef(noise.T)[0, 1]) < 0.06
    some = np.array([5, 77, 3999])
    part = dequantize(table.select(some), {"x0": 0.1, "x1": 0.1})
    np.testing.assert_array_equal(part.values, result.values[some])
    assert (dequantize(table, {"x0": 0.1}, seed=1).values != result.values)[:, 0].all()


G, N = np.random.default_rng(0), 3000
NORMAL = G.normal(size=N)
COARSE = {  # columns of few values, and the width of their steps; None for all others
    "counts": (G.poisson(3, N), 1.0),
    "rare events": (G.poisson(0.05, N), 1.0),
    "counts with a heavy tail": ((1 + G.pareto(0.8, N)).astype(int), 1.0),
    "0 and 1": (G.integers(0, 2, N), 1.0),
    "one decimal": (NORMAL.round(1), 0.1),
    "steps of 5": (5 * G.integers(3, 40, N), 5.0),
    "three decimals": (NORMAL.round(3), None),
    "16 bits": ((30_000 + 3000 * NORMAL).round(), None),
    "populations": (np.exp(9 + 1.5 * NORMAL).round(), None),
    "identifiers": (G.permutation(10 * N)[:N], None),
    "mostly 0": (np.where(G.random(N) < 0.9, 0, (30 * NORMAL).round(2)), None),
    "continuous": (NORMAL, None),
    "few rows": (G.poisson(3, 40), None),
}


@pytest.mark.parametrize("name", COARSE)
def test_columns_of_few_values_get_noise_by_default(name: str) -> None:
    """As wide as a step, and a sentence; "keep" leaves them, and a context never gets any."""
    column, step = COARSE[name]
    table = load_table(np.stack([column, G.normal(size=len(column))], axis=1).astype(float))
    assert coarse_columns(table) == ({} if step is None else {"x0": step})
    prepared = prepare_table(table)
    noise = np.abs(prepared.table.values - table.values).max(0)
    assert noise[1] == 0 and (noise[0] == 0 if step is None else 0.4 < noise[0] / step <= 0.5)
    added = [text for text in prepared.warnings if text.startswith("added")]
    assert [f"'x0' ({step:g}): the" in text for text in added] == ([] if step is None else [True])
    in_context = load_table(table.values, context=["x0"])
    others = prepare_table(table, repair="keep"), prepare_table(table, duplicates="weigh")
    assert not any(other.table.grids for other in (*others, prepare_table(in_context)))


GRIDS = {  # values, their step and domain; numbers, and the values next to them
    "counts": ([0] * 9 + [1, 2, 2, 3], 1.0, None, [-7, -0.6, 0.4, 2.6, 5.2], [0, 0, 0, 3, 5]),
    "counts above 0": ([2, 3, 3, 4, 9], 1.0, None, [-0.8, 0.6, 11.4], [0, 1, 11]),
    "a die": ([*range(1, 7)] * 5, 1.0, None, [-1, 0.4, 6.6, 3.5001], [1, 1, 6, 4]),
    "decimals": ([-4.3, 0.1, 0.3, 7.2], 0.1, None, [-9.26, 0.26, 7.9], [-9.3, 0.3, 7.9]),
    "halves": ([0.5, 1.5, 4.5], 1.0, None, [-2, 0.9, 6.2], [0.5, 0.5, 6.5]),
    "hours": (
        [*range(24)] * 9,
        1.0,
        Interval(0, 24, circular=True),
        [23.6, 0.2, 23.4],
        [0, 0, 23],
    ),
    "bounds": ([3, 4, 5, 7], 1.0, Interval(1.5, 8), [0.2, 1.6, 7.6, 11], [3, 3, 7, 7]),
}


@pytest.mark.parametrize("name", GRIDS)
def test_samples_are_rounded_to_values_inside_of_hard_ends(name: str) -> None:
    """Exactly, so that they are written as short as the values; tails may go on."""
    values, step, domain, numbers, expected = GRIDS[name]
    grid = grid_of(np.array(values, dtype=float), step, domain)
    assert grid.nearest(np.array(numbers, dtype=float)).tolist() == expected
    back = grid.nearest(np.array(values) + step * G.uniform(-0.49, 0.49, len(values)))
    assert back.tolist() == values


def test_each_part_of_a_split_has_the_same_few_values() -> None:
    """With noise; and a code for missing values is named though it gets noise too."""
    counts = G.poisson(3, (900, 1)).astype(float)
    parts = [np.rint(part.values) for part in split(prepare_table(load_table(counts)).table)]
    assert all(len(np.unique(part)) > 4 for part in parts)
    counts[:30] = -999
    table = load_table(np.hstack([counts, G.normal(size=(900, 1))]))
    assert any("if it stands for a missing value" in text for text in prepare(table)[1])


def test_repair_dequantizes_rounded_columns_only() -> None:
    """And says so; rows with holes are dropped as in other repairs, relations still stop."""
    x = np.random.default_rng(0).normal(size=(300, 3))
    x[:, 0] = x[:, 0].round(1)
    x[:, 2] = np.rint(5 * x[:, 2])
    x[4, 1] = np.nan
    table = load_table(x)
    result, notes = prepare(table, repair="dequantize")
    assert notes[0] == "dropped 1 row with missing or infinite values (row 5)"
    assert notes[1].startswith("added uniform noise as wide as a step of their values to 'x0' (0")
    assert resolutions(result) == {} and examine(result) == ()
    np.testing.assert_array_equal(result.values[:, 1], np.delete(x[:, 1], 4))
    dependent = load_table(np.hstack([x[:, :1], 2 * x[:, :1]]))
    with pytest.raises(DataError, match=r"'dequantize' cannot .*exclude=\['x1'\] leaves it out"):
        prepare(dependent, repair="dequantize")


def test_noise_stays_in_the_domain_of_a_column() -> None:
    """Zeros of a positive column may be on its end if they were rounded to it."""
    x = np.random.default_rng(0).exponential(size=(500, 1)).round(1)
    assert (x == 0).any()
    prepared = prepare_table(load_table(x), bounds={"x0": "positive"}, repair="dequantize")
    assert (prepared.table.values > 0).all() and prepared.table.widths == {"x0": 0.1}


def test_arguments_that_do_not_fit_are_refused() -> None:
    """Widths of other columns or not positive, and a reference with other columns."""
    x = np.random.default_rng(0).standard_normal((20, 2))
    table = load_table(x)
    for widths in ({"x2": 1.0}, {"x0": 0.0}, {"x0": float("nan")}):
        with pytest.raises(ArgumentError, match="'widths'"):
            dequantize(table, widths)
    with pytest.raises(ArgumentError, match="'reference' should have the columns of 'table', x0"):
        atom_rows(table, load_table(x, columns=["x1", "x0"]))
