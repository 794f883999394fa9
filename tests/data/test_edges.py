"""Hard edges, circles and positive columns: each shape, at the bound that the rows show."""

import math

import numpy as np
import pytest

from kappaflow.data import dequantize, examine, load_table
from kappaflow.data.edges import bound_text, edges_of
from kappaflow.data.prepare import prepare_table

G = np.random.default_rng


def edge(values):
    """Returns the bounds of a column as text, or None."""
    edges = edges_of(load_table(np.asarray(values, dtype=float)))
    return bound_text(edges["x0"]) if edges else None


def truncated(g, rows, cut):
    """Returns rows of a normal distribution above a cut."""
    drawn = g.normal(size=20 * rows)
    return drawn[drawn > cut][:rows]


EDGES = {  # the bounds, and how rows are drawn
    "exponential": ("positive", lambda g, n: g.exponential(size=n)),
    "uniform": ("0,1", lambda g, n: g.uniform(size=n)),
    "half-normal": ("positive", lambda g, n: np.abs(g.normal(size=n))),
    "beta(1, 2)": ("positive", lambda g, n: g.beta(1, 2, size=n)),
    "truncated normal": ("-0.5,", lambda g, n: truncated(g, n, -0.5)),
    "above 1": ("1,", lambda g, n: 1 + 5 * g.exponential(size=n)),
    "below 20": (",20", lambda g, n: 20 - 3 * g.exponential(size=n)),
    "infinite density": ("positive", lambda g, n: g.gamma(0.5, size=n)),
    "cosine": ("-1,1", lambda g, n: g.uniform(-1, 1, size=n)),
    "rounded": ("0,1", lambda g, n: g.uniform(size=n).round(3)),
    "float32": ("0,1", lambda g, n: g.uniform(size=n).astype(np.float32)),
    "lognormal": ("positive", lambda g, n: g.lognormal(0, 1.5, size=n)),
    "degrees": ("circular:0,360", lambda g, n: g.uniform(0, 360, size=n)),
    "degrees from -180": ("circular:-180,180", lambda g, n: g.uniform(-180, 180, size=n)),
    "hours": ("circular:0,24", lambda g, n: g.uniform(0, 24, size=n)),
    "radians": ("circular", lambda g, n: g.uniform(-math.pi, math.pi, size=n)),
    "radians from 0": ("circular:0,2pi", lambda g, n: g.uniform(0, math.tau, size=n)),
}
SMOOTH = {
    "normal": lambda g, n: g.normal(size=n),
    "Student t": lambda g, n: g.standard_t(2, size=n),
    "gamma(3)": lambda g, n: 10 * g.gamma(3, size=n),
    "a small cluster": lambda g, n: g.normal(10 * (g.random(n) > 0.05), 0.1),
    "rounded normal": lambda g, n: g.normal(size=n).round(2),
    "whole": lambda g, n: g.integers(0, 50, size=n),
    "point mass": lambda g, n: np.maximum(0, g.normal(size=n)),
    "few zeros": lambda g, n: np.where(g.random(n) < 0.05, 0, g.exponential(size=n)),
    "constant": lambda g, n: np.full(n, 2.0),
    "few rows": lambda g, n: 5 + g.uniform(size=n)[:400],
    "one far below": lambda g, n: np.append(-5.0, g.normal(size=n)),
}


@pytest.mark.parametrize("name", EDGES)
def test_an_edge_is_found_where_the_density_ends(name):
    """At the simplest number next to the outermost row, in 98 of 100 columns or more."""
    expected, draw = EDGES[name]
    assert all(edge(draw(G(seed), 500)) == expected for seed in range(3))
    right = sum(edge(draw(G(seed), 2000)) == expected for seed in range(100))
    assert right >= 98


@pytest.mark.parametrize("name", SMOOTH)
def test_a_density_that_falls_to_zero_has_no_edge(name):
    """Neither have clusters, whole numbers and point masses; gamma(3) is the hardest."""
    columns = 500 if name == "gamma(3)" else 100
    wrong = [edge(SMOOTH[name](G(seed), 500)) for seed in range(columns)]
    assert sum(each is not None for each in wrong) <= columns // 250


@pytest.mark.parametrize("power", [1.0, 1.7])
def test_a_threshold_is_the_edge_of_a_heavy_tail_and_0_is_not(power):
    """Few rows do not tell where it is; more do, also if they are rounded."""

    def tail(seed, rows):
        return 10 * (1 + G(seed).pareto(power, rows))

    for seed in range(20):
        assert edge(tail(seed, 400)) is None
        assert edge(tail(seed, 5000)) == "10,"
        assert edge(tail(seed, 20_000).round(1)) in ("10,", None)
    assert edge(tail(0, 20_000).round(1)) == "10,"


def test_a_cluster_next_to_others_has_no_edge():
    """The outermost rows are its tail, though they are denser than those further in."""
    for seed in range(50):
        inside = G(seed).random(3000) < 0.1
        x = np.where(inside, G(seed).normal(0, 0.3, 3000), G(seed + 50).normal(4, 1, 3000))
        assert edge(x) is None


@pytest.mark.parametrize("low", [0.97, -13.25, 1e-7, 3e6])
def test_a_bound_lies_within_a_few_gaps_of_the_rows(low):
    """Also where it is not a round number."""
    x = low + 1e-3 * abs(low) * G(0).exponential(size=20_000)
    (domain,) = edges_of(load_table(x)).values()
    assert domain.high is None and x.min() - 1e-5 * abs(low) < domain.low <= x.min()


def test_columns_with_bounds_or_noise_on_whole_numbers_are_left_out():
    """A bound is declared once; noise makes edges of its own."""
    g = G(0)
    x = np.stack([g.exponential(size=900), g.normal(size=900), g.lognormal(0, 1.5, 900)], 1)
    table = load_table(x)
    (note,) = (note for note in prepare_table(table).notes if "hard edge" in note)
    assert note == (
        "columns 'x0' (above 0) and 'x2' (above 0) have rows up to a hard edge, which samples can "
        "cross: bounds={'x0': 'positive', 'x2': 'positive'} keeps them inside"
    )
    bounded = prepare_table(table, bounds={"x0": "positive", "x2": "positive"})
    assert not any("hard edge" in note for note in bounded.notes + bounded.warnings)
    counts = load_table(g.poisson(1, size=(900, 1)))
    assert edges_of(dequantize(counts, {"x0": 1.0})) == {}


def test_values_on_an_edge_need_a_repair():
    """The suggested options name it, so that the fit that they describe starts."""
    x = np.append(0.0, G(0).exponential(size=900))
    result = examine(x)
    assert result[-1].message.endswith(
        "bounds={'x0': 'positive'} with repair='jitter' for values on an edge keeps them inside"
    )
    assert result.suggestions == {"repair": "jitter", "bounds": {"x0": "positive"}}
    prepare_table(load_table(x), **result.suggestions)
