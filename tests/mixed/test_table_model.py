"""Densities, samples and completions of a table model, against closed forms."""

import math

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
from pandas.testing import assert_frame_equal as pandas_equal
from polars.testing import assert_frame_equal as polars_equal
from tests.mixed.exact import NUMBERS, conditional, exact_model, gaps

import kappaflow as kf
from kappaflow.errors import ArgumentError, DataError
from kappaflow.mixed import Encoding, TableModel
from kappaflow.mixed.noise import RowNoise

ROW = {"group": "a", "x": 0.3, "y": 1.2, "n": 14, "gain": 31.0}
INCOMPLETE = {
    "complete but for the cell of n": {},
    "gain is a label": {"gain": 0.0},
    "x missing": {"x": None},
    "x and y missing": {"x": None, "y": None},
    "n missing": {"n": None},
    "gain missing": {"gain": None},
    "the label missing": {"group": None},
    "the label and gain missing": {"group": None, "gain": None},
    "numbers missing": dict.fromkeys(NUMBERS),
    "n alone": {"group": None, "x": None, "y": None, "gain": None},
    "all missing": dict.fromkeys(ROW),
}


def frame_of(*rows):
    """Returns rows as a frame with the types of the exact model."""
    return pl.DataFrame(rows, schema=exact_model().frame.schema)


@pytest.mark.parametrize("name", INCOMPLETE)
def test_the_density_of_a_row_is_the_closed_form_of_its_present_values(name):
    """Within 4 standard errors of 4,000 draws: 5 % of a density at most."""
    exact, row = exact_model(), ROW | INCOMPLETE[name]
    scores = exact.model.log_prob(frame_of(row), draws=4000)
    expected = exact.log_prob(**row)
    assert scores.standard_error[0] < 0.05
    assert abs(scores.log_prob[0] - expected) < 4 * scores.standard_error[0] + 1e-6


def test_complete_rows_without_cells_are_exact():
    """Nothing is drawn: log p of the labels and of the numbers given them."""
    exact = exact_model()
    columns = exact.model.encoding.columns
    exactly = [c.model_copy(update={"grid": None, "kind": "continuous"}) for c in columns]
    pairs = zip(exactly, columns, strict=True)
    encoding = Encoding(columns=tuple(new if new.is_number else old for new, old in pairs))
    model = TableModel(encoding, exact.model.labels, exact.model.proposals, exact.model.flow)
    rows = [ROW, ROW | {"group": "b", "x": -1.0}]
    scores = model.log_prob(frame_of(*rows).cast({"n": pl.Float64}))
    for row, actual in zip(rows, scores.log_prob, strict=True):
        without = {key: value for key, value in row.items() if key != "n"}
        given = [row[name] for name in ("x", "y", "gain")]
        one_hot = next(h for g, z, h, _ in exact.label_shares() if g == row["group"] and not z)
        center, variance = conditional(["x", "y", "gain"], given, ["n"], one_hot)
        last = -((row["n"] - center[0]) ** 2) / 2 / variance[0, 0]
        last -= math.log(2 * math.pi * variance[0, 0]) / 2
        assert abs(actual - exact.log_prob(**without) - last) < 1e-5
    assert (scores.standard_error == 0).all() and np.isinf(scores.effective_size).all()


def test_the_density_of_a_row_without_its_label_is_the_sum_over_the_labels():
    """Of the same model: both rows are averages over draws."""
    model = exact_model().model
    rows = frame_of(*(ROW | {"group": label} for label in ("a", "b", None)))
    scores = model.log_prob(rows, draws=8000)
    total = np.logaddexp(*scores.log_prob[:2])
    assert abs(scores.log_prob[2] - total) < 4 * np.linalg.norm(scores.standard_error)
    assert (scores.standard_error < 0.03).all() and scores.log_prob[2] > scores.log_prob[0]


@pytest.mark.parametrize("name", ["x and y missing", "the label and gain missing"])
def test_standard_errors_are_those_of_repeated_seeds(name):
    """The deviations of 60 estimates over their stated errors have a spread of 0.7 to 1.35."""
    exact, row = exact_model(), ROW | INCOMPLETE[name]
    scores = [exact.model.log_prob(frame_of(row), draws=500, seed=seed) for seed in range(60)]
    log_prob, errors, _ = np.array(scores)[:, :, 0].T
    z = (log_prob - exact.log_prob(**row)) / errors
    assert 0.7 < z.std() < 1.35 and abs(z.mean()) < 0.6
    assert len(set(log_prob.tolist())) == 60


@pytest.mark.parametrize("part", [slice(7, 8), slice(10, 30), slice(None, None, -1)])
def test_the_score_of_a_row_does_not_depend_on_the_rows_next_to_it(part):
    """Alone, with fewer rows, in another order: to rounding, for gaps of all patterns."""
    model = exact_model().model
    rows = gaps(exact_model().frame.head(60), share=0.4)
    scores = model.log_prob(rows)
    np.testing.assert_allclose(
        model.log_prob(rows[part]).log_prob, scores.log_prob[part], atol=1e-5
    )
    labels = model.labels_log_prob(rows)
    np.testing.assert_allclose(model.labels_log_prob(rows[part]), labels[part], atol=1e-5)
    has_gaps = scores.standard_error > 0
    other = model.log_prob(rows, seed=1).log_prob
    assert (other != scores.log_prob)[has_gaps].all()


def test_random_numbers_of_rows_are_uniform_and_independent():
    """Means, variances and correlations of 20,000 numbers, within 5 standard errors.

    Between rows, draws, columns, names and seeds.
    """
    values = np.linspace(0, 1, 200)[:, None]
    noise, every = RowNoise(values, 100, seed=0), torch.arange(20_000)
    first, second = (noise.uniform(name, every, 2).T for name in ("first", "second"))
    neighbors = first[:1].roll(100), first[:1].roll(1)
    other = RowNoise(values, 100, seed=1).uniform("first", every, 1).T
    x = torch.cat([first, second, *neighbors, other]).numpy()
    assert x.min() > 0 and x.max() < 1
    assert (abs(x.mean(1) - 0.5) < 5 * (1 / 12 / 20_000) ** 0.5).all()
    assert (abs(12 * x.var(1) - 1) < 5 * (0.8 / 20_000) ** 0.5).all()
    assert abs(np.corrcoef(x) - np.eye(len(x))).max() < 5 / 20_000**0.5


def test_effective_sizes_count_draws_and_uncertain_rows_get_more():
    """64 draws for a row that misses a value; 1,024 where the error is above 0.05 nats."""
    model = exact_model().model
    rows = gaps(exact_model().frame.head(60), share=0.1)
    scores, few = model.log_prob(rows), model.log_prob(rows, draws=64)
    assert (few.effective_size <= 64).all()
    missing = np.array([None in row for row in rows.rows()])
    uncertain = (few.standard_error > 0.05) & missing
    assert 10 < uncertain.sum() < 60
    certain = missing & (few.standard_error < 0.035)
    assert certain.any() and (scores.effective_size[certain] <= 64).all()
    assert (scores.standard_error[uncertain] < few.standard_error[uncertain]).mean() > 0.9
    assert np.median(scores.effective_size[uncertain] / few.effective_size[uncertain]) > 8
    drawn = model._drawn(model._encoded(read(rows)), 64, 0, by_row=True)
    log_w = next(w for *_, w in drawn)
    shares = log_w.softmax(1)
    np.testing.assert_allclose(few.effective_size, 1 / (shares**2).sum(1), rtol=1e-6)


def read(frame):
    """Returns the columns of a frame."""
    from kappaflow.data.load import read_source
    from kappaflow.data.raw import READ_ALL

    return read_source(frame, READ_ALL)


def test_rows_do_not_depend_on_the_order_of_columns_or_on_other_columns():
    """Columns are found by name; others are ignored."""
    model, rows = exact_model().model, gaps(exact_model().frame.head(40))
    shuffled = rows.with_columns(more=pl.lit("?")).select(sorted([*rows.columns, "more"]))
    first, second = model.log_prob(rows), model.log_prob(shuffled)
    np.testing.assert_allclose(first.log_prob, second.log_prob, rtol=1e-12)
    assert (first.log_prob != model.log_prob(rows, seed=1).log_prob).any()


def test_the_density_of_the_labels_alone_sums_over_those_that_are_missing():
    """What the report shows as the part of the labels."""
    exact = exact_model()
    shares = {(g, z): p for g, z, _, p in exact.label_shares()}
    actual = exact.model.labels_log_prob(
        frame_of(ROW, ROW | {"group": None}, ROW | {"gain": None})
    )
    total = np.logaddexp(shares["a", False], shares["b", False])
    first = np.logaddexp(shares["a", False], shares["a", True])
    np.testing.assert_allclose(actual, [shares["a", False], total, first], atol=0.15)
    np.testing.assert_allclose(actual[[0, 2]], [shares["a", False], first], atol=1e-5)


def test_samples_have_the_shares_the_moments_and_the_types_of_the_model():
    """Of 20,000 rows, within 4 standard errors; no value is missing."""
    exact = exact_model()
    frame = exact.model.sample(20_000)
    assert frame.schema == exact.frame.schema and not frame.null_count().sum_horizontal()[0]
    for group, is_zero, one_hot, log_p in exact.label_shares():
        met = (frame["group"] == group) & ((frame["gain"] == 0) == is_zero)
        share = math.exp(log_p)
        assert abs(met.mean() - share) < 4 * math.sqrt(share * (1 - share) / 20_000)
        rows = frame.filter(met)["x", "y"].to_numpy()
        mean, covariance = conditional([], [], ["x", "y"], one_hot)
        assert (abs(rows.mean(0) - mean) < 4 * np.sqrt(np.diag(covariance) / len(rows))).all()
        assert (abs(np.cov(rows.T) - covariance) < 6 * covariance.max() / len(rows) ** 0.5).all()
    other = exact.model.sample(20_000, seed=1)
    assert not other.equals(frame) and exact.model.sample(20_000).equals(frame)


def test_samples_given_values_keep_them_and_follow_the_conditional():
    """2,000 rows given a label, a number and the value 0, within 5 standard errors.

    A mean that is off by a ninth of its deviation would be seen.
    """
    exact = exact_model()
    frame = exact.model.sample_given({"group": "b", "x": -0.5, "gain": 0}, 2000)
    assert frame.schema == exact.frame.schema and len(frame) == 2000
    assert (
        (frame["group"] == "b").all() and (frame["x"] == -0.5).all() and (frame["gain"] == 0).all()
    )
    one_hot = next(h for group, zero, h, _ in exact.label_shares() if group == "b" and zero)
    mean, covariance = conditional(["x"], [-0.5], ["y", "n"], one_hot)
    rows = frame["y", "n"].to_numpy()
    covariance[1, 1] += 1 / 12  # of rounding
    assert (abs(rows.mean(0) - mean) < 5 * np.sqrt(np.diag(covariance) / 2000)).all()
    scale = np.sqrt(np.outer(np.diag(covariance), np.diag(covariance)))
    assert (abs(np.cov(rows.T) - covariance) < 0.16 * scale).all()


def test_samples_given_a_number_have_the_posterior_of_the_labels():
    """A label is drawn by Bayes' rule, within 5 standard errors of 4,000 rows."""
    exact = exact_model()
    frame = exact.model.sample_given({"x": 1.5, "n": 16}, 4000)
    row = {"x": 1.5, "n": 16}
    for group in "ab":
        share = math.exp(exact.log_prob(**row, group=group) - exact.log_prob(**row))
        error = math.sqrt(share * (1 - share) / 4000)
        assert 0.02 < share < 0.98 and abs((frame["group"] == group).mean() - share) < 5 * error
    assert (frame["n"] == 16).all()


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"age": 4}, ArgumentError, r"'given' should name columns .* got \['age'\].* group, x, y"),
        ({}, ArgumentError, "got none"),
        ({"x": None}, ArgumentError, "'given' should have a value for 'x', got None"),
        ({"x": 0.2, "y": math.nan}, ArgumentError, "should have a value for 'y', got nan"),
        ({"group": "c"}, DataError, "has the label 'c'"),
        ({"x": math.inf}, DataError, "inf .* finite"),
        ({"x": 1e6}, DataError, "draws agree with the given values"),
    ],
)
def test_given_values_that_are_not_possible_are_refused(given, error, message):
    """Before a sample is drawn, or where too few of the draws agree."""
    with pytest.raises(error, match=message):
        exact_model().model.sample_given(given, 2)


def test_completions_follow_the_conditional_and_present_values_are_kept():
    """800 copies of a row without x and y, within 5 standard errors.

    A mean that is off by a fifth of its deviation would be seen, such as that of the proposals.
    """
    exact = exact_model()
    row = {"group": "a", "x": None, "y": None, "n": None, "gain": 40.0}
    completed = exact.model.impute(frame_of(*[row] * 800))
    frame = completed.frame
    assert (frame["group"] == "a").all() and (frame["gain"] == 40.0).all()
    one_hot = next(h for group, zero, h, _ in exact.label_shares() if group == "a" and not zero)
    mean, covariance = conditional(["gain"], [40.0], ["x", "y", "n"], one_hot)
    rows = frame["x", "y", "n"].to_numpy()
    deviation = np.sqrt(np.diag(covariance))
    assert (abs(rows.mean(0) - mean) < 5 * deviation / 800**0.5).all()
    assert (abs(np.cov(rows.T) - covariance) < 0.25 * np.outer(deviation, deviation)).all()
    assert (completed.effective_size > 20).all()


def test_missing_labels_are_completed_by_bayes_rule():
    """1,000 copies of a row, within 5 standard errors."""
    exact = exact_model()
    row = {"group": None, "x": 0.8, "y": 0.6, "n": 13, "gain": None}
    frame = exact.model.impute(frame_of(*[row] * 1000)).frame
    for group in "ab":
        share = math.exp(exact.log_prob(**row | {"group": group}) - exact.log_prob(**row))
        assert abs((frame["group"] == group).mean() - share) < 5 * math.sqrt(
            share * (1 - share) / 1000
        )
    zero = math.exp(exact.log_prob(**row | {"gain": 0.0}) - exact.log_prob(**row))
    assert abs((frame["gain"] == 0).mean() - zero) < 5 * math.sqrt(zero * (1 - zero) / 1000)


def test_completed_frames_of_polars_keep_their_values_types_and_other_columns():
    """Also of categories, in any order of the columns, and with more columns."""
    model, frame = exact_model().model, exact_model().frame.head(60)
    rows = gaps(frame).with_columns(
        pl.col("group").cast(pl.Categorical), more=pl.Series(range(60))
    )
    rows = rows.cast({"n": pl.Int16, "x": pl.Float32}).select(reversed(rows.columns))
    completed = model.impute(rows)
    assert completed.frame.schema == rows.schema
    assert not completed.frame.null_count().sum_horizontal()[0]
    for name in rows.columns:
        present = rows[name].is_not_null()
        assert completed.frame[name].filter(present).equals(rows[name].filter(present))
    whole = rows.select(frame.columns).null_count().sum_horizontal()[0]
    assert whole > 40 and np.isinf(completed.effective_size).sum() == len(rows.drop_nulls())
    polars_equal(model.impute(rows).frame, completed.frame)
    assert not model.impute(rows, seed=1).frame.equals(completed.frame)
    complete = rows.drop_nulls()
    polars_equal(model.impute(complete).frame, complete)


def test_completed_frames_of_pandas_keep_their_index_and_types():
    """Labels as objects and categories, whole numbers as nullable integers; equal index labels."""
    model, rows = exact_model().model, gaps(exact_model().frame.head(40))
    expected = model.impute(rows).frame
    table = pd.DataFrame({
        name: pd.Series(rows[name].to_list(), dtype=object) for name in rows.columns
    })
    table = table.astype({"x": float, "y": "Float64", "n": "Int64", "gain": float})
    table.index = pd.Index([7, 3] * 20, name="row")
    kept = table.copy(deep=True)
    for group in (object, pd.CategoricalDtype(["b", "a"])):
        typed = table.astype({"group": group})
        frame = model.impute(typed).frame
        assert (frame.dtypes == typed.dtypes).all() and frame.index.equals(typed.index)
        assert not frame.isna().any().any()
        pandas_equal(frame.where(typed.notna()), typed.where(typed.notna()), check_dtype=False)
        values = {name: frame[name].to_list() for name in frame}
        polars_equal(pl.DataFrame(values, schema=rows.schema), expected)
    pandas_equal(table, kept)


def test_truth_values_and_dates_that_pandas_holds_as_objects_are_completed():
    """Its types for them with gaps."""
    import datetime as dt

    generator = np.random.default_rng(0)
    days = [
        dt.date(2020, 1, 1) + dt.timedelta(days=int(n)) for n in generator.integers(0, 400, 80)
    ]
    table = pd.DataFrame(
        {"member": (generator.random(80) < 0.5).tolist(), "day": days}, dtype=object
    )
    table.iloc[::5, 0], table.iloc[1::7, 1] = None, None
    fit = kf.fit_table(table, max_epochs=1, search_time=0, progress=False)
    frame = fit.model.impute(table).frame
    assert set(frame.dtypes) == {np.dtype(object)} and not frame.isna().any().any()
    assert {type(value) for value in frame["member"]} == {bool}
    assert {type(value) for value in frame["day"]} == {dt.date}
    pandas_equal(frame.where(table.notna()), table.where(table.notna()))
    as_polars = fit.model.impute(pl.DataFrame({"member": [None, True], "day": [days[0], None]}))
    assert as_polars.frame["day"][1] is not None and as_polars.frame["member"][1] is True


def test_a_file_is_completed_as_a_frame_whose_whole_numbers_are_integers(tmp_path):
    """Also of columns that are not modeled, such as identifiers."""
    rows = gaps(exact_model().frame.head(50)).with_row_index("row", 100)
    rows.write_csv(tmp_path / "rows.csv")
    frame = exact_model().model.impute(tmp_path / "rows.csv").frame
    assert frame.schema == rows.cast({"row": pl.Int64}).schema
    assert frame["row"].to_list() == list(range(100, 150))
    for name in rows.columns:
        present = rows[name].is_not_null()
        assert frame[name].filter(present).to_list() == rows[name].filter(present).to_list()


def test_no_rows_have_no_scores_and_no_completions():
    """An empty frame of the same columns is no error."""
    model, empty = exact_model().model, exact_model().frame.head(0)
    assert [part.shape for part in model.log_prob(empty)] == [(0,)] * 3
    assert model.labels_log_prob(empty).shape == (0,)
    completed = model.impute(empty)
    polars_equal(completed.frame, empty)
    assert completed.effective_size.shape == (0,)


def test_unknown_labels_columns_and_seeds_are_named():
    """By the row and the column of a frame."""
    model, rows = exact_model().model, frame_of(ROW, ROW | {"group": "z"})
    for call in (model.log_prob, model.impute):
        with pytest.raises(DataError, match="column 'group' .* the label 'z' at row 2"):
            call(rows)
        with pytest.raises(DataError, match="lacks column 'x'"):
            call(rows.drop("x"))
        with pytest.raises(ArgumentError, match="'seed' should be at least 0, got -1"):
            call(rows.head(1), seed=-1)
    with pytest.raises(ArgumentError, match="'draws' should be"):
        model.log_prob(rows.head(1), draws=0)
    with pytest.raises(ArgumentError, match="'n' should be"):
        model.sample(0)


def test_a_row_that_no_draw_can_complete_is_reported():
    """Its effective size is 0, and its density 0, not a number that is not one."""
    model = exact_model().model
    rows = frame_of(ROW | {"x": 1e200, "y": None}, ROW | {"y": None})
    scores, completed = model.log_prob(rows), model.impute(rows)
    assert scores.log_prob[0] == -math.inf and scores.log_prob[1] > -30
    assert completed.effective_size[0] < 10 < completed.effective_size[1]
    assert not completed.frame.null_count().sum_horizontal()[0]


def test_models_of_frames_of_pandas_sample_frames_of_pandas():
    """With the types of the fitted frame."""
    own, rows = exact_model().model, exact_model().frame
    table = pd.DataFrame({name: rows[name].to_list() for name in rows.columns})
    model = TableModel(own.encoding, own.labels, own.proposals, own.flow, table[:0])
    sample = model.sample(5)
    assert isinstance(sample, pd.DataFrame) and (sample.dtypes == table.dtypes).all()
    given = model.sample_given({"group": "a"}, 3)
    assert isinstance(given, pd.DataFrame) and set(given["group"]) == {"a"}
