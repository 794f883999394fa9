"""Estimators of data frames with labels, counts, dates and missing values."""

import pickle
import pickletools

import numpy as np
import pandas as pd
import polars as pl
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

from kappaflow.errors import ArgumentError, DataError
from kappaflow.estimator import ConditionalFlowDensity, FlowDensity, FlowOutlierDetector

SMALL = {"depth": 1, "hidden": (4,), "max_epochs": 2, "random_state": 0}
DENSITY = FlowDensity(**SMALL, kinds="auto")
LABELS = ["north", "south", "west"]


def rows(n=200, seed=0):
    """Returns a frame of pandas whose size depends on the region; a tenth of both is missing."""
    rng = np.random.default_rng(seed)
    code, gone = rng.integers(3, size=n), rng.random((n, 2)) < 0.1
    return pd.DataFrame({
        "size": np.where(gone[:, 0], np.nan, rng.normal(4.0 * code, 1.0)),
        "region": [None if g else LABELS[c] for g, c in zip(gone[:, 1], code, strict=True)],
        "visits": rng.poisson(30, n),
        "day": pd.Timestamp("2020-01-01") + pd.to_timedelta(rng.integers(90, size=n), unit="D"),
    })


FRAME = rows()
POLARS = pl.DataFrame({
    name: [None if pd.isna(value) else value for value in FRAME[name].tolist()] for name in FRAME
})


@pytest.fixture(scope="module")
def fitted():
    return clone(DENSITY).fit(FRAME)


@pytest.mark.parametrize("frame", [FRAME, POLARS], ids=["pandas", "polars"])
def test_a_density_of_mixed_columns_scores_samples_and_completes(frame):
    """Samples are frames of the same library and dtypes, with possible values."""
    density = clone(DENSITY).fit(frame)
    assert density.n_features_in_ == 4 and list(density.feature_names_in_) == list(frame.columns)
    assert any("region: category, 3 labels" in note for note in density.notes_)
    scores = density.score_samples(frame)
    assert scores.shape == (200,) and density.score(frame) == pytest.approx(scores.mean())
    np.testing.assert_array_equal(scores, density.table_model_.log_prob(frame).log_prob)
    sample = density.sample(30, random_state=1)
    assert type(sample) is type(frame) and list(sample.columns) == list(frame.columns)
    assert list(sample.dtypes) == list(frame.dtypes)
    assert set(sample["region"]) <= set(LABELS) and sample["visits"].min() >= 10
    completed = density.table_model_.impute(frame).frame
    assert not pd.DataFrame(completed.to_dict()).isna().any(axis=None)


def test_samples_and_scores_follow_from_the_random_state(fitted):
    """Those of another fit too; weights change them."""
    assert fitted.sample(20, random_state=1).equals(fitted.sample(20, random_state=1))
    assert not fitted.sample(20, random_state=1).equals(fitted.sample(20, random_state=2))
    scores = fitted.score_samples(FRAME)
    again = clone(DENSITY).fit(FRAME).score_samples(FRAME)
    np.testing.assert_allclose(again, scores, rtol=1e-9)
    weights = np.where(FRAME["region"] == "west", 5.0, 1.0)
    weighted = clone(DENSITY).fit(FRAME, sample_weight=weights)
    before, after = (
        (density.sample(2_000, random_state=0)["region"] == "west").mean()
        for density in (fitted, weighted)
    )
    assert after > before + 0.2


def test_an_outlier_detector_of_mixed_columns_is_calibrated():
    """A size that is common elsewhere is an outlier in its region."""
    settings = SMALL | {"max_epochs": 20, "batch_size": 16, "calibration_fraction": 0.3}
    detector = FlowOutlierDetector(0.1, **settings, kinds="auto").fit(rows(300, seed=1))
    assert len(detector.calibration_scores_) == 90
    new = rows(200, seed=2)
    p = detector.p_values(new)
    np.testing.assert_array_equal(detector.predict(new) == -1, p <= 0.1)
    assert 0.03 < (p <= 0.1).mean() < 0.2
    near = FRAME.iloc[[0]].assign(size=[8.0], region="west", visits=30)
    assert detector.predict(pd.concat([near, near.assign(region="north")])).tolist() == [1, -1]


def test_pickles_hold_the_files_of_a_table_model(fitted):
    """No code of torch, and samples of the same type."""
    stored = pickle.dumps(fitted)
    words = [str(argument) for _, argument, _ in pickletools.genops(stored)]
    assert not [word for word in words if word.startswith(("torch", "kappaflow.mixed"))]
    loaded = pickle.loads(stored)
    np.testing.assert_allclose(
        loaded.score_samples(FRAME), fitted.score_samples(FRAME), rtol=1e-12
    )
    assert loaded.sample(9, random_state=0).equals(fitted.sample(9, random_state=0))
    assert loaded.flow_ is loaded.table_model_.flow
    state = fitted.__getstate__()
    files, like = state["table_model_"]
    damaged = {**files, "columns.json": files["columns.json"][:-1]}
    with pytest.raises(OSError, match=r"columns\.json"):
        FlowDensity().__setstate__({**state, "table_model_": (damaged, like)})


def test_the_numbers_are_diagnosed_given_the_labels(fitted):
    """Findings name them; a table of labels alone has no flow."""
    assert "region=" in fitted.diagnose(FRAME[:100]).verdict
    labels = FRAME[["region"]].assign(paid=FRAME["visits"] > 30)
    density = clone(DENSITY).fit(labels)
    shares = np.log((labels["paid"]).mean()), np.log(1 - labels["paid"].mean())
    expected = np.where(labels["paid"], *shares) - np.log(3)
    assert density.score(labels) == pytest.approx(expected.mean(), abs=0.3)
    assert density.flow_ is None and not hasattr(density, "history_")
    with pytest.raises(ArgumentError, match="a column of numbers: labels alone"):
        density.diagnose(labels)


def test_the_options_of_reading_choose_rows_and_columns():
    """Rows to score need the modeled columns only, and their missing values are read alike."""
    density = clone(DENSITY).set_params(exclude="day", where="visits<35", missing="south")
    sample = density.fit(FRAME).sample(200, random_state=0)
    assert list(sample.columns) == ["size", "region", "visits"]
    assert sample["visits"].max() < 35 and set(sample["region"]) == {"north", "west"}
    scores = density.score_samples(FRAME.drop(columns="day"))
    gone = FRAME.assign(region=FRAME["region"].where(FRAME["region"] != "south"))
    np.testing.assert_array_equal(scores, density.score_samples(gone))
    named = clone(DENSITY).set_params(kinds={"visits": "category"}).fit(FRAME)
    assert any(note.startswith("visits: category") for note in named.notes_)


@pytest.mark.parametrize(
    ("options", "data", "message"),
    [
        ({}, FRAME[["size"]].to_numpy(), "'X' should be a data frame with 'kinds'.*got ndarray"),
        ({"kinds": "all"}, FRAME, "'kinds' should be auto, or kinds of columns"),
        ({"kinds": {"region": "integer"}}, FRAME, "names column 'region' integer, and it holds"),
        ({"bounds": {"size": "positive"}}, FRAME, "'bounds' should be left out with 'kinds'"),
        ({"repair": "drop"}, FRAME, "'repair' should be left out with 'kinds'"),
        ({"context": "visits", "exclude": "visits"}, FRAME, "both name 'visits'"),
        ({"duplicates": "drop"}, FRAME, "'duplicates' should be keep with 'kinds'"),
    ],
)
@pytest.mark.parametrize("make", [FlowDensity, FlowOutlierDetector])
def test_what_kinds_do_not_take_is_refused(make, options, data, message, fitted):
    """A fit that fails leaves no fitted estimator, also where an earlier one succeeded."""
    estimator = make(**{**SMALL, "kinds": "auto", **options})
    estimator.table_model_ = estimator.flow_ = fitted
    with pytest.raises(ArgumentError, match=message):
        estimator.fit(data)
    with pytest.raises(NotFittedError):
        estimator.score_samples(FRAME)


def test_rows_to_score_have_the_columns_and_labels_of_fit(fitted):
    """Names are compared as by scikit-learn."""
    with pytest.raises(DataError, match="the label 'east' at index 0.* of the fitted table"):
        fitted.score_samples(FRAME.assign(region="east"))
    with pytest.raises(ValueError, match="feature names should match"):
        fitted.score_samples(FRAME.rename(columns={"size": "width"}))
    with pytest.raises(ArgumentError, match="'X' should be a data frame"):
        fitted.score_samples(FRAME.to_numpy())


@pytest.mark.filterwarnings("ignore:.*'name' is left out:kappaflow.errors.DataWarning")
def test_text_among_features_becomes_labels():
    """Of 2 to 50 with two rows each; new frames have the text again."""
    features = FRAME[["region", "visits"]].assign(name=[f"n{i}" for i in range(200)])
    features["region"] = features["region"].fillna("west")
    target = features["region"].map(dict(zip(LABELS, (0.0, 4.0, 8.0), strict=True)))
    target = target + np.random.default_rng(0).normal(size=200)
    settings = SMALL | {"max_epochs": 25, "batch_size": 20}
    density = ConditionalFlowDensity(**settings).fit(features, target)
    assert density.flow_.context_columns == ("visits", *(f"region={name}" for name in LABELS))
    assert any("column 'name' is left out" in note for note in density.notes_)
    new = features.iloc[:2].assign(region=["north", "west"])
    north, west = density.predict(new)
    assert west - north > 4
    assert density.predict(new, quantiles=[0.1, 0.9]).shape == (2, 2)
    assert density.predict_interval(new).shape == (2, 2)
    assert density.sample(new, 3, random_state=0).shape == (3, 2)
    with pytest.raises(DataError, match="the label 'east' at index 1; the labels that were tr"):
        density.predict(new.assign(region=["north", "east"]))
    named = clone(density).set_params(columns=["region"], max_epochs=1).fit(features, target)
    assert named.predict(new[["region"]]).shape == (2,)
    with pytest.raises(ArgumentError, match="'columns' names column 'name', which holds 200 diff"):
        clone(density).set_params(columns=["name"]).fit(features, target)
    with pytest.raises(DataError, match="context column 'region=north' has .* missing"):
        clone(density).fit(FRAME[["region"]], target)
