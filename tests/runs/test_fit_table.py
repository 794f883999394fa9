"""`fit_table`: tables of labels, of numbers and of both; weights, choices, refusals, resuming."""

import datetime as dt

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

import kappaflow as kf
from kappaflow.errors import ArgumentError, DataError
from kappaflow.mixed import TableModel, prepared

QUICK = {"max_epochs": 2, "search_time": 0, "progress": False}


def people(rows=400, seed=0):
    """Returns a frame of mixed columns, with gaps."""
    generator = np.random.default_rng(seed)
    region = generator.integers(0, 2, rows)
    age = np.rint(30 + 10 * region + 6 * generator.normal(size=rows)).astype(np.int64)
    frame = pl.DataFrame({
        "id": [f"p{row}" for row in range(rows)],
        "region": np.array(["north", "south"])[region],
        "age": age,
        "income": np.exp(7 + 0.02 * age + 0.4 * generator.normal(size=rows)),
        "weight": 1.0 + 8 * region,
    })
    gone = generator.random((2, rows)) < 0.15
    return frame.with_columns(
        pl.when(pl.Series(mask)).then(None).otherwise(pl.col(name)).alias(name)
        for name, mask in zip(("region", "income"), gone, strict=True)
    )


def close(actual, expected):
    """Compares numbers whose last digits depend on where arrays lie in memory."""
    np.testing.assert_allclose(actual, expected, rtol=1e-12)


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    """A fit of mixed columns, with its folder."""
    folder = tmp_path_factory.mktemp("tables") / "run"
    return kf.fit_table(people(), exclude="weight", out=folder, **QUICK), folder


def test_a_fit_has_a_model_a_training_and_notes(fitted):
    """The notes have the kinds of all columns that are read."""
    fit, _ = fitted
    assert fit.model.encoding.numbers == ("income",)
    assert fit.model.encoding.label_columns == ("region", "age")
    assert len(fit.training.history) == 2 and fit.training.flow is fit.model.flow
    for line in ("id: identifier", "region: category, 2 labels", "age: integer"):
        assert any(note.startswith(line) for note in fit.notes)
    assert not any("weight" in note for note in fit.notes)
    sample = fit.model.sample(40)
    assert sample.columns == ["id", "region", "age", "income"] and sample["id"].dtype == pl.String


def test_the_same_folder_is_not_trained_again_and_the_same_seed_repeats(fitted, tmp_path):
    """The model of the folder is the model of the fit; another folder has the same figures."""
    fit, folder = fitted
    rows = people().head(30)
    first = fit.model.log_prob(rows).log_prob
    again = kf.fit_table(people(), exclude="weight", out=folder, **QUICK)
    close(again.model.log_prob(rows).log_prob, first)
    close(TableModel.load(folder).log_prob(rows).log_prob, first)
    other = kf.fit_table(people(), exclude="weight", out=tmp_path / "new", **QUICK)
    close(other.model.log_prob(rows).log_prob, first)
    losses = [[line["train_nll"] for line in f.training.history] for f in (fit, other)]
    assert losses[0] == losses[1]
    with pytest.raises(ArgumentError):
        kf.fit_table(people(seed=1), exclude="weight", out=folder, **QUICK)


def test_labels_alone_have_no_flow(tmp_path):
    """Their model samples, scores and completes; it is written to the folder too."""
    frame = people().select("region").with_columns(member=pl.int_range(400) % 4 == 0)
    fit = kf.fit_table(frame, out=tmp_path / "labels", **QUICK)
    assert fit.training is None and fit.model.flow is None
    scores = fit.model.log_prob(frame.drop_nulls().unique())
    assert len(scores.log_prob) == 4
    np.testing.assert_allclose(np.exp(scores.log_prob).sum(), 1, atol=1e-5)
    sample = fit.model.sample(4000)
    assert sample.schema == frame.schema and abs(sample["member"].mean() - 0.25) < 0.05
    completed = fit.model.impute(frame).frame
    assert not completed.null_count().sum_horizontal()[0]
    given = fit.model.sample_given({"region": "south"}, 50)
    assert (given["region"] == "south").all() and given["member"].n_unique() == 2
    assert_frame_equal(TableModel.load(tmp_path / "labels").sample(9), fit.model.sample(9))


@pytest.mark.parametrize("share", [0.0, 0.3])
def test_numbers_without_labels_are_a_flow_without_a_context(share):
    """One column, complete and with gaps: the mean of samples is that of the rows."""
    x = np.random.default_rng(0).normal(3, 2, 600)
    gone = pl.Series(np.random.default_rng(1).random(600) < share)
    frame = pl.DataFrame({"x": x}).select(
        pl.when(gone).then(None).otherwise(pl.col("x")).alias("x")
    )
    fit = kf.fit_table(frame, **QUICK | {"max_epochs": 8})
    assert fit.model.flow.context_features == 0 and fit.model.encoding.labels == ()
    sample = fit.model.sample(3000)["x"]
    assert abs(sample.mean() - 3) < 0.4 and abs(sample.std() - 2) < 0.4
    assert fit.model.impute(frame).frame["x"].null_count() == 0


def test_rows_that_miss_all_of_their_values_are_fitted_and_completed():
    """They say nothing, and have a density of 1."""
    generator = np.random.default_rng(0)
    frame = pl.DataFrame({"x": generator.normal(size=300), "y": generator.normal(size=300)})
    gone = pl.int_range(300) % 6 == 0
    frame = frame.select(pl.when(gone).then(None).otherwise(pl.all()).name.keep())
    model = kf.fit_table(frame, **QUICK).model
    assert frame.null_count()["x"][0] == 50 and not model.impute(frame).frame["y"].null_count()
    assert abs(model.log_prob(frame.head(1), draws=4000).log_prob[0]) < 0.1


def test_weights_change_labels_and_numbers():
    """Rows of the south count nine times: its share and the mean of ages rise."""
    frame = people(600).drop_nulls().drop("income")
    means = {}
    for weights in (None, "weight"):
        exclude = "weight" if weights is None else ()
        options = QUICK | {"max_epochs": 10, "exclude": exclude, "learning_rate": 0.01}
        sample = kf.fit_table(frame, weights=weights, **options).model.sample(3000)
        assert "weight" not in sample.columns
        means[weights] = (sample["region"] == "south").mean(), sample["age"].mean()
    expected = {None: 0.5, "weight": 0.9}
    for weights, share in expected.items():
        assert abs(means[weights][0] - share) < 0.06
        assert abs(means[weights][1] - 30 - 10 * share) < 2.0
    with pytest.raises(ArgumentError, match="'weights' should be 0 or more"):
        kf.fit_table(frame.with_columns(weight=-pl.col("weight")), weights="weight", **QUICK)


def test_rows_and_columns_are_chosen(tmp_path):
    """By `columns`, `exclude` and `where`, of frames and of files."""
    frame = people()
    path = tmp_path / "people.csv"
    frame.write_csv(path)
    for source in (frame, path):
        fit = kf.fit_table(
            source, columns=["region", "age"], where="age>35", weights="weight", **QUICK
        )
        assert fit.model.sample(2).columns == ["region", "age"]
        assert fit.model.sample(200)["age"].min() > 35
    with pytest.raises(DataError, match="no row .* meets where='age>300'"):
        kf.fit_table(frame, where="age>300", **QUICK)
    with pytest.raises(ArgumentError, match="no column 'agee'|'agee'"):
        kf.fit_table(frame, columns=["agee"], **QUICK)
    with pytest.raises(DataError, match="no columns left"):
        kf.fit_table(frame, exclude=frame.columns, **QUICK)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"context": "salary"}, ArgumentError, "'context' names column 'salary'"),
        ({"kinds": {"age": "number"}}, ArgumentError, "'kinds' should name one of continuous"),
        ({"kinds": {"height": "integer"}}, ArgumentError, "'kinds' names column 'height'"),
        ({"kinds": {"region": "integer"}}, (ArgumentError, DataError), "'region'"),
        ({"max_epoch": 3}, ArgumentError, "max_epoch"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(options, error, message, tmp_path):
    """Before a training, and before a folder is made."""
    with pytest.raises(error, match=message):
        kf.fit_table(people(), out=tmp_path / "run", **QUICK | options)
    assert not (tmp_path / "run").exists()


def test_kinds_that_are_named_replace_those_that_are_recognized():
    """A whole number is a category; the others are recognized."""
    fit = kf.fit_table(people(), kinds={"weight": "category"}, exclude="income", **QUICK)
    assert fit.model.encoding.label_columns == ("region", "weight")
    assert set(fit.model.sample(50)["weight"]) <= {1.0, 9.0}


def test_numbers_that_follow_from_each_other_have_no_density():
    """The sentence of other tables, without repairs that `fit_table` does not have."""
    frame = people().with_columns(double=2 * pl.col("income"))
    with pytest.raises(DataError, match=r"depend on each other linearly") as error:
        kf.fit_table(frame.drop_nulls(), **QUICK)
    assert "repair" not in str(error.value) and "leave out" in str(error.value)
    with pytest.raises(DataError, match="has no rows: there is nothing to fit"):
        kf.fit_table(frame.head(0), **QUICK)


def test_equal_rows_are_in_one_part():
    """Also those with gaps, and those that differ in an identifier alone."""
    frame = pl.concat([people(150), people(150).head(100)])
    frame = frame.with_columns(id=pl.int_range(250).cast(pl.String))
    from kappaflow.data.load import read_source
    from kappaflow.data.raw import READ_ALL

    parts = prepared(read_source(frame, READ_ALL), {}, (0.6, 0.2, 0.2), 0)
    rows = [
        {
            tuple(map(str, row))
            for row in zip(
                *(raw.columns[n].texts() for n in ("region", "age", "income")), strict=True
            )
        }
        for raw in parts.sources
    ]
    assert sum(raw.row_count for raw in parts.sources) == 250 and all(rows)
    assert not (rows[0] & rows[1] or rows[0] & rows[2] or rows[1] & rows[2])


def test_the_winner_of_a_search_continues_with_missing_numbers(tmp_path):
    """The search trains on rows that are filled once, so its state has no draws of them."""
    frame = people().select("region", "income")
    fit = kf.fit_table(frame, max_time_s=3, search_time=5, progress=False, out=tmp_path / "run")
    assert any("after a search" in note for note in fit.notes)
    assert (
        len(fit.training.history) > 2
        and fit.model.impute(frame).frame.null_count().sum_horizontal()[0] == 0
    )


def test_dates_can_be_given_as_text():
    """The command line has no other way; a text that is not a date is refused."""
    days = [dt.date(2020, 1, 1) + dt.timedelta(days=row % 90) for row in range(300)]
    times = [dt.datetime(2020, 1, 1) + dt.timedelta(hours=row) for row in range(300)]
    frame = pl.DataFrame({"day": days, "time": times, "x": np.linspace(0, 1, 300) ** 2})
    model = kf.fit_table(frame, **QUICK).model
    given = model.sample_given({"day": "2020-02-03", "time": "2020-01-05T06:00"}, 2)
    assert given.schema == frame.schema
    assert given["day"].to_list() == [dt.date(2020, 2, 3)] * 2
    assert given["time"].to_list() == [dt.datetime(2020, 1, 5, 6)] * 2
    with pytest.raises(ArgumentError, match=r"a value for 'day', got soon"):
        model.sample_given({"day": "soon"}, 2)
    with pytest.raises(DataError, match=r"column 'x' of 'given' holds values of type String"):
        model.sample_given({"x": "forty"}, 2)
