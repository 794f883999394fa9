"""What a new user does in the first hour, and no other test does: each snippet once failed."""

import copy

import numpy as np
import pandas
import pytest
import scipy.linalg
import torch

import kappaflow as kf
from kappaflow.errors import ArgumentError, DataWarning

FEW = {"max_epochs": 2, "progress": False}


def small(**options):
    """A flow of two features that trains in a moment."""
    return kf.real_nvp(2, depth=2, hidden=(8,), **options)


@pytest.fixture(scope="module")
def rows():
    """Three hundred rows of two correlated columns."""
    x = np.random.default_rng(0).normal(size=(300, 2))
    return x @ [[2.0, 1.0], [0.0, 0.5]] + [10.0, -3.0]


@pytest.mark.boundary
@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda: kf.RealNVP(2), "real_nvp"),
        (lambda: kf.real_nvp(2, layers=4), "depth"),
        (lambda: kf.real_nvp(2, context=1), "context_features"),
        (lambda: kf.spline(2, num_bins=4), "bins"),
    ],
    ids=["class", "layers", "context", "bins"],
)
def test_names_of_other_libraries_lead_to_ours(call, name):
    """One sentence names what is meant."""
    with pytest.raises((ArgumentError, AttributeError), match=f"did you mean '{name}'"):
        call()


def test_a_base_of_ones_own_needs_only_its_contract():
    """What it lacks is named, not found by a traceback."""
    with pytest.raises(ArgumentError, match="should define log_prob"):
        type("Mine", (kf.flows.Base,), {})()


def test_layers_can_be_indexed():
    """From both ends."""
    chain = kf.Chain([kf.bijections.ActNorm(2), kf.bijections.ElementwiseAffine(2)])
    assert isinstance(chain[0], kf.bijections.ActNorm)
    assert isinstance(chain[-1], kf.bijections.ElementwiseAffine)


def test_a_flow_of_zuko_is_trained_in_place(rows):
    """By its own log_prob."""
    zuko = pytest.importorskip("zuko")
    theirs = zuko.flows.MAF(2, transforms=1, hidden_features=(8,))
    before = copy.deepcopy(theirs.state_dict())
    kf.fit(theirs, (rows - rows.mean(0)) / rows.std(0), **FEW)
    assert any(not torch.equal(before[k], v) for k, v in theirs.state_dict().items())


def test_a_frame_goes_in_and_comes_out(rows):
    """A fitted flow knows the names of its columns."""
    frame = pandas.DataFrame(rows, columns=["mass", "spin"])
    flow = kf.fit(small(), frame, **FEW).flow
    assert flow.log_prob(frame[["spin", "mass"]]).shape == (300,)
    assert list(flow.sample(2, as_frame=True).columns) == ["mass", "spin"]
    assert kf.profile(flow, frame[:4]).sigma_max.shape[1] == 4


def test_a_report_repeats_the_warnings_of_the_fit(rows, tmp_path):
    """The page never says that no problem was found where `fit` warned."""
    x = np.column_stack([rows[:, 0], rows[:, 1].round()])
    with pytest.warns(DataWarning):
        result = kf.fit(small(), x, repair="keep", **FEW)
    page = result.report(tmp_path / "report.html").read_text("utf-8")
    assert "whole numbers" in page
    assert "rows that the training never used" not in page


@pytest.mark.slow
def test_a_flow_in_float64_becomes_onnx(tmp_path):
    """All constants are written in float64."""
    pytest.importorskip("onnxruntime")
    done = kf.export(small().double(), tmp_path / "flow", format="onnx")
    assert "log_prob" in done.functions


def test_an_ill_conditioned_matrix_ends_in_a_factorization_or_a_sentence():
    """Not in an IndexError."""
    try:
        result = kf.factor_linear(scipy.linalg.hilbert(10), couplings=6, max_time_s=0)
    except kf.KappaflowError:
        return
    assert not result.is_exact
