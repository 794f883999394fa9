"""Estimators read data frames as `kappaflow.fit_auto` does, and their messages name input rows."""

import ast
import inspect
import re

import numpy as np
import pandas as pd
import polars as pl
import pytest
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.exceptions import NotFittedError

import kappaflow as kf
from kappaflow.errors import ArgumentError, DataError, DataWarning
from kappaflow.estimator import ConditionalFlowDensity, FlowDensity, FlowOutlierDetector

SMALL = {"depth": 1, "hidden": (4,), "max_epochs": 1, "random_state": 0}
RNG = np.random.default_rng(0)
X = RNG.normal(size=(120, 3))
FRAME = pd.DataFrame(X, columns=["a", "b", "c"]).assign(
    day=pd.date_range("2020-01-01", periods=120),
    flag=X[:, 0] > 0,
    id=np.arange(120),
    kind=pd.Categorical(["x", "y"] * 60),
)
WITH_CODE = X.copy()
WITH_CODE[7::10, 0] = -999


@pytest.mark.parametrize("make", [FlowDensity, FlowOutlierDetector])
@pytest.mark.parametrize(
    ("rows", "name"),
    [
        (WITH_CODE, "row 8"),
        (pl.DataFrame(WITH_CODE), "row 8"),
        (pd.DataFrame(WITH_CODE), "index 7"),
        (pd.DataFrame(WITH_CODE, index=[f"r{i}" for i in range(120)]), "index 'r7'"),
    ],
)
def test_messages_name_the_row_of_the_input(make, rows, name):
    """Equal rows become one, in sorted order, which no message shows."""
    with pytest.warns(DataWarning, match=f"holds -999 in .* first at {name}, "):
        make(**SMALL).fit(rows)


def notes_of(fit):
    """Returns the warnings of a call."""
    with pytest.warns(DataWarning) as caught:
        fit()
    return [str(warning.message) for warning in caught if warning.category is DataWarning]


def test_a_frame_is_read_as_fit_auto_reads_it():
    """Dates, booleans, identifiers and categories are left out with the same sentences."""
    density = FlowDensity(**SMALL)
    notes = notes_of(lambda: density.fit(FRAME))
    assert notes == notes_of(lambda: kf.fit_auto(FRAME, max_epochs=1, search_time=0))
    for name in ("day", "flag", "id", "kind"):
        assert sum(f"column '{name}' is left out: " in note for note in notes) == 1
    assert list(density.notes_) == notes
    assert list(density.feature_names_in_) == list(FRAME.columns)
    assert density.sample(5, random_state=0).shape == (5, 3)
    scores = density.score_samples(FRAME)
    np.testing.assert_array_equal(scores, clone(density).fit(X).score_samples(X))
    with pytest.raises(ValueError, match="feature names should match"):
        density.score_samples(FRAME.rename(columns={"a": "z"}))
    with pytest.raises(DataError, match="column 'a' of the data frame .* index 3 has NaN"):
        density.score_samples(FRAME.mask(FRAME.index.to_series() == 3))


OPTIONS = {  # options of reading, and the columns and the rows that are then left
    "columns": ({"columns": ["c", "flag"]}, ["c", "flag"], 120),
    "exclude": ({"exclude": "b"}, ["a", "c"], 120),
    "where": ({"where": ["kind=x", "a<9"]}, ["a", "b", "c"], 60),
    "missing": ({"missing": ["-999"], "repair": "drop"}, ["a", "b", "c"], 108),
    "context": ({"context": ["b", "flag"]}, ["a", "c"], 120),
}


@pytest.mark.filterwarnings("ignore::kappaflow.errors.DataWarning")
@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("make", ["estimator", "fit", "fit_auto"])
def test_the_options_of_reading_are_those_of_the_command(make, name):
    """Weights are those of all rows, before any is left out."""
    options, columns, rows = OPTIONS[name]
    frame = FRAME.assign(a=WITH_CODE[:, 0]) if name == "missing" else FRAME
    conditional = options.get("context", [])
    if make == "estimator":
        density = FlowDensity(**SMALL, **options).fit(frame, sample_weight=np.arange(1.0, 121))
        known, contexts = density._columns, density._context_columns
        assert len(density.score_samples(FRAME)) == 120
        if name in ("columns", "exclude"):
            assert len(density.score_samples(FRAME[columns])) == 120
    else:
        flow = kf.real_nvp(len(columns), depth=1, hidden=(4,), context_features=len(conditional))
        fit = kf.fit_auto if make == "fit_auto" else lambda *a, **k: kf.fit(flow, *a, **k)
        budget = {"search_time": 0} if make == "fit_auto" else {}
        result = fit(frame, weights=np.arange(1.0, 121), max_epochs=1, **budget, **options)
        known, contexts = result.train.columns, result.train.context_columns
        assert len(result.train) == round(0.9 * rows)
    assert list(known) == columns and list(contexts) == conditional


@pytest.mark.filterwarnings("ignore::kappaflow.errors.DataWarning")
def test_a_density_given_a_context_scores_and_says_how_to_sample():
    density = FlowDensity(**SMALL, columns=["a"], context=["b"]).fit(FRAME)
    assert np.isfinite(density.score_samples(FRAME)).all()
    with pytest.raises(ArgumentError, match=r"flow_\.sample\(n, context\).*of 'b'"):
        density.sample(3)


def test_a_frame_without_rows_has_nothing_to_score():
    """Nor to fit: the sentence depends on what the rows are for."""
    density = FlowDensity(**SMALL).fit(FRAME[["a", "b"]])
    conditional = ConditionalFlowDensity(**SMALL).fit(FRAME[["a"]], FRAME["b"])
    empty = FRAME[["a", "b"]].head(0)
    for score in (
        lambda: density.score_samples(empty),
        lambda: density.flow_.log_prob(empty),
        lambda: conditional.log_prob(empty[["a"]], empty["b"]),
    ):
        with pytest.raises(DataError, match="frame has no rows: there is nothing to score"):
            score()
    with pytest.raises(DataError, match="frame has no rows: there is nothing to fit"):
        density.fit(empty)


def test_a_fit_that_failed_leaves_no_fitted_estimator():
    """Also where an earlier one succeeded."""
    broken = np.column_stack([X, np.ones(120)])
    for estimator in (FlowDensity(**SMALL), FlowOutlierDetector(**SMALL)):
        for _ in range(2):
            with pytest.raises(DataError, match="'x3' is constant"):
                estimator.fit(broken)
            for call in (estimator.score_samples, estimator.diagnose):
                with pytest.raises(NotFittedError):
                    call(broken)
            estimator.set_params(exclude=())
    density = ConditionalFlowDensity(**SMALL)
    with pytest.raises(DataError, match="column 'y0' has 120 missing values"):
        density.fit(X, np.full(120, np.nan))
    with pytest.raises(ArgumentError, match="'y' should hold the targets, got None"):
        density.fit(X, None)
    with pytest.raises(NotFittedError):
        density.predict(X)


@pytest.mark.filterwarnings("ignore::kappaflow.errors.DataWarning")
def test_features_and_targets_of_frames_keep_their_names():
    """A feature of true and false counts as 1 and 0; one text is none; bounds name the target."""
    density = ConditionalFlowDensity(**SMALL, bounds={"price": "positive"}, where="kind=x")
    price = pd.Series(np.exp(X[:, 0]), name="price")
    features = FRAME[["b", "flag", "kind", "day"]]
    density.fit(features, price)
    assert any("column 'day' is left out" in note for note in density.notes_)
    assert np.isfinite(density.log_prob(features, price)).all()
    assert (density.sample(features[:4], 50) > 0).all()
    assert density.predict(features).shape == (120,)
    with pytest.raises(DataError, match=r"column 'price' .* above 0, index 5 has -1"):
        clone(density).set_params(where=None).fit(features, price.where(price.index != 5, -1.0))


def test_a_conditional_density_has_no_option_without_effect():
    """No model search, and no context besides its features."""
    assert not {"search_time", "context"} & set(
        inspect.signature(ConditionalFlowDensity).parameters
    )


def with_suggested(estimator, message):
    """Returns an estimator with the first option that a message suggests, besides its own."""
    (name, value), *_ = re.findall(r"(repair|exclude)=('\w+'|\[.*?\])", message)
    value = ast.literal_eval(value)
    return estimator.set_params(**{name: value})


@pytest.mark.filterwarnings("ignore::kappaflow.errors.DataWarning")
def test_pixels_can_be_fitted_after_what_the_messages_say():
    """Some are constant, one in the training rows only, which whitening cannot standardize."""
    pixels = load_digits().data
    settings = {"options": {"start": "whiten"}, **SMALL}
    estimator = FlowOutlierDetector(model="real_nvp", **settings)
    messages = []
    for _ in range(3):
        try:
            estimator.fit(pixels)
            break
        except DataError as error:
            messages.append(str(error))
            estimator = with_suggested(estimator, messages[-1])
    assert "column 'x0' is constant: every row holds 0" in messages[0]
    assert re.match("the 1,258 training rows cannot be whitened: column 'x56' is", messages[1])
    assert (estimator.predict(pixels) == 1).mean() > 0.9


def test_a_diagnosis_names_rows_and_columns_of_the_frame():
    """As `kappaflow.doctor` does with the flow."""
    frame = FRAME[["a", "b"]].set_axis([f"r{i}" for i in range(120)])
    density = FlowDensity(**SMALL).fit(frame)
    frame.iloc[20:60, 1] = 0.25
    messages = [finding.message for finding in density.diagnose(frame).findings]
    assert any(
        "'b' holds the value 0.25 in 40 of 120 rows (index values 'r20'" in m for m in messages
    )
