"""Estimators of columns with a domain."""

import pickle

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.utils.estimator_checks import check_get_params_invariance, check_set_params

from kappaflow.errors import ArgumentError, DataError
from kappaflow.estimator import ConditionalFlowDensity, FlowDensity, FlowOutlierDetector

SMALL = {"depth": 2, "hidden": (8,), "max_epochs": 3, "random_state": 0}
RNG = np.random.default_rng(0)
X = np.stack([RNG.lognormal(0, 2, 400), RNG.beta(2, 0.8, 400), RNG.vonmises(3, 2, 400)], 1)
BOUNDS = {0: "positive", "x1": (0, 1), 2: "circular"}


@pytest.mark.slow
@pytest.mark.parametrize("model", ["spline", "real_nvp"])
def test_a_density_keeps_to_its_bounds(model):
    """Samples lie inside, scores outside are -inf, and a pickled copy is equal."""
    bounds = BOUNDS if model == "spline" else {**BOUNDS, 2: (-np.pi, np.pi)}
    density = clone(FlowDensity(model, bounds=bounds, **SMALL)).fit(X)
    drawn = density.sample(5000, random_state=0)
    assert (drawn[:, 0] > 0).all() and ((drawn[:, 1] > 0) & (drawn[:, 1] < 1)).all()
    assert (np.abs(drawn[:, 2]) <= np.pi).all()
    rows = np.array([[1.0, 0.5, 0.0], [-1.0, 0.5, 0.0], [1.0, 1.0, 0.0], [1.0, 0.5, 4.0]])
    scores = density.score_samples(rows)
    assert np.isneginf(scores).tolist() == [False, True, True, True]
    copied = pickle.loads(pickle.dumps(density))  # noqa: S301 - made above
    np.testing.assert_array_equal(copied.score_samples(rows), scores)


def test_bounds_are_a_parameter_as_scikit_learn_has_them():
    """`fit` neither changes nor copies it."""
    density = FlowDensity("spline", bounds=BOUNDS, **SMALL)
    check_get_params_invariance("FlowDensity", density)
    check_set_params("FlowDensity", density)
    assert density.fit(X).get_params()["bounds"] is BOUNDS
    assert clone(density).bounds == BOUNDS


def test_refusals_name_the_row_that_was_given():
    """Rows are sorted internally; the message counts them in their order."""
    rows = X.copy()
    rows[41, 0] = -2.0
    with pytest.raises(DataError, match="row 42 has -2: repair='drop' leaves out such rows"):
        FlowDensity("spline", bounds=BOUNDS, **SMALL).fit(rows)
    rows[41, 0] = 0.0
    with pytest.raises(
        DataError, match=r"first row 42.*'jitter'.*, repair='drop' leaves out the rows"
    ):
        FlowOutlierDetector(model="spline", bounds=BOUNDS, **SMALL).fit(rows)
    with pytest.warns(match="moved 1 value of 'x0'"):
        FlowDensity("spline", bounds=BOUNDS, repair="jitter", **SMALL).fit(rows)
    with pytest.raises(ArgumentError, match="'bounds' names column 'mass'"):
        FlowDensity(bounds={"mass": "positive"}, **SMALL).fit(X)
    with pytest.raises(
        ArgumentError, match="no circular column with this model.* Use the model 'spline'"
    ):
        FlowDensity("real_nvp", bounds=BOUNDS, **SMALL).fit(X)


def test_a_row_outside_is_an_outlier():
    """Its p-value is the smallest possible."""
    detector = FlowOutlierDetector(model="spline", bounds=BOUNDS, **SMALL).fit(X)
    rows = [[1.0, 2.0, 0.0]]
    assert detector.predict(rows).tolist() == [-1]
    assert detector.p_values(rows)[0] == 1 / (1 + len(detector.calibration_scores_))


def test_quantiles_of_a_target_keep_to_its_bounds():
    """They are exact; a circle has none."""
    features = X[:, 1:2]
    settings = {**SMALL, "hidden": (16,)}
    density = ConditionalFlowDensity(bounds={0: "positive"}, **settings).fit(features, X[:, 0])
    levels = density.quantile(features[:20], [0.001, 0.5, 0.999])
    assert (levels > 0).all() and (np.diff(levels, axis=0) > 0).all()
    assert (density.sample(features[:3], 500, random_state=0) > 0).all()
    around = ConditionalFlowDensity(bounds={0: "circular"}, **settings).fit(features, X[:, 2])
    assert np.isfinite(around.log_prob(features, X[:, 2])).all()
    with pytest.raises(ArgumentError, match="not defined for a circular target"):
        around.predict(features)
