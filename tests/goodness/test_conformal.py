"""Conformal intervals: their coverage on new rows, their levels, and what is refused."""

import math

import numpy as np
import pytest
import torch
from scipy import stats
from tests.goodness.exact_flows import Map, draws, normal, table

import kappaflow as kf
from kappaflow.bijections import Domain
from kappaflow.errors import ArgumentError


def noisy_rows(seed, count):
    """Returns rows y = c + noise whose deviation grows with c, and c, (count, 1)."""
    c = torch.rand(count, 1, generator=torch.Generator().manual_seed(seed))
    return c + (0.5 + 3 * c) * draws(seed + 1_000, count, 1), c


def even():
    """Returns a flow of the right mean with a deviation of 1 at each context."""
    return normal(1, lambda c: c, lambda c: torch.ones_like(c), 1)


def share_inside(ends, y):
    """Returns the share of rows (n, 1) inside of intervals (n, 2)."""
    return ((y >= ends[:, :1]) & (y <= ends[:, 1:])).double().mean().item()


@pytest.fixture(scope="module")
def calibrations():
    """Returns a wrong flow, calibrated on 99 rows, 300 times."""
    return [kf.conformal(even(), *noisy_rows(seed, 99)) for seed in range(1, 301)]


@pytest.mark.parametrize("coverage", [0.5, 0.9, 0.97])
def test_intervals_of_a_wrong_flow_cover_new_rows_and_plain_ones_do_not(calibrations, coverage):
    """Over 300 calibrations of 99 rows, within four standard errors; the plain ones miss by more.

    The coverage of one calibration has a beta distribution with mean k / (n + 1).
    """
    y, c = noisy_rows(0, 2_000)
    rank = math.ceil(100 * coverage)
    error = stats.beta(rank, 100 - rank).std() / math.sqrt(300)
    error = math.hypot(error, math.sqrt(coverage * (1 - coverage) / len(y)))
    shares = [share_inside(each.interval(coverage, c), y) for each in calibrations]
    assert np.mean(shares) == pytest.approx(rank / 100, abs=4 * error)
    plain = share_inside(kf.interval(even(), coverage, c), y)
    assert abs(plain - coverage) > 8 * error


def test_a_right_flow_keeps_about_its_levels():
    """With many rows; also of a decreasing flow."""
    for flow in (normal(location=2.0, scale=3.0), normal(location=2.0, scale=-3.0)):
        calibrated = kf.conformal(flow, 2 + 3 * draws(0, 20_000, 1))
        ends = calibrated.interval(0.8).numpy()
        np.testing.assert_allclose(ends, stats.norm.ppf([0.1, 0.9], 2, 3), atol=0.1)


def test_the_score_of_each_rank_decides():
    """Of four rows whose distances from the median are known: ranks 1 to 4 of 5."""
    flow = kf.Flow(kf.StandardNormal(1), Map(0.0, 1.0)).double()
    u = np.array([0.5, 0.4, 0.7, 0.9])
    calibrated = kf.conformal(flow, stats.norm.ppf(u)[:, None])
    for coverage, distance in ((0.2, 0.0), (0.21, 0.1), (0.4, 0.1), (0.6, 0.2), (0.8, 0.4)):
        expected = stats.norm.ppf([0.5 - distance, 0.5 + distance])
        np.testing.assert_allclose(calibrated.interval(coverage), expected, atol=1e-12)
    assert str(calibrated) == "Conformal(calibration rows: 4; largest coverage: 4 / 5)"


@pytest.mark.parametrize(
    ("rows", "coverage", "needed"), [(18, 0.95, 19), (98, 0.99, 99), (98, 0.9999, 9_999)]
)
def test_coverages_that_need_more_rows_are_refused(rows, coverage, needed):
    """The sentence names the number of rows that are enough."""
    with pytest.raises(ArgumentError, match=rf"at most {rows} / .* it needs at least {needed:,} "):
        kf.conformal(normal(), draws(0, rows, 1)).interval(coverage)
    if needed < 100:
        kf.conformal(normal(), draws(0, needed, 1)).interval(coverage)


def test_rows_far_outside_make_the_interval_all_of_the_domain():
    """Their distribution function is 0 or 1, and no level in between would cover them."""
    far = torch.full((9, 1), 50.0)
    calibrated = kf.conformal(normal(), far)
    assert calibrated.interval(0.9).tolist() == [-math.inf, math.inf]
    flow = kf.Flow(kf.StandardNormal(1), kf.Chain([Domain(["positive"]), Map(0.0, 1.0)]))
    assert kf.conformal(flow, far.exp()).interval(0.9).tolist() == [0.0, math.inf]
    ends = kf.conformal(even(), far, far).interval(0.9, torch.zeros(4, 3, 1))
    assert ends.shape == (4, 3, 2)


def test_weights_missing_values_and_other_flows_are_refused():
    rows = draws(0, 20, 1)
    with pytest.raises(ArgumentError, match="'x' should have no weights"):
        kf.conformal(normal(), table(rows, np.linspace(1, 2, 20)))
    assert len(kf.conformal(normal(), table(rows, None)).scores) == 20
    for wrong in (rows[:0], torch.full((3, 1), math.nan)):
        with pytest.raises(ArgumentError, match="at least one row, and finite numbers"):
            kf.conformal(normal(), wrong)
    with pytest.raises(ArgumentError, match="'coverage' should be a number between 0 and 1"):
        kf.conformal(normal(), rows).interval(1.0)
    with pytest.raises(ArgumentError, match="'flow' should model one column"):
        kf.conformal(normal(2), draws(0, 20, 2))
    with pytest.raises(ArgumentError, match="'context' should be given"):
        kf.conformal(even(), rows)
