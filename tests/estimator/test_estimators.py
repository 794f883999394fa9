"""The estimators keep the contract of scikit-learn and their own."""

import pickle
import pickletools

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

import kappaflow as kf
from kappaflow.errors import ArgumentError, DataError, DataWarning
from kappaflow.estimator import FlowDensity, FlowOutlierDetector
from kappaflow.runs.recipes import CONDITIONAL

SMALL = {"depth": 2, "hidden": (8,), "max_epochs": 3, "random_state": 0}
DENSITY, DETECTOR = FlowDensity(**SMALL), FlowOutlierDetector(**SMALL)
RNG = np.random.default_rng(0)
X = RNG.normal(size=(300, 2)) * (1.0, 5.0) + (0.0, 30.0)


@parametrize_with_checks([
    clone(estimator).set_params(max_epochs=1) for estimator in (DENSITY, DETECTOR)
])
@pytest.mark.filterwarnings("ignore")
def test_scikit_learn_finds_nothing(estimator, check):
    check(estimator)


@pytest.mark.slow
def test_scores_are_log_prob_in_the_units_of_the_rows():
    density = clone(DENSITY).fit(X)
    rows = X[:5]
    import torch

    expected = density.flow_.log_prob(torch.from_numpy(rows)).detach().numpy()
    np.testing.assert_array_equal(density.score_samples(rows), expected)
    assert density.score(rows) == pytest.approx(expected.mean())
    assert density.flow_.dtype == torch.float64
    moved = clone(DENSITY).fit(X * 1024)  # exact in floating point, so that the training is one
    np.testing.assert_allclose(
        moved.score_samples(rows * 1024), expected - 2 * np.log(1024), atol=1e-6
    )


@pytest.mark.slow
def test_a_density_is_learned_and_sampled():
    rows = RNG.normal(size=(2000, 2))
    rows[:, 1] += rows[:, 0] ** 2
    density = FlowDensity(depth=4, hidden=(32,), max_epochs=30, random_state=0).fit(rows)
    entropy = 1 + np.log(2 * np.pi)  # of the distribution: the bend keeps volumes
    assert density.score(rows) == pytest.approx(-entropy, abs=0.15)
    samples = density.sample(2000, random_state=1)
    np.testing.assert_allclose(samples.mean(0), rows.mean(0), atol=0.2)
    np.testing.assert_array_equal(samples, density.sample(2000, random_state=1))
    assert not np.array_equal(samples, density.sample(2000, random_state=2))
    first, same, other = (
        clone(DENSITY).set_params(random_state=seed).fit(X).score_samples(X) for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(first, same)
    assert not np.array_equal(first, other)


@pytest.mark.slow
def test_estimators_work_in_pipelines_and_grid_searches():
    pipeline = make_pipeline(StandardScaler(), clone(DENSITY)).fit(X)
    assert pipeline.score_samples(X).shape == (300,)
    search = GridSearchCV(clone(DENSITY), {"depth": [1, 3]}, cv=2).fit(X)
    assert search.best_params_["depth"] in (1, 3)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()


def test_pickles_hold_a_model_file_and_no_code_of_torch():
    density = clone(DENSITY).fit(X)
    stored = pickle.dumps(density)
    words = [str(argument) for _, argument, _ in pickletools.genops(stored)]
    assert not [word for word in words if word.startswith(("torch", "kappaflow.flows"))]
    assert "kappaflow.estimator.density" in words
    loaded = pickle.loads(stored)
    np.testing.assert_array_equal(loaded.score_samples(X), density.score_samples(X))
    assert pickle.loads(pickle.dumps(DENSITY)).get_params() == DENSITY.get_params()


def test_a_damaged_pickle_is_an_error():
    density = clone(DENSITY).fit(X)
    state = density.__getstate__()
    weights = bytearray(state["flow_"]["model.safetensors"])
    weights[-5] ^= 1
    state["flow_"] = {**state["flow_"], "model.safetensors": bytes(weights)}
    with pytest.raises(OSError, match=r"model\.safetensors"):
        FlowDensity().__setstate__(state)


@pytest.mark.slow
def test_a_row_twice_is_a_row_of_twice_the_weight():
    """In any order; both copies are in one part of the split."""
    twice = RNG.permutation(np.concatenate([X, X[:100]]))
    weights = np.where(np.arange(300) < 100, 2.0, 1.0)
    first = clone(DENSITY).fit(twice)
    second = clone(DENSITY).fit(X, sample_weight=weights)
    np.testing.assert_array_equal(first.score_samples(X), second.score_samples(X))
    assert not np.array_equal(clone(DENSITY).fit(X).score_samples(X), first.score_samples(X))


def test_the_repairs_that_a_refusal_names_work():
    """A column that "drop" leaves out has no say in a score."""
    rows = np.column_stack([np.ones(len(X)), X])
    with pytest.raises(DataError, match="'x0' is constant.*repair='drop' .*repair='jitter' "):
        clone(DENSITY).fit(rows)
    with pytest.warns(DataWarning, match="added Gaussian noise"):
        clone(DENSITY).set_params(repair="jitter").fit(rows)
    with pytest.warns(DataWarning, match="left out column 'x0': constant"):
        density = clone(DENSITY).set_params(repair="drop").fit(rows)
    expected = clone(DENSITY).fit(X).score_samples(X)
    np.testing.assert_array_equal(density.score_samples(rows), expected)
    assert density.sample(3).shape == (3, 2)
    rows[4, 1] = np.nan
    with pytest.warns(DataWarning):
        assert any("dropped 1 row with missing" in note for note in density.fit(rows).notes_)
    with pytest.raises(DataError, match="column 'x1' of the array .* row 5 has NaN"):
        density.score_samples(rows)


def test_diagnose_reports_no_problem_of_a_fitted_density():
    rows = X.copy()
    rows.flags.writeable = False  # like those of data frames of pandas 3
    assert clone(DENSITY).fit(rows).diagnose(rows).ok


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_false_alarms_stay_within_the_level(seed):
    """On average over calibrations; here for one, within four standard errors."""
    rng = np.random.default_rng(seed)
    detector = FlowOutlierDetector(0.1, calibration_fraction=0.5, **SMALL)
    detector.fit(rng.standard_t(3, size=(2000, 2)))
    alarms = (detector.predict(rng.standard_t(3, size=(4000, 2))) == -1).mean()
    assert alarms == pytest.approx(0.1, abs=4 * np.sqrt(0.1 * 0.9 / 1000))


def test_p_values_are_uniform_and_agree_with_the_prediction():
    rng = np.random.default_rng(5)
    detector = FlowOutlierDetector(0.05, calibration_fraction=0.5, **SMALL)
    detector.fit(rng.normal(size=(2000, 3)))
    new = rng.normal(size=(5000, 3))
    p = detector.p_values(new)
    np.testing.assert_array_equal(detector.predict(new) == -1, p <= 0.05)
    for share in (0.1, 0.5, 0.9):
        assert (p <= share).mean() == pytest.approx(share, abs=0.06)
    assert p.min() >= 1 / 1001
    assert (detector.predict(new + 10) == -1).all()


@pytest.mark.filterwarnings("ignore:.*left to train on:kappaflow.errors.DataWarning")
def test_too_few_rows_for_a_level_give_no_outliers():
    with pytest.warns(DataWarning, match="level of 0.05 needs at least 19 calibration rows.*8"):
        detector = FlowOutlierDetector(0.05, **SMALL).fit(X[:40])
    assert detector.offset_ == -np.inf
    assert (detector.predict(X + 1000) == 1).all()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"model": "nothing"}, "'model' should be"),
        ({"validation_fraction": 1.5}, "'validation_fraction' should be"),
        ({"options": {"nothing": 1}}, "'nothing' is not an argument of real_nvp"),
        ({"options": {"padding": 1}}, "add no padding"),
        ({"max_epochs": 0}, "'max_epochs' should be"),
        ({"learning_rate": 0}, "'learning_rate' should be"),
        ({"hidden": 16}, "'hidden' should be a sequence"),
        ({"model": "planar", "hidden": (8,)}, "'hidden' is not an argument of planar"),
        ({"repair": "fill"}, "'repair' should be"),
        ({"condition_budget": 0.5}, "'condition_budget' should be"),
    ],
)
def test_invalid_parameters_are_refused_in_a_sentence(changed, message):
    with pytest.raises(ArgumentError, match=message):
        clone(DENSITY).set_params(**changed).fit(X)


def test_an_unfitted_estimator_raises():
    for call in (DENSITY.score_samples, DENSITY.diagnose, DETECTOR.p_values):
        with pytest.raises(NotFittedError):
            call(X)
    with pytest.raises(NotFittedError):
        DENSITY.sample()


@pytest.mark.slow
def test_defaults_are_those_of_the_command():
    from kappaflow.registry import describe
    from kappaflow.runs.recipes import DEFAULTS

    density = clone(DENSITY).set_params(model="real_nvp", depth=None, options=None).fit(X)
    arguments = describe(density.flow_)["arguments"]
    assert {name: arguments[name] for name in DEFAULTS} == DEFAULTS


def test_without_a_model_a_search_chooses(ticking):
    """The choice is text; an estimator with a model has none."""
    ticking(0.05)
    density = FlowDensity(max_time_s=2.0, random_state=0).fit(X)
    assert density.choice_.startswith("chose ") and len(density.score_samples(X)) == len(X)
    assert not hasattr(clone(DENSITY).fit(X), "choice_")


def test_other_recipes_train_too():
    for model in ("nice", "autoregressive", "planar", "radial", "invertible_network", "zuko:maf"):
        hidden = (8,) if model in CONDITIONAL else None
        density = clone(DENSITY).set_params(model=model, hidden=hidden).fit(X)
        assert np.isfinite(density.score(X))
    assert isinstance(density.flow_, kf.Flow)


def test_rows_that_are_all_equal_are_refused():
    """They are a single row with a weight, which has no density."""
    with pytest.raises(DataError, match="all rows are equal: .* at least 2 different rows"):
        clone(DENSITY).fit(np.full((20, 2), 3.5))


@pytest.mark.slow
def test_notes_describe_the_rows():
    """Repeated rows and positive columns too, for which there are no warnings."""
    rows = np.c_[X, np.random.default_rng(1).exponential(size=len(X))]
    density = clone(DENSITY).fit(np.concatenate([rows, rows[:40]]))
    repeated, hint = density.notes_
    assert repeated.startswith("40 rows repeat earlier rows")
    assert repeated.endswith("count by a weight")
    assert "bounds={'x2': 'positive'}" in hint
    bounded = clone(DENSITY).set_params(bounds={2: "positive"}).fit(rows)
    assert bounded.notes_ == ()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::kappaflow.errors.DataWarning")  # of few calibration rows
@pytest.mark.parametrize("make", [FlowDensity, FlowOutlierDetector])
def test_few_rows_warn(make):
    """As in the command, whose verdict is never green with fewer than 50."""
    with pytest.warns(DataWarning, match="rows are left to train on, fewer than 50"):
        make(**SMALL).fit(X[:45])
