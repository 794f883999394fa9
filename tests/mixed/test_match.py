"""Tests of sampled labels and counts against held-out rows."""

import numpy as np
import pytest

from kappaflow.mixed.match import worst_match


def codes(rows, seed, shift=0.0, link=0.0):
    """Returns two labels, of which the second repeats the first at times, and a count."""
    generator = np.random.default_rng(seed)
    a = generator.choice(3, rows, p=[0.5 + shift, 0.3, 0.2 - shift])
    b = np.where(generator.random(rows) < link, a, generator.integers(0, 3, rows))
    return np.stack([a, b, 2**20 + generator.poisson(30, rows)], axis=1)


def test_labels_of_the_same_distribution_differ_by_chance_only():
    """Over 40 pairs of samples, p is below 0.05 in no more than 6, which has a chance of 0.4 %."""
    p_values = [worst_match(codes(500, seed), codes(5000, 100 + seed))[0] for seed in range(40)]
    assert sum(p < 0.05 for p in p_values) <= 6 and max(p_values) > 0.5


@pytest.mark.parametrize(("changes", "place"), [({"shift": 0.12}, (0,)), ({"link": 0.4}, (0, 1))])
def test_other_shares_and_other_dependence_are_found(changes, place):
    """The worst column, or the pair whose columns are right alone."""
    p, worst = worst_match(codes(800, 0, **changes), codes(8000, 1))
    assert p < 1e-4 and worst == place


def test_other_counts_are_found():
    """A mean that is wrong by a fifth of the deviation."""
    rows = codes(3000, 0)
    rows[:, 2] += 1
    p, worst = worst_match(rows, codes(20_000, 1))
    assert p < 1e-4 and 2 in worst


def test_no_columns_match():
    """A table of numbers alone has no test."""
    empty = np.zeros((5, 0), dtype=np.int64)
    assert worst_match(empty, empty) == (1.0, ())
