"""Scans: p-values of cells, places of deviations, false alarms."""

import numpy as np
import pytest
from scipy import stats

from kappaflow.goodness import scan as module
from kappaflow.goodness.scan import Pool, Tally, scan_uniform, two_cells


def scanned(rows, samples, weights=None, **options):
    """Returns the scan in the order of the values, and the ends of its cell."""
    values = np.concatenate([rows, samples])
    order = np.argsort(values)
    result = Pool(len(rows), len(samples), weights).scan(order, **options)
    return result, values[order[result.cell.start]], values[order[result.cell.stop - 1]]


@pytest.mark.parametrize(("rows", "samples", "cell"), [(7, 20, 5), (60, 5_000, 12), (300, 90, 40)])
def test_p_values_of_cells_are_those_of_scipys_hypergeometric(rows, samples, cell):
    """Both tails, doubled."""
    k = np.arange(cell + 1)
    exact = stats.hypergeom(rows + samples, rows, cell)
    expected = np.minimum(1, 2 * np.minimum(exact.cdf(k), exact.sf(k - 1)))
    actual = module._hypergeometric(rows + samples, rows, cell)
    possible = exact.pmf(k) > 0
    assert np.allclose(actual[possible], expected[possible], rtol=1e-6, atol=1e-290)


def test_shares_of_trials_have_the_binomial_p_values_of_scipy():
    """Both tails of whole numbers of trials."""
    k = np.arange(21)
    exact = stats.binom(20, 0.3)
    expected = np.minimum(1, 2 * np.minimum(exact.cdf(k), exact.sf(k - 1)))
    assert np.allclose(module._binomial(k / 20, np.full(21, 20.0), np.full(21, 0.3)), expected)


def test_cells_together_have_the_p_value_of_scipys_contingency_table():
    """The likelihood-ratio statistic, and the divergence without its bias."""
    rng = np.random.default_rng(0)
    values = np.concatenate([rng.normal(0.1, 1, 800), rng.normal(size=4_000)])
    tally = Tally(Pool(800, 4_000), order := np.argsort(values))
    home = np.arange(4_800) * 16 // 4_800
    counts = [np.bincount(home[part], minlength=16) for part in (order < 800, order >= 800)]
    result = tally.together(4)
    expected = stats.chi2_contingency(counts, lambda_="log-likelihood", correction=False)
    assert result.p_value == pytest.approx(expected.pvalue, rel=1e-6)
    p, q = counts[0] / 800, (counts[1] + 0.5) / 4_008
    bias = 15 / 2 * (1 / 800 + 1 / 4_000)
    assert result.nats == pytest.approx((p * np.log(p / q)).sum() - bias)


def test_the_relative_entropy_of_two_cells_is_that_of_scipy():
    """A share without any expected one counts as at least `least`."""
    assert two_cells(0.3, 0.1) == pytest.approx(stats.entropy([0.3, 0.7], [0.1, 0.9]))
    assert two_cells(0.01, 0, 1e-4) == pytest.approx(stats.entropy([0.01, 0.99], [1e-4, 0.9999]))


UNIT = np.linspace(0, 1, 20_001)[1:]
LINE = 0.3 + 1e-3 * np.linspace(0, 1, 20)


@pytest.mark.parametrize(
    ("rows", "samples", "low", "high"),
    [
        (np.append(UNIT[5::10][:1_980], LINE), UNIT, 0.29, 0.31),  # a line of 1 %
        (UNIT[5::10][(UNIT[5::10] < 0.5) | (UNIT[5::10] > 0.53)], UNIT, 0.49, 0.54),  # a hole
        (np.append(UNIT[5::10], 1 + 0.1 * UNIT[::1_300]), UNIT, 0.98, 1.1),  # a tail
        (0.04 + 0.96 * UNIT[5::10], UNIT, 0.0, 0.05),  # samples below a hard cut
    ],
    ids=["line", "hole", "tail", "cut"],
)
def test_a_deviation_is_found_at_its_place(rows, samples, low, high):
    """The cell overlaps the deviation, and is hardly wider."""
    result, start, stop = scanned(rows, samples)
    assert result.p_value < 1e-4
    assert low <= start < stop <= high


def test_a_line_is_found_where_p_values_are_too_small_for_floats():
    """The cell that explains most is chosen among those with equal p-values."""
    rows = np.append(UNIT[::2], 0.3 + 1e-5 * UNIT[::10])
    result, start, stop = scanned(rows, np.append(UNIT, UNIT + 1e-6))
    assert result.p_value < 1e-290
    assert 0.29 < start < stop < 0.31


def weighted(rng, number, mean=0.5, width=1.3):
    """Returns values drawn from another normal, with their weights for the standard normal."""
    x = rng.normal(mean, width, number)
    weights = stats.norm.pdf(x) / stats.norm.pdf(x, mean, width)
    return x, weights / weights.mean()


def test_p_values_of_weighted_cells_are_those_of_simulated_rows():
    """One cell, the quarter of the largest values, in which weights are small or large."""
    rng = np.random.default_rng(0)
    for sign in (1, -1):
        chances = []
        for _ in range(1_500):
            x, weights = weighted(rng, 300, 0.8, 1.0)
            values = sign * np.concatenate([x, rng.normal(size=3_000)])
            tally = Tally(Pool(300, 3_000, weights), np.argsort(values))
            chances.append(tally.worst(np.array([0, 2_475, 3_300]), 1).p_value)
        share = (np.array(chances)[:, None] <= [0.02, 0.1, 0.5]).mean(0)
        assert (share <= [0.06, 0.16, 0.6]).all(), (sign, share)
        assert share[2] > 0.1, (sign, share)


def alarms(p_values):
    """Returns how often p-values are below 1 % and 5 %, over how often they should be."""
    return (np.array(p_values)[:, None] <= [0.01, 0.05]).mean(0) / [0.01, 0.05]


@pytest.mark.slow
@pytest.mark.parametrize("number", [60, 500])
@pytest.mark.parametrize("has_weights", [False, True])
def test_scans_of_equal_distributions_seldom_alarm(number, has_weights):
    """1,000 scans, also of weighted rows."""
    rng = np.random.default_rng(1)
    p_values = []
    for _ in range(1_000):
        x, weights = weighted(rng, number) if has_weights else (rng.normal(size=number), None)
        p_values.append(scanned(x, rng.normal(size=10 * number), weights)[0].p_value)
    assert alarms(p_values).max() <= 1.5


@pytest.mark.slow
@pytest.mark.parametrize("has_weights", [False, True])
def test_uniform_ranks_seldom_alarm(has_weights):
    """Of all rows, and in four slices, for numbers of ranks that cells do not divide."""
    rng = np.random.default_rng(2)
    for ends, slices in ((64, 1), (64, 4), (41, 1)):
        p_values = []
        for _ in range(1_000):
            x, weights = weighted(rng, 600) if has_weights else (rng.normal(size=600), None)
            ranks = rng.binomial(ends - 1, stats.norm.cdf(x))
            home = np.arange(600) * slices // 600
            p_values.append(scan_uniform(ranks, ends, home, weights).p_value)
        assert alarms(p_values).max() <= 1.5, (ends, slices)


def test_ranks_of_one_slice_are_found_there():
    """The first range of ranks in the second of two slices is empty."""
    ranks = np.arange(640) % 64
    ranks[320:] = 32 + ranks[320:] // 2
    result = scan_uniform(ranks, 64, np.arange(640) // 320)
    assert result.p_value < 1e-10
    assert result.cell.start == 1
    assert scan_uniform(ranks[:10], 64, np.zeros(10, int)) is None
