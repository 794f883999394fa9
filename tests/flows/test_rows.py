"""Rows in every form that `fit` accepts, names of columns, and samples as data frames."""

import numpy as np
import pandas
import polars
import pytest
import torch

import kappaflow as kf
from kappaflow.errors import ArgumentError, DataWarning
from kappaflow.estimator import ConditionalFlowDensity

NAMES = ("mass", "spin")
FEW = {"max_epochs": 1, "progress": False}


@pytest.fixture(scope="module")
def rows():
    """Ninety rows of two columns and of one context, in float64."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(90, 3, generator=generator, dtype=torch.float64).numpy() + [5, 0, 1]


@pytest.fixture(scope="module")
def frame(rows):
    """The rows as a frame that also has text and names in another order."""
    columns = {"spin": rows[:, 1], "name": ["a"] * 90, "age": rows[:, 2], "mass": rows[:, 0]}
    return pandas.DataFrame(columns)


@pytest.fixture(scope="module")
def fitted(frame):
    """A flow fitted to the named columns of a frame with a named context."""
    flow = kf.real_nvp(2, depth=2, hidden=(4,), context_features=1)
    return kf.fit(flow, (frame[["mass", "spin"]], frame[["age"]]), **FEW).flow


def test_all_kinds_of_rows_have_the_same_log_prob(rows):
    """Tensors and arrays of any number type, frames and tables."""
    flow = kf.real_nvp(2, depth=2, hidden=(4,))
    x = torch.tensor(rows[:, :2], dtype=torch.float32)
    expected = flow.log_prob(x)
    for kind in (
        x.double(),
        rows[:, :2],
        rows[:, :2].astype(np.float32),
        pandas.DataFrame(rows[:, :2], columns=["a", "b"]),
        polars.DataFrame({"a": rows[:, 0], "b": rows[:, 1]}),
        kf.load_table(rows[:, :2]),
    ):
        assert torch.equal(flow.log_prob(kind), expected)
    integers = torch.arange(4).reshape(2, 2)
    assert torch.equal(flow.log_prob(integers), flow.log_prob(integers.float()))
    assert flow.log_prob(rows[:6, :2].reshape(2, 3, 2)).shape == (2, 3)


@pytest.mark.parametrize("kind", [torch.tensor, np.array])
def test_rows_of_true_and_false_are_refused(kind, fitted):
    """A density of bools is a slip, such as a mask in place of the rows."""
    with pytest.raises(ArgumentError, match="should hold numbers, got torch.bool: call x.float"):
        fitted.log_prob(kind([[True, False]]), torch.zeros(1, 1))


@pytest.mark.parametrize(
    ("x", "age", "note"),
    [
        ([[1.0, np.nan], [2.0, 1.0]], [[1.0]], "1 of 2 rows hold NaN, and their log_prob is NaN"),
        ([[1.0, 2.0]], [[np.nan]], "1 of 1 rows hold NaN, and their log_prob is NaN"),
        (
            [[1e300, 1.0], [np.nan, 1e300], [1.0, 1.0]],
            [[1.0]],
            "1 of 3 rows hold NaN, and their log_prob is NaN; 1 of 3 rows hold a number that is "
            "infinite in float32, and their log_prob is NaN or -inf",
        ),
    ],
)
def test_rows_that_are_not_finite_are_counted(fitted, x, age, note):
    """Once for each call, also of several rows."""
    with pytest.warns(DataWarning) as caught:
        log_prob = fitted.log_prob(np.array(x), np.array(age))
    assert [str(warning.message) for warning in caught] == [note]
    assert log_prob.isnan()[np.isnan(x).any(1) | np.isnan(age).any(1)].all()


def test_a_loss_of_rows_that_are_not_finite_does_not_warn():
    """A training has an error of its own, and no time to look at each batch."""
    flow = kf.real_nvp(2, depth=2, hidden=(4,)).train()
    assert flow.log_prob(torch.tensor([[np.nan, 1.0]])).isnan().all()


def test_gradients_reach_rows_of_another_dtype():
    """The conversion is a part of the graph."""
    x = torch.zeros(1, 2, dtype=torch.float64, requires_grad=True)
    kf.real_nvp(2, depth=2, hidden=(4,)).log_prob(x + 1).sum().backward()
    assert torch.equal(x.grad, torch.tensor([[-1.0, -1.0]], dtype=torch.float64))


def test_a_fitted_flow_selects_columns_by_name(fitted, frame, rows):
    """Other columns and their order do not matter, and the context is in the same frame."""
    assert (fitted.columns, fitted.context_columns) == (NAMES, ("age",))
    x, context = torch.tensor(rows[:, :2]).float(), torch.tensor(rows[:, 2:]).float()
    expected = fitted.log_prob(x, context)
    for source, other in (
        (frame, None),
        (polars.DataFrame(frame.to_dict("list")), None),
        (frame[["spin", "mass"]], frame),
        (x, frame),
        (frame, context),
    ):
        assert torch.equal(fitted.log_prob(source, other), expected)
    with pytest.raises(
        kf.errors.ArgumentError,
        match="'x' should have the columns of the flow, mass, spin; the data frame has no numbers "
        "named mass",
    ):
        fitted.log_prob(frame.drop(columns="mass"))
    with pytest.raises(kf.errors.ArgumentError, match="with 1 column: age: this flow"):
        fitted.log_prob(frame.drop(columns="age"))
    assert torch.equal(
        kf.profile(fitted, frame).sigma_max, kf.profile(fitted, x, context=context).sigma_max
    )


def test_names_stay_with_a_flow(fitted, frame, tmp_path):
    """Through `save` and `load`, a run folder, a rewrite; an array has none."""
    kf.save(fitted, tmp_path / "model")
    kf.fit(
        kf.real_nvp(2, depth=2, hidden=(4,)), frame[["mass", "spin"]], out=tmp_path / "run", **FEW
    )
    for flow in (kf.load(tmp_path / "model"), kf.load(tmp_path / "run"), kf.fuse(fitted)):
        assert flow.columns == NAMES
    assert kf.load(tmp_path / "model").context_columns == ("age",)
    unnamed = kf.real_nvp(2, depth=2, hidden=(4,))
    assert kf.fit(unnamed, np.random.default_rng(0).normal(size=(90, 2)), **FEW).flow.columns == ()


def test_samples_come_as_frames(fitted, frame, rows):
    """A row for each sample and context, with their names; the library can be chosen."""
    generator = torch.Generator().manual_seed(1)
    samples = fitted.sample(2, frame[:3], generator=generator)
    named = fitted.sample(2, frame[:3], as_frame=True, generator=generator.manual_seed(1))
    assert isinstance(named, pandas.DataFrame)
    assert list(named.columns) == [*NAMES, "age"]
    np.testing.assert_array_equal(named[[*NAMES]].to_numpy(), samples.reshape(6, 2).numpy())
    np.testing.assert_array_equal(named["age"], np.tile(rows[:3, 2].astype(np.float32), 2))
    assert isinstance(fitted.sample(1, frame[:3], as_frame="polars"), polars.DataFrame)
    assert list(kf.real_nvp(2, depth=1).sample(3, as_frame=True).columns) == ["x0", "x1"]


@pytest.mark.boundary
def test_samples_of_images_and_unknown_libraries_are_refused(fitted, frame):
    """One sentence each."""
    for flow, kind, message in (
        (kf.glow((1, 4, 4), levels=1, steps=1, hidden=4), True, "False for a flow of images"),
        (kf.real_nvp(2, depth=1), "dask", "'as_frame' should be one of True, 'pandas', 'polars'"),
    ):
        with pytest.raises(kf.errors.ArgumentError, match=message):
            flow.sample(2, as_frame=kind)


def test_the_doctor_names_rows_by_index_or_from_0_and_columns_by_name(frame):
    """Also for a flow that was not fitted, and has no names."""
    labeled = frame[["mass", "spin"]].set_axis([f"r{i}" for i in range(90)])
    labeled.iloc[20:60, 1] = 0.25
    for data, column, row in (
        (labeled, "spin", "index values 'r20'"),
        (labeled.to_numpy(), "x1", "rows 20"),
    ):
        findings = kf.doctor(kf.real_nvp(2, depth=2, hidden=(4,)), data).findings
        (message,) = (finding.message for finding in findings if finding.code == "KF603")
        expected = f"Column '{column}' holds the value 0.25 in 40 of 90 rows ({row}, "
        assert message.startswith(expected), message


@pytest.mark.boundary
def test_rows_that_belong_together_are_in_one_order(frame):
    """Rows are paired by position, so the same labels in another order are a mistake."""
    x, other = frame[["mass", "spin"]], frame["age"].sort_values()
    for data, weights in ((x, other.abs()), ((x, other.to_frame()), None)):
        flow = kf.real_nvp(2, depth=1, hidden=(4,), context_features=int(weights is None))
        with pytest.raises(kf.errors.ArgumentError, match="in another order"):
            kf.fit(flow, data, weights=weights, **FEW)
    with pytest.raises(ValueError, match="'y' should have its rows in the order of the data"):
        ConditionalFlowDensity(max_epochs=1).fit(x, other)
