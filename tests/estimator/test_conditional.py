"""The density of targets given features."""

import pickle

import numpy as np
import pytest
from scipy.integrate import trapezoid
from scipy.stats import norm
from sklearn.base import clone
from sklearn.utils.estimator_checks import parametrize_with_checks

from kappaflow.errors import ArgumentError
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
    return ConditionalFlowDensity(hidden=(32, 32), max_epochs=40, random_state=0).fit(*rows(4000))


@pytest.mark.slow
def test_the_density_is_learnt(fitted):
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
