"""Draws of missing numbers: their density, domains and moments, for gaps in any place."""

import itertools

import numpy as np
import pytest
import torch

from kappaflow.domains import Interval
from kappaflow.mixed.proposals import DEGREES, RIDGE, WIDER, Proposals, _moments

DOMAINS = {
    "real": None,
    "positive": Interval(0.0, None),
    "above 2": Interval(2.0, None),
    "share": Interval(0.0, 1.0),
    "below": Interval(None, 5.0),
    "circle": Interval(0.0, 360.0, circular=True),
}
GENERATOR = torch.Generator()


def values_in(domain, rows, generator):
    """Returns skewed values in a domain."""
    x = generator.normal(size=rows)
    if domain is None:
        return x + 0.3 * x**2
    if domain.high is None:
        return domain.low + np.exp(x)
    if domain.low is None:
        return domain.high - np.exp(x)
    return domain.low + (domain.high - domain.low) / (1 + np.exp(-x))


def normal_rows(rows=3000, seed=0):
    """Returns rows of three columns that depend on each other, with mean and covariance."""
    root = np.array([[1.0, 0, 0], [0.8, 0.6, 0], [-0.5, 0.4, 0.7]])
    x = np.random.default_rng(seed).normal(size=(rows, 3)) @ root.T
    return x, root @ root.T


def with_gaps(x, share=0.3, seed=1):
    """Returns rows of which some numbers are missing."""
    return np.where(np.random.default_rng(seed).random(x.shape) < share, np.nan, x)


def draws_of(proposals, row, missing, count, one_hot=()):
    """Returns draws (count, D) of a row and their log-density."""
    rows = torch.tensor(row, dtype=torch.float64).repeat(count, 1)
    labels = torch.tensor(one_hot, dtype=torch.float32).repeat(count, 1).reshape(count, -1)
    gone = torch.tensor(missing).repeat(count, 1)
    return proposals.drawn(rows, labels, gone, GENERATOR.manual_seed(0))


def own_density(proposals, points, gone, row=(), one_hot=()):
    """Returns the log-density of points (N, k) of missing columns, by the formula of Student's t.

    Written with scipy, from the moments and the curves of the proposals alone.
    """
    from scipy.stats import multivariate_t

    full = torch.zeros(len(points), proposals.columns, dtype=torch.float64)
    full[:] = torch.tensor(row, dtype=torch.float64).nan_to_num(1.0) if len(row) else 1.0
    full[:, gone] = points
    scores = proposals.scores(full)
    _, log_slopes = proposals.values(scores)
    known = np.r_[one_hot, scores[0].numpy()] if len(one_hot) else scores[0].numpy()
    index = np.r_[np.zeros(proposals.labels, bool), gone]
    mean, covariance = proposals.mean.numpy(), proposals.covariance.numpy()
    across = covariance[np.ix_(index, ~index)]
    slopes = across @ np.linalg.inv(covariance[np.ix_(~index, ~index)])
    center = mean[index] + slopes @ (known - mean)[~index]
    left = covariance[np.ix_(index, index)] - slopes @ across.T
    shape = WIDER**2 * (left + RIDGE * np.eye(len(left)))
    log_p = multivariate_t(center, shape, df=DEGREES).logpdf(scores[:, gone].numpy())
    return np.atleast_1d(log_p) + log_slopes[:, gone].sum(1).numpy()


@pytest.mark.parametrize("name", DOMAINS)
def test_the_density_of_one_missing_number_is_that_returned_and_integrates_to_one(name):
    """On a grid of 200,001 scores, in the units of the column; the tails beyond have 1e-5."""
    generator, domain = np.random.default_rng(0), DOMAINS[name]
    x = np.c_[values_in(domain, 500, generator), generator.normal(size=500)]
    x[:, 1] += np.argsort(np.argsort(x[:, 0])) / 200
    proposals = Proposals((domain, None), 0).fit(x, np.zeros((500, 0)))
    row, gone = (np.nan, x[3, 1]), np.array([True, False])
    drawn, log_q = draws_of(proposals, row, gone, 300)
    expected = own_density(proposals, drawn[:, :1], gone, row)
    free = abs(drawn[:, 0] - 2).numpy() > 1e-5  # others are moved off the end at 2
    np.testing.assert_allclose(log_q[free], expected[free], atol=1e-6)
    assert free.mean() > 0.98
    scores = torch.zeros(200_001, 2, dtype=torch.float64)
    scores[:, 0] = torch.linspace(-30, 30, 200_001)
    points = proposals.values(scores)[0][:, :1]
    inside = torch.cat([torch.tensor([True]), points[1:, 0] > points[:-1, 0]])  # not clamped
    points = points[inside]
    density = np.exp(own_density(proposals, points, gone, row))
    assert abs(np.trapezoid(density, points[:, 0]) - 1) < 2e-3


def test_the_density_of_two_missing_numbers_integrates_to_one():
    """Given a label and a third number; the formula is that of Student's t on the scores."""
    x, _ = normal_rows(800)
    x[:, 1] = np.exp(x[:, 1])
    label = (x[:, 2] > 0).astype(float)
    one_hot = np.c_[label, 1 - label]
    proposals = Proposals((None, Interval(0.0, None), None), 2).fit(x, one_hot)
    gone, row = np.array([True, True, False]), (np.nan, np.nan, 0.4)
    drawn, log_q = draws_of(proposals, row, gone, 200, (1, 0))
    assert (drawn[:, 2] == 0.4).all()
    expected = own_density(proposals, drawn[:, :2], gone, row, (1, 0))
    np.testing.assert_allclose(log_q, expected, atol=1e-6)
    # importance: the mean of f / q over draws is the integral of f, here of a product of normals
    z = torch.stack([drawn[:, 0], drawn[:, 1].log()], 1)
    more, log_q = draws_of(proposals, row, gone, 40_000, (1, 0))
    z = torch.stack([more[:, 0], more[:, 1].log()], 1)
    log_f = -(z**2).sum(1) / 2 - np.log(2 * np.pi) - z[:, 1]
    weights = (log_f - log_q).exp()
    assert abs(weights.mean() - 1) < 4 * weights.std() / 200 and weights.std() < 5
    grid = torch.linspace(-25, 25, 401, dtype=torch.float64)
    scores = torch.zeros(401**2, 3, dtype=torch.float64)
    scores[:, :2] = torch.cartesian_prod(grid, grid)
    values, log_slopes = proposals.values(scores)
    log_p = own_density(proposals, values[:, :2], gone, row, (1, 0))
    in_scores = np.exp(log_p - log_slopes[:, :2].sum(1).numpy())
    assert abs(in_scores.sum() * (50 / 400) ** 2 - 1) < 2e-3


@pytest.mark.parametrize("name", DOMAINS)
def test_curves_are_inverse_and_their_slopes_are_right(name):
    """By differences of the scores."""
    generator, domain = np.random.default_rng(1), DOMAINS[name]
    x = values_in(domain, 400, generator)[:, None]
    proposals = Proposals((domain,), 0).fit(x, np.zeros((400, 0)))
    scores = torch.randn(300, 1, dtype=torch.float64, generator=GENERATOR.manual_seed(3))
    values, log_slopes = proposals.values(scores)
    torch.testing.assert_close(proposals.scores(values), scores, atol=1e-8, rtol=1e-8)
    step = 1e-6 * values.abs().clamp(min=1e-3)
    slope = (proposals.scores(values + step) - proposals.scores(values - step)) / (2 * step)
    error = (slope.log() - log_slopes).abs()
    assert error.quantile(0.9) < 1e-4  # a difference across a knot has two slopes


@pytest.mark.parametrize("name", DOMAINS)
def test_stand_ins_are_normal_before_the_map_to_a_domain(name):
    """Their density integrates to one, and they have the median and the spread of the column."""
    generator, domain = np.random.default_rng(1), DOMAINS[name]
    x = values_in(domain, 2000, generator)[:, None]
    proposals = Proposals((domain,), 0).fit(x, np.zeros((2000, 0)))
    values, log_q = proposals.stand_ins(20_000, GENERATOR.manual_seed(3))
    if domain is not None:
        assert not domain.outside(values.numpy()).any()
    assert abs(np.median(values) - np.median(x)) < 0.1 * x.std()
    order = values[:, 0].argsort()
    points, density = values[order, 0], log_q[order, 0].exp()  # the draws are a grid
    assert abs(np.trapezoid(density, points) - 1) < 0.01


@pytest.mark.parametrize("name", DOMAINS)
def test_draws_stay_inside_of_domains_in_float32_too(name):
    """Also of columns whose values lie within 1e-6 of the ends."""
    domain = DOMAINS[name]
    if domain is None:
        return
    generator = np.random.default_rng(2)
    x = np.clip(generator.normal(size=300) * 40, -110, 110)
    low, high = domain.low, domain.high
    if high is None:
        values = low + np.exp(np.minimum(x, 20) - 12 * (low > 0))
    elif low is None:
        values = high - np.exp(np.minimum(x, 20) - 12)
    else:
        values = low + (high - low) / (1 + np.exp(-x / 7))
    inside = ~(domain.outside(values) | np.isin(values, [low, high]))
    proposals = Proposals((domain,), 0).fit(values[inside, None], np.zeros((inside.sum(), 0)))
    drawn, log_q = draws_of(proposals, (np.nan,), (True,), 20_000)
    others, _ = proposals.stand_ins(20_000, GENERATOR.manual_seed(1))
    assert log_q.isfinite().all()
    for points in (drawn.float().double().numpy(), others.float().double().numpy()):
        assert not domain.outside(points).any() and not np.isin(points, [low, high]).any()


def test_values_on_the_seam_of_a_circle_have_scores():
    """0 degrees is no end."""
    angle = np.r_[np.zeros(40), np.random.default_rng(0).uniform(0, 360, 200)]
    other = np.random.default_rng(1).normal(size=240)
    proposals = Proposals((DOMAINS["circle"], None), 0)
    proposals.fit(np.c_[angle, other], np.zeros((240, 0)))
    drawn, log_q = draws_of(proposals, (0.0, np.nan), (False, True), 100)
    assert drawn.isfinite().all() and log_q.isfinite().all()


@pytest.mark.parametrize("gone", [p for p in itertools.product([False, True], repeat=3) if any(p)])
def test_draws_have_the_conditional_mean_and_covariance_of_normal_columns(gone):
    """For each pattern of gaps, against the closed form, within 5 standard errors.

    The curve through 64 quantiles of 3,000 rows and the wider spread are known: a bias of a tenth
    of the conditional deviation would be seen.
    """
    x, covariance = normal_rows(3000)
    proposals = Proposals((None,) * 3, 0).fit(x, np.zeros((3000, 0)))
    gone, row = np.array(gone), np.array([0.5, -0.3, 0.8])
    drawn, _ = draws_of(proposals, np.where(gone, np.nan, row), gone, 20_000)
    across = covariance[np.ix_(gone, ~gone)]
    slopes = across @ np.linalg.inv(covariance[np.ix_(~gone, ~gone)])
    center, left = slopes @ row[~gone], covariance[np.ix_(gone, gone)] - slopes @ across.T
    deviation = np.sqrt(np.diag(left))
    actual = drawn[:, gone].numpy()
    assert (abs(np.median(actual, axis=0) - center) < 0.1 * deviation).all()
    expected = left * WIDER**2 * DEGREES / (DEGREES - 2)
    difference = (np.cov(actual.T).reshape(left.shape) - expected) / np.outer(deviation, deviation)
    assert abs(difference).max() < 0.35  # of a variance of 2; the tails of t are heavy


def test_moments_of_incomplete_rows_agree_with_those_of_complete_ones():
    """Within 5 standard errors of the complete rows, over the share that is present.

    Leaving out incomplete rows or the variance of what is filled in would be seen: the
    second takes 10 % off variances, 4 standard errors of 4,000 rows.
    """
    x, covariance = normal_rows(4000)
    mean, actual = _moments(with_gaps(x))
    error = np.sqrt((covariance**2 + np.outer(np.diag(covariance), np.diag(covariance))) / 4000)
    assert (abs(mean - x.mean(0)) < 5 * np.sqrt(np.diag(covariance) / 4000 * 0.6)).all()
    complete = np.cov(x.T, bias=True)
    assert (abs(actual - complete - RIDGE * np.eye(3)) < 3 * error).all()
    exact, whole = _moments(x)
    np.testing.assert_allclose(exact, x.mean(0), atol=1e-12)
    np.testing.assert_allclose(whole, complete + RIDGE * np.eye(3), atol=1e-12)


def test_moments_are_right_where_gaps_depend_on_the_other_columns(monkeypatch):
    """Missing at random: the mean of the present values alone is off by 0.5.

    Half of a column is missing, for which 15 rounds leave a quarter of that.
    """
    monkeypatch.setattr("kappaflow.mixed.proposals.ROUNDS", 80)
    x, _ = normal_rows(4000)
    gaps = x.copy()
    gaps[x[:, 0] > 0, 1] = np.nan
    mean, covariance = _moments(gaps)
    assert abs(np.nanmean(gaps[:, 1]) - x[:, 1].mean()) > 0.4
    assert abs(mean[1] - x[:, 1].mean()) < 0.1
    assert abs(covariance[0, 1] - np.cov(x.T)[0, 1]) < 0.1


def test_each_row_is_drawn_by_its_own_gaps():
    """Rows of several patterns in one call; what is present stays, and no row leaks to others."""
    x, _ = normal_rows(500)
    proposals = Proposals((None,) * 3, 0).fit(with_gaps(x), np.zeros((500, 0)))
    rows = with_gaps(x[:64], share=0.5, seed=3)
    missing = np.isnan(rows)
    assert len(np.unique(missing, axis=0)) == 8
    none = torch.zeros(64, 0)
    arguments = torch.from_numpy(rows), none, torch.from_numpy(missing)
    drawn, log_q = proposals.drawn(*arguments, GENERATOR.manual_seed(0))
    assert drawn.isfinite().all() and (drawn.numpy()[~missing] == rows[~missing]).all()
    assert (log_q[~missing.any(1)] == 0).all() and (log_q[missing.any(1)] != 0).all()
    for number in np.flatnonzero(missing.any(1)):
        gone = missing[number]
        points = drawn[number : number + 1, gone]
        expected = own_density(proposals, points, gone, rows[number])
        np.testing.assert_allclose(log_q[number], expected[0], atol=1e-6)
    again, _ = proposals.drawn(*arguments, GENERATOR.manual_seed(0))
    assert (again == drawn).all()


@pytest.mark.parametrize(
    "column",
    [
        np.full(200, 3.5),
        np.repeat([1.0, 2.0], 100),
        np.full(200, np.nan),
        np.r_[7.0, np.full(199, np.nan)],
        np.full(200, 1e12),
    ],
    ids=["one value", "ties", "all missing", "one row", "one large value"],
)
def test_columns_without_spread_are_drawn_with_a_finite_density(column):
    """Next to a column that varies, in both directions."""
    other = np.random.default_rng(0).normal(size=200)
    proposals = Proposals((None, None), 0).fit(np.c_[column, other], np.zeros((200, 0)))
    drawn, log_q = draws_of(proposals, (np.nan, 0.5), (True, False), 500)
    assert drawn.isfinite().all() and log_q.isfinite().all()
    present = column[np.isfinite(column)]
    if len(present):
        spread = max(np.ptp(present), 1e-5 * max(1, abs(present).max()))
        assert (abs(np.median(drawn[:, 0]) - np.median(present))) < 2 * spread
    drawn, log_q = draws_of(proposals, (np.nan, np.nan), (True, True), 500)
    assert drawn.isfinite().all() and log_q.isfinite().all()


def test_rows_without_any_value_and_tables_without_numbers_are_drawn():
    """A row of gaps has the draws of the columns alone; labels alone need none."""
    x, _ = normal_rows(400)
    x[:20] = np.nan
    proposals = Proposals((None,) * 3, 0).fit(with_gaps(x), np.zeros((400, 0)))
    drawn, log_q = draws_of(proposals, (np.nan,) * 3, (True,) * 3, 50)
    assert drawn.isfinite().all() and log_q.isfinite().all()
    empty = Proposals((), 2).fit(np.zeros((5, 0)), np.eye(2)[[0, 1, 0, 1, 1]])
    rows = torch.zeros(5, 0, dtype=torch.float64)
    drawn, log_q = empty.drawn(rows, torch.zeros(5, 2), rows.bool(), GENERATOR)
    assert drawn.shape == (5, 0) and (log_q == 0).all()
