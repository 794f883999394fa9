"""The density of targets given features."""

import pickle

import numpy as np
import pytest
from scipy.integrate import trapezoid
from scipy.stats import norm
from sklearn.base import clone
from sklearn.utils.estimator_checks import parametrize_with_checks

import kappaflow as kf
from kappaflow.errors import ArgumentError, DataWarning
from kappaflow.estimator import ConditionalFlowDensity

SMALL = {"depth": 2, "hidden": (16,), "max_epochs": 3, "random_state": 0}
SMALL_DENSITY = ConditionalFlowDensity(**SMALL)


@parametrize_with_checks([clone(SMALL_DENSITY).set_params(max_epochs=1)])
@pytest.mark.filterwarnings("ignore")
def test_scikit_learn_finds_nothing(estimator, check):
    check(estimator)


def rows(n, seed=0):
    """Returns x and y = x^2 + noise whose standard deviation grows with x, skewed for x > 0."""
    rng = np.random.default_rng(seed)
    x = rng.uniform(-1, 1, (n, 1))
    noise = rng.normal(size=n)
    skewed = np.where(x[:, 0] > 0, 2 * np.expm1(noise / 2), noise)
    return x, x[:, 0] ** 2 + 0.2 * skewed


@pytest.fixture(scope="module")
def fitted():
    density = ConditionalFlowDensity(hidden=(32, 32), max_epochs=25, random_state=0)
    return density.fit(*rows(3000))


@pytest.mark.slow
def test_the_density_is_learnt(fitted):
    fitted = clone(fitted).set_params(max_epochs=40).fit(*rows(4000))
    x, y = rows(4000, seed=1)
    z = (y - x[:, 0] ** 2) / 0.2
    bent = np.log1p(np.maximum(z / 2, -0.999999))
    plain, skewed = norm.logpdf(z), norm.logpdf(2 * bent) - bent
    truth = np.where(x[:, 0] > 0, skewed, plain).mean() - np.log(0.2)
    assert fitted.score(x, y) == pytest.approx(truth, abs=0.08)
    assert fitted.score(x, y) < truth + 0.05


def test_quantiles_are_those_of_the_density(fitted):
    x, y = rows(4000, seed=2)
    for level in (0.1, 0.5, 0.9):
        below = (y <= fitted.quantile(x, level)).mean()
        assert below == pytest.approx(level, abs=0.03)
    at = np.array([[-0.5], [0.5]])
    levels = fitted.quantile(at, [0.1, 0.5, 0.9])
    assert levels.shape == (3, 2)
    assert (np.diff(levels, axis=0) > 0).all()
    # In closed form, next to draws and next to the integral of the density up to them.
    drawn = fitted.sample(at, 20_000, random_state=0)
    np.testing.assert_allclose(levels, np.quantile(drawn, [0.1, 0.5, 0.9], axis=0), atol=0.02)
    grid = np.linspace(-3, levels[1, 0], 20_001)
    density = np.exp(fitted.log_prob(np.full((20_001, 1), -0.5), grid))
    assert trapezoid(density, grid) == pytest.approx(0.5, abs=1e-3)


def test_the_prediction_is_the_mean(fitted):
    at = np.array([[-0.5], [0.5]])
    drawn = fitted.sample(at, 20_000, random_state=0)
    np.testing.assert_allclose(fitted.predict(at), drawn.mean(0), atol=0.02)
    np.testing.assert_array_equal(fitted.predict(at), fitted.predict(at))


def share_inside(ends, y):
    """Returns the share of targets inside of intervals (n, 2)."""
    return ((y >= ends[:, 0]) & (y <= ends[:, 1])).mean()


def test_predicted_quantiles_have_the_rows_first(fitted):
    """As scikit-learn needs them; without levels the prediction is the mean as before."""
    x = rows(5, seed=3)[0]
    expected = fitted.quantile(x, [0.1, 0.9]).T
    np.testing.assert_array_equal(fitted.predict(x, quantiles=[0.1, 0.9]), expected)
    np.testing.assert_array_equal(fitted.predict(x, None), fitted.predict(x))


def test_predicted_intervals_are_calibrated_on_validation_rows_or_on_new_ones():
    """Of a Gaussian of one width, where the deviation depends on x."""
    density = clone(SMALL_DENSITY).set_params(model="nice", max_epochs=15).fit(*rows(3_000))
    x, y = rows(4_000, seed=5)
    assert density.calibration_scores_.shape == (300,)
    assert share_inside(density.predict_interval(x), y) == pytest.approx(0.9, abs=0.06)
    again = pickle.loads(pickle.dumps(density.calibrate(*rows(2_000, seed=6))))
    for coverage in (0.5, 0.9):
        ends = again.predict_interval(x, coverage)
        assert ends.shape == (4_000, 2)
        assert share_inside(ends, y) == pytest.approx(coverage, abs=0.04)
    with pytest.raises(ArgumentError, match="it needs at least 999,999 rows"):
        again.predict_interval(x, 0.999999)


def test_intervals_of_rounded_targets_end_at_their_values():
    """They cover the values, and calibration rows get the noise of the rows of fit."""
    rng = np.random.default_rng(0)
    x = rng.uniform(1, 3, (1_500, 1))
    y = rng.poisson(x[:, 0]).astype(float)
    with pytest.warns(DataWarning):
        density = clone(SMALL_DENSITY).set_params(max_epochs=20).fit(x[:500], y[:500])
    density.calibrate(x[500:1_000], y[500:1_000])
    exact = (kf.cdf(density.flow_, y[500:1_000, None], x[500:1_000]) - 0.5).abs().numpy()
    assert not np.isin(density.calibration_scores_, exact).any()
    ends = density.predict_interval(x[1_000:], 0.8)
    np.testing.assert_array_equal(ends, ends.round())
    assert share_inside(ends, y[1_000:]) > 0.75


def test_intervals_need_one_target_and_rows_that_count_equally():
    x, y = rows(300)
    weighted = clone(SMALL_DENSITY).fit(x, y, np.linspace(1, 2, 300))
    with pytest.raises(
        ArgumentError, match=r"after calibrate\(X, y\) with rows that count equally"
    ):
        weighted.predict_interval(x)
    assert weighted.calibrate(x, y).predict_interval(x).shape == (300, 2)
    two = clone(SMALL_DENSITY).fit(x, np.column_stack([y, np.roll(y, 1)]))
    assert two.calibration_scores_ is None
    assert two.predict(x[:3], quantiles=[0.2, 0.5, 0.9]).shape == (3, 2, 3)
    for call in (lambda: two.predict_interval(x), lambda: two.calibrate(x, y[:, None] * [1, 2])):
        with pytest.raises(ArgumentError, match="'flow' should model one column"):
            call()


def test_quantiles_are_those_of_a_base_that_is_a_mixture():
    """Its two modes are in place, and the share of rows below is the level."""
    rng = np.random.default_rng(0)
    x = rng.uniform(-1, 1, (2_000, 1))
    y = rng.choice([-5.0, 5.0], 2_000) + x[:, 0] + 0.3 * rng.normal(size=2_000)
    options = {"start": {"components": 2}}
    density = clone(SMALL_DENSITY).set_params(model="real_nvp", options=options).fit(x, y)
    for level in (0.2, 0.8):
        assert (y <= density.quantile(x, level)).mean() == pytest.approx(level, abs=0.08)


def test_several_targets():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(500, 2))
    y = x @ rng.normal(size=(2, 3)) + 0.3 * rng.normal(size=(500, 3))
    density = clone(SMALL_DENSITY).set_params(max_epochs=20).fit(x, y)
    assert density.n_targets_ == 3
    assert density.log_prob(x, y).shape == (500,)
    assert density.sample(x[:4], 6, random_state=0).shape == (6, 4, 3)
    assert density.quantile(x[:4], 0.5).shape == (4, 3)
    assert density.quantile(x[:4], [0.2, 0.5]).shape == (2, 4, 3)
    assert density.predict(x[:4]).shape == (4, 3)
    with pytest.raises(ArgumentError, match="'y' should have 3 targets"):
        density.log_prob(x, y[:, 0])
    column = clone(SMALL_DENSITY).fit(x, y[:, :1])
    shapes = [column.sample(x[:5], 2).shape, column.quantile(x[:5], 0.5).shape]
    assert [*shapes, column.predict(x[:5]).shape] == [(2, 5, 1), (5, 1), (5, 1)]


def test_a_pickled_copy_is_equal(fitted):
    x, y = rows(300)
    again = pickle.loads(pickle.dumps(fitted))
    np.testing.assert_array_equal(again.log_prob(x, y), fitted.log_prob(x, y))


def test_the_doctor_examines_it(fitted):
    diagnosis = fitted.diagnose(*rows(64, seed=3))
    assert diagnosis.ok, diagnosis.verdict


def test_affine_couplings_make_a_gaussian_of_one_target():
    x, y = rows(300)
    density = clone(SMALL_DENSITY).set_params(model="real_nvp").fit(x, y)
    low, middle, high = density.quantile(x[:1], norm.cdf([-1.0, 0.0, 1.0]).tolist())[:, 0]
    assert high - middle == pytest.approx(middle - low, rel=1e-9)


@pytest.mark.parametrize("q", [0.0, 1.0, 1.5, [[0.5]], "half"])
def test_other_levels_are_refused(fitted, q):
    with pytest.raises((ArgumentError, ValueError)):
        fitted.quantile([[0.0]], q)


def test_models_without_a_context_are_refused():
    with pytest.raises(ArgumentError, match="'context' should be left out for planar"):
        clone(SMALL_DENSITY).set_params(model="planar").fit(*rows(100))
