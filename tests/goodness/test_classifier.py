"""The classifier two-sample test, and how much a flow overfits."""

import numpy as np
import pytest
from scipy.stats import multivariate_normal
from sklearn.metrics import roc_auc_score

from kappaflow.goodness.classifier import _auc, _divergence, classified, leaves
from kappaflow.goodness.overfit import gap_of
from kappaflow.goodness.scan import Pool


@pytest.mark.parametrize("has_weights", [False, True])
def test_the_auc_is_that_of_scikit_learn_with_the_error_of_a_bootstrap(has_weights):
    """Also if weights depend on the score."""
    rng = np.random.default_rng(0)
    scores = np.concatenate([rng.normal(0.4, 1, 150), rng.normal(size=600)])
    weights = np.exp(0.7 * scores[:150]) if has_weights else np.ones(150)
    labels = np.arange(750) < 150

    def auc(rows, samples):
        index = np.concatenate([rows, 150 + samples])
        shares = np.concatenate([weights[rows], np.ones(len(samples))])
        return roc_auc_score(labels[index], scores[index], sample_weight=shares)

    pool = Pool(150, 600, weights / weights.mean() if has_weights else None)
    actual, error = _auc(np.argsort(scores), pool)
    assert actual == pytest.approx(auc(np.arange(150), np.arange(600)))
    resampled = [auc(rng.integers(150, size=150), rng.integers(600, size=600)) for _ in range(300)]
    assert error == pytest.approx(np.std(resampled), rel=0.15)


def test_the_divergence_of_two_normals_is_that_of_their_shift():
    """Exactly by the exact log-ratio, and not above it by trees that were trained."""
    rng, shift = np.random.default_rng(0), 0.8
    rows, samples = rng.normal(shift, 1, (6_000, 2)), rng.normal(size=(12_000, 2))
    exact = [shift * part.sum(1) - shift**2 for part in (rows, samples)]
    assert _divergence(*exact, None) == pytest.approx(shift**2, abs=0.06)
    others = rng.normal(shift, 1, (6_000, 2)), rng.normal(size=(12_000, 2)), None
    result = classified(np.concatenate([rows, samples]), Pool(6_000, 12_000), others)
    assert 0.8 * shift**2 < result.nats < shift**2 + 0.06
    assert result.auc == pytest.approx(0.7881, abs=4 * result.standard_error)  # Phi(shift)


def test_leaves_are_the_boxes_where_the_score_is_large():
    """The positions inside of each box are those of its bounds."""
    x = np.random.default_rng(0).uniform(size=(3_000, 2))
    logits = ((x[:, 0] > 0.75) & (x[:, 1] < 0.5)).astype(float)
    boxes = leaves(x, logits)
    assert sum(len(box.inside) for box in boxes) == 3_000
    best = max(boxes, key=lambda box: logits[box.inside].mean())
    assert best.bounds[0][0] == pytest.approx(0.75, abs=0.01)
    assert best.bounds[1][1] == pytest.approx(0.5, abs=0.01)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["columns", "contexts", "few values"])
def test_a_cross_fitted_classifier_cannot_separate_equal_distributions(kind):
    """Contexts that rows share with samples, and equal scores, favor neither side."""
    rng, n, copies = np.random.default_rng(0), 60, 40
    deviations = []
    for seed in range(60):
        context = np.tile(rng.normal(size=n), copies + 1)
        features = rng.normal(size=(n * (copies + 1), 1))
        if kind == "contexts":
            features = np.column_stack([features[:, 0] + context, context])
        if kind == "few values":
            features = features.round()
        owners = np.arange(n * copies) % n if kind == "contexts" else None
        result = classified(features, Pool(n, n * copies), None, owners, seed)
        deviations.append((result.auc - 0.5) / result.standard_error)
    assert abs(np.mean(deviations)) < 3.5 * np.std(deviations) / np.sqrt(60)
    assert np.std(deviations) < 1.25 * np.sqrt(2)  # the most that equal quarters can cause


def fitted_gaussian(seed, rows, columns, held_out=500):
    """Returns the gap of a Gaussian fitted to few rows, and the true one."""
    rng = np.random.default_rng(seed)
    train, x = rng.normal(size=(rows, columns)), rng.normal(size=(held_out, columns))
    mean, covariance = train.mean(0), np.cov(train.T, bias=True)
    flow = multivariate_normal(mean, covariance)
    gap = gap_of((train, flow.logpdf(train)), (x, flow.logpdf(x)), columns)
    # its expected log_prob of rows, but for those that are more or less typical
    truth = multivariate_normal(np.zeros(columns), np.eye(columns))
    precision = np.linalg.inv(covariance)
    outside = columns - np.trace(precision) - mean @ precision @ mean
    outside -= np.linalg.slogdet(covariance)[1]
    return gap, (flow.logpdf(train) - truth.logpdf(train)).mean() - outside / 2


@pytest.mark.parametrize(("rows", "columns"), [(200, 3), (400, 5)])
def test_the_gap_of_a_fitted_gaussian_is_its_number_of_parameters_over_rows(rows, columns):
    """On average over 200 fits, with an honest error that is half that without a control."""
    pairs = [fitted_gaussian(seed, rows, columns) for seed in range(200)]
    nats = np.array([gap.nats for gap, _ in pairs])
    errors = np.array([gap.standard_error for gap, _ in pairs])
    expected = columns * (columns + 3) / 2 / rows
    assert nats.mean() == pytest.approx(expected, abs=3 * nats.std() / 200**0.5 + 0.1 * expected)
    pulls = (nats - [truth for _, truth in pairs]) / errors
    assert 0.8 < pulls.std() < 1.2
    assert errors.mean() < 0.6 * np.sqrt(columns / 2 * (1 / rows + 1 / 500))


def test_a_control_that_knows_the_flow_does_not_hide_its_overfitting():
    """A function fitted to log_prob of samples of a Gaussian is log_prob itself."""
    rng = np.random.default_rng(0)
    train, x = rng.normal(size=(100, 5)), rng.normal(size=(2_000, 5))
    flow = multivariate_normal(train.mean(0), np.cov(train.T))
    sides = [(rows, flow.logpdf(rows)) for rows in (train, x, flow.rvs(3_000, random_state=0))]
    gap, plain = gap_of(*sides[:2], 5, samples=sides[2]), gap_of(*sides[:2], 5)
    assert (gap.nats, gap.tests) == (plain.nats, 2)
    assert gap.nats == pytest.approx(0.2, abs=3 * gap.standard_error)


def test_a_gap_of_few_heavy_tailed_rows_has_a_larger_p_value_than_a_normal_one():
    """Weights count as fewer rows, on both sides."""
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(300, 1))
    weights = np.where(rows[:, 0] > 0, 1.0, 9.0)
    scores = -rows[:, 0]
    shifted = gap_of((rows[:150], scores[:150]), (rows[150:], scores[150:]), 1, weights[150:])
    equal = gap_of(
        (rows[:150], scores[:150]), (rows[150:], scores[150:]), 1, weights[150:], weights[:150]
    )
    assert shifted.informative == equal.informative < 120
    assert abs(equal.nats) < 3 * equal.standard_error < 3 * abs(shifted.nats)
