"""Table models with a context: a known distribution, frames, saved models, what is refused."""

import numpy as np
import pandas as pd
import polars as pl
import pytest
from pandas.testing import assert_frame_equal as pandas_equal
from polars.testing import assert_frame_equal

import kappaflow as kf
from kappaflow.errors import ArgumentError, DataError

DATES = pl.date_range(pl.date(2024, 1, 1), pl.date(2024, 6, 28), eager=True)


def table(rows=2000, seed=0):
    """Returns rows, and log p(vote, income, visits | region, age) of each."""
    generator = np.random.default_rng(seed)
    is_north, age = generator.random(rows) < 0.4, generator.uniform(20, 80, rows)
    shift = (age - 50) / 20 + is_north
    share = 1 / (1 + np.exp(-2 * shift))
    votes = generator.random(rows) < share
    income = 1.5 * shift + votes + 0.5 * generator.normal(size=rows)
    log_p = np.log(np.where(votes, share, 1 - share)) - np.log(0.5 * np.sqrt(2 * np.pi))
    log_p -= ((income - 1.5 * shift - votes) / 0.5) ** 2 / 2
    frame = pl.DataFrame({
        "region": np.where(is_north, "north", "south"),
        "vote": np.where(votes, "yes", "no"),
        "age": age,
        "income": income,
    })
    return frame, log_p


@pytest.fixture(scope="module")
def fitted():
    """A model of two columns given a category and a number."""
    frame, _ = table()
    return kf.fit_table(frame, context=["region", "age"], search_time=0, max_epochs=20).model


@pytest.fixture(scope="module")
def gappy():
    """A model whose context has labels, a date, a truth value and a circle, all with gaps."""
    frame, _ = table(600)
    more = pl.DataFrame({
        "day": DATES.sample(600, with_replacement=True, seed=0),
        "new": np.arange(600) % 3 == 0,
        "angle": np.random.default_rng(0).uniform(0, 360, 600),
    })
    frame = pl.concat([frame, more], how="horizontal")
    generator = np.random.default_rng(1)
    frame = frame.with_columns(
        pl.when(pl.Series(generator.random(600) < 0.1))
        .then(None)
        .otherwise(pl.col(name))
        .alias(name)
        for name in frame.columns
    )
    options = {"kinds": {"angle": "circular:0,360"}, "search_time": 0, "max_epochs": 3}
    return frame, kf.fit_table(frame, context=[*more.columns, "region", "age"], **options).model


def test_log_probabilities_are_those_of_a_known_distribution(fitted):
    """1,000 new rows: off by at most 0.05 nats on average, and by 0.4 nats for 9 of 10 rows.

    With the contexts of other rows they are off by more than 1 nat on average.
    """
    frame, expected = table(1000, seed=1)
    error = fitted.log_prob(frame).log_prob - expected
    assert abs(error.mean()) < 0.05 and np.quantile(abs(error), 0.9) < 0.4
    shuffled = frame.with_columns(pl.col("age").reverse(), pl.col("region").reverse())
    assert (fitted.log_prob(shuffled).log_prob - expected).mean() < -1
    labels = fitted.labels_log_prob(frame)
    given = frame.with_columns(income=pl.lit(None, pl.Float64))
    np.testing.assert_allclose(labels, fitted.log_prob(given).log_prob, atol=0.02)


def test_samples_follow_the_context_and_repeat_its_rows(fitted):
    """Means of 4,000 samples for each of two rows, within 0.15 of the known ones."""
    context = pl.DataFrame({"age": [35.0, 60.0], "region": ["south", "north"]})
    samples = fitted.sample(4000, context=context, seed=3)
    assert samples.columns == ["vote", "income", "region", "age"]
    assert samples["age"].to_list() == [35.0, 60.0] * 4000
    assert samples["region"].to_list() == ["south", "north"] * 4000
    means = samples.group_by("age").agg((pl.col("vote") == "yes").mean(), pl.col("income").mean())
    _, share, income = np.array(means.sort("age").rows()).T
    shift = np.array([-0.75, 1.5])
    expected = 1 / (1 + np.exp(-2 * shift))
    assert (abs(share - expected) < 0.06).all()
    assert (abs(income - 1.5 * shift - expected) < 0.15).all()
    given = fitted.sample_given({"vote": "no"}, 500, context=context)
    assert given["vote"].unique().to_list() == ["no"] and given["age"].to_list()[:2] == [
        35.0,
        60.0,
    ]
    average = given.group_by("age").agg(pl.col("income").mean()).sort("age")["income"]
    assert (abs(average.to_numpy() - 1.5 * shift) < 0.2).all()


def test_missing_values_of_modeled_columns_are_drawn_given_the_context(fitted):
    """Votes of 400 rows at two ages, within 5 standard errors of 0.03."""
    rows = pl.DataFrame({
        "region": ["south"] * 400,
        "vote": pl.Series([None] * 400, dtype=pl.String),
        "age": [35.0, 65.0] * 200,
        "income": pl.Series([None] * 400, dtype=pl.Float64),
    })
    completed = fitted.impute(rows).frame
    assert_frame_equal(completed.select("region", "age"), rows.select("region", "age"))
    votes = (completed["vote"] == "yes").to_numpy()
    assert abs(votes[::2].mean() - 0.18) < 0.15 and abs(votes[1::2].mean() - 0.82) < 0.15


def test_a_context_of_every_kind_may_have_gaps(gappy):
    """A label missing, or a column that says so; scores are finite for every row."""
    frame, model = gappy
    names = model.encoding.context_features
    assert names[:2] == ("region=north", "region=south") and "region=missing" in names
    assert {"age=missing", "day=missing", "new=missing"} <= set(names)
    assert {"angle, cosine", "angle, sine", "angle=missing"} <= set(names)
    context = model.encoding.encode_context(kf.data.load.read_source(frame, kf.data.raw.READ_ALL))
    assert (context[frame["age"].is_null().to_numpy(), names.index("age=missing")] == 1).all()
    angle = np.deg2rad(frame["angle"].fill_null(0).to_numpy())
    actual = context[:, names.index("angle, sine")]
    np.testing.assert_allclose(actual, np.sin(angle), atol=1e-9)
    assert np.isfinite(model.log_prob(frame).log_prob).all()
    assert "age: continuous" in repr(model) and "the mean, and a column marks it" in repr(model)


def test_a_saved_model_has_the_same_scores_and_samples(gappy, tmp_path):
    """Exactly, with the values of a context of pandas as they are."""
    frame, model = gappy
    model.save(tmp_path)
    loaded = kf.TableModel.load(tmp_path)
    assert (loaded.log_prob(frame).log_prob == model.log_prob(frame).log_prob).all()
    assert_frame_equal(
        loaded.sample(2, context=frame.head(5)), model.sample(2, context=frame.head(5))
    )
    assert loaded.encoding == model.encoding


def test_a_frame_of_pandas_gives_samples_of_pandas():
    """The index of the context is not kept; its dtypes are."""
    frame = pd.DataFrame(table(300)[0].to_dict(as_series=False))
    frame["age"] = frame["age"].round().astype("int32")
    model = kf.fit_table(frame, context=["region", "age"], search_time=0, max_epochs=1).model
    samples = model.sample(1, context=frame.tail(4))
    assert samples.dtypes.to_dict() == frame[samples.columns].dtypes.to_dict()
    expected = frame[["region", "age"]].tail(4).reset_index(drop=True)
    pandas_equal(samples[["region", "age"]], expected)
    halves = model.sample(1, context=frame.tail(4).assign(age=40.5))
    assert (halves["age"] == 40.5).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"context": "height"}, "'context' names column 'height'"),
        ({"context": ["age", "age"]}, "'context' names 'age' twice"),
        ({"context": "age", "exclude": "age"}, "both name 'age'"),
        ({"context": "age", "columns": ["age", "vote"]}, "both name 'age'"),
        ({"context": "code"}, "got 'code': it is an identifier; kinds={'code': 'integer'} takes"),
        ({"context": "constant"}, "got 'constant': it holds 1 only"),
        ({"context": ["region", "vote", "age", "income", "code", "constant"]}, "no columns left"),
    ],
)
def test_a_context_that_does_not_fit_is_refused(options, message):
    """By one sentence that names the column."""
    frame = table(100)[0].with_columns(code=pl.int_range(100), constant=pl.lit(1))
    with pytest.raises((ArgumentError, DataError), match=message):
        kf.fit_table(frame, **options)


def test_rows_whose_context_does_not_fit_are_refused(fitted):
    """Unknown labels, values that no training row missed, no context, one too many."""
    rows = table(5, seed=2)[0]
    unknown = rows.with_columns(region=pl.lit("east"))
    with pytest.raises(DataError, match="the label 'east' at row 1.* 'north', 'south'"):
        fitted.log_prob(unknown)
    with pytest.raises(DataError, match="'region' of 'context' has the label 'east'"):
        fitted.sample(1, context=unknown)
    gone = rows.with_columns(age=pl.lit(None, pl.Float64))
    with pytest.raises(DataError, match="no value at row 1, where the fitted table has one"):
        fitted.log_prob(gone)
    with pytest.raises(ArgumentError, match="'context' should be rows of 'region', 'age'"):
        fitted.sample(1)
    with pytest.raises(DataError, match="lacks column 'age'"):
        fitted.impute(rows.drop("age"))
    with pytest.raises(ArgumentError, match="'context' takes rows of 'region'"):
        fitted.sample_given({"region": "north"}, 1, context=rows)
    model = kf.fit_table(rows.select("vote", "region").sample(60, with_replacement=True)).model
    with pytest.raises(ArgumentError, match="'context' should be left out: the model has no"):
        model.sample(1, context=rows)
