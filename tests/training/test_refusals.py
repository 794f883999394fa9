"""What `fit` refuses before it trains, each in one sentence."""

import math
from functools import partial

import numpy as np
import pytest
import torch
from tests.training.examples import Theirs, digits, gaussian, small, small_glow
from torch import nn, optim
from torch.optim.lr_scheduler import OneCycleLR, StepLR
from torch.utils.data import DataLoader, TensorDataset

import kappaflow as kf
from kappaflow.errors import ArgumentError, DataError

X = gaussian(100)[0]
ONE_CYCLE = partial(OneCycleLR, max_lr=0.1, total_steps=4)
PLANE, CONTEXT = X[:, 1:], X[:, :1]
DEPENDENT = np.column_stack([X, X[:, 0] - 2 * X[:, 1]])
MISSING = X.clone()
MISSING[4, 1] = math.nan
OUTSIDE = torch.rand(100, 2) + 0.5
OUTSIDE[6, 1] = -3.0
ROUNDED = np.random.default_rng(0).random((200, 2)) * 0.9 + 0.05
ROUNDED[3, 0] = 1 - 1e-12


def frozen():
    """Returns a flow with nothing to train."""
    return small().requires_grad_(requires_grad=False)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"max_epochs": 0}, "'max_epochs'"),
        ({"max_epochs": 2.5}, "'max_epochs'"),
        ({"learning_rate": -1.0}, "'learning_rate'"),
        ({"learning_rate": math.nan}, "'learning_rate'"),
        (
            {"batch_sise": 3},
            "'batch_sise' is not a setting of a training: did you mean 'batch_size'",
        ),
        ({"lr": 0.1}, "did you mean 'learning_rate'"),
        ({"epochs": 3}, "did you mean 'max_epochs'"),
        ({"val_data": None}, "did you mean 'validation'"),
        ({"optim": None}, "did you mean 'optimizer'"),
        ({"repair": "magic"}, "'?repair'?"),
        ({"callbacks": [print]}, "'callbacks' should hold"),
        ({"condition_budget": 1}, "'condition_budget' should be"),
        ({"condition_budget": math.inf}, "'condition_budget' should be"),
        ({"condition_budget": "many"}, "'condition_budget' should be"),
        ({"device": "gpu"}, "'device' should be \"cpu\" or \"cuda\", got 'gpu'"),
        ({"device": 3.5}, "'device' should be"),
        ({"device": "cuda:7"}, "'device' should exist on this machine, got cuda:7"),
        ({"optimizer": optim.SGD([torch.zeros(1)])}, "a function such as functools.partial.* SGD"),
        ({"optimizer": "adam"}, "'optimizer' should be a function such as .* got str"),
        ({"optimizer": lambda: None}, "this one fails: .* takes 0 positional"),
        ({"optimizer": lambda _: None}, "'optimizer' should return one of torch.optim"),
        ({"optimizer": optim.LBFGS}, "steps without a closure, got LBFGS"),
        (
            {"optimizer": lambda _: optim.SGD([torch.zeros(1, requires_grad=True)])},
            "should hold trainable parameters of the flow, and no others",
        ),
        ({"optimizer": optim.SGD, "learning_rate": 0.1}, "'learning_rate' should be left out"),
        ({"scheduler": StepLR}, "'scheduler' should be .* this one fails: .*step_size"),
        ({"scheduler": lambda _: 3}, "'scheduler' should return one of torch.optim"),
        ({"scheduler": ONE_CYCLE, "max_epochs": 5}, "'scheduler' should last for the whole train"),
        ({"scheduler": ONE_CYCLE, "warmup": 0.1}, "'warmup' should be left out: the 'scheduler'"),
    ],
)
@pytest.mark.boundary
def test_wrong_options_are_refused_by_name(options, sentence):
    with pytest.raises(ArgumentError, match=sentence):
        kf.fit(small(), X, progress=False, **options)


@pytest.mark.parametrize(
    ("make", "data", "options", "sentence"),
    [
        (lambda: small(4), X, {}, "4 columns"),
        (lambda: small(context_features=1), X, {}, "1 context columns"),
        (lambda: nn.Linear(3, 3), X, {}, "should be a Flow, a flow of zuko, .* Linear"),
        (lambda: small().bfloat16(), X, {}, "float32 or float64"),
        (lambda: small().double(), X, {"precision": "fp16"}, 'precision="fp16", got torch.float6'),
        (frozen, X, {}, "trainable parameters"),
        (Theirs, "digits", {}, "should be a table in memory for a flow of another"),
        (lambda: small(4), DEPENDENT, {}, "x3"),
        (small, X, {"validation": MISSING}, r"'x1' has a missing value \(NaN\) at row 5"),
        (lambda: small(2), OUTSIDE, {"bounds": {1: "positive"}}, "'x1' .* row 7 has -3"),
        (lambda: small(2, bounds=[None, "positive"]), OUTSIDE, {}, "row 7 has -3"),
        (
            lambda: small(2, bounds=[None, "positive"]),
            OUTSIDE.abs(),
            {"validation": OUTSIDE},
            "row 7 has -3",
        ),
        (lambda: small(2), ROUNDED, {"bounds": {0: (0, 1)}}, "float32 rounds 1 of its values to"),
        (
            lambda: small(2, context_features=1),
            (PLANE, CONTEXT),
            {"bounds": {"context_x0": "positive"}},
            "'context_x0' is one of the context",
        ),
        (small, TensorDataset(X, X, X), {}, r"items x or \(x, context\), got a tuple of 3"),
        (small, TensorDataset(X[:0]), {}, "'data' should hold rows, this TensorDataset has none"),
        (small, DataLoader([{"x": 1.0}] * 9), {}, "tensors or numbers, got a dict"),
        (lambda: small_glow(values=16), digits(20), {}, "has pixels of 17 values, the flow expe"),
        (lambda: kf.glow((1, 4, 4), levels=1), digits(20), {}, r"images of shape \(1, 4, 4\)"),
        (lambda: small(64), "digits", {}, "'flow' should be a flow for images"),
        (lambda: small_glow(context_features=3), digits(20), {}, "should have 3 classes"),
        (small_glow, digits(20), {"condition_budget": 100.0}, "left out for images"),
    ],
)
@pytest.mark.boundary
def test_data_that_does_not_fit_a_flow_is_refused(make, data, options, sentence):
    with pytest.raises((ArgumentError, DataError), match=sentence):
        kf.fit(make(), data, max_epochs=1, progress=False, **options)


def test_nothing_is_left_of_a_refused_training(tmp_path):
    """Neither a folder nor a fitted standardization."""
    flow = small()
    with pytest.raises(DataError):
        kf.fit(flow, X, validation=MISSING, out=tmp_path / "run")
    assert not (tmp_path / "run").exists() and not flow.bijection.bijections[0].fitted


@pytest.mark.boundary
def test_a_context_that_a_flow_does_not_expect_is_refused_in_a_sentence():
    """Not by the error of a matrix product in the library."""
    zuko = pytest.importorskip("zuko")
    for context_features, data in ((1, PLANE), (0, (PLANE, CONTEXT))):
        flow = zuko.flows.MAF(2, context=context_features, transforms=1)
        with pytest.raises(ArgumentError, match=r"pass x, or \(x, context\)"):
            kf.fit(flow, data, max_epochs=1, progress=False)


def test_a_flow_that_is_fitted_takes_no_bounds():
    flow = kf.fit(small(2), PLANE, max_epochs=1, progress=False).flow
    with pytest.raises(ArgumentError, match="before a flow is fitted"):
        kf.fit(flow, PLANE.abs(), bounds={0: "positive"})


def test_a_run_folder_of_something_else_is_refused_by_name(tmp_path):
    """The sentence says what differs: a setting, the flow, its optimizer, or the rows."""
    out, options = tmp_path / "run", {"max_epochs": 1, "progress": False}
    kf.fit(small(), X, out=out, **options)
    for flow, data, more, difference in (
        (small(), X, {"max_epochs": 2}, "max_epochs 1, not 2"),
        (small(), X, {"condition_budget": 9.0}, "condition_budget null, not 9.0"),
        (small(), X, {"optimizer": optim.Adam}, "optimizer class null"),
        (small(), X, {"scheduler": ONE_CYCLE}, "optimizer class null"),
        (small(depth=6), X, {}, "depth 4, not 6"),
        (small(bounds=[None, (-99, 99), None]), X, {}, "bounds"),
        (small(), X + 1, {}, "other train rows"),
    ):
        with pytest.raises(ArgumentError, match=f"'out' should be a new folder.*{difference}"):
            kf.fit(flow, data, out=out, **options | more)
