"""Findings on data: the same on all paths to the doctor, each once."""

import importlib
from collections import Counter

import numpy as np
import pandas as pd
import pytest
import torch

import kappaflow as kf
from kappaflow.estimator import FlowDensity
from kappaflow.runs import ModelConfig, TableConfig, diagnose_run, fit_run

SETTINGS = {"progress": False, "max_epochs": 1}
MODEL = ModelConfig("real_nvp", {"depth": 2, "hidden": (4,)})


@pytest.fixture(autouse=True)
def _without_samples(monkeypatch):
    """Leaves out the comparison of samples with rows, which takes most of a diagnosis."""
    module = importlib.import_module("kappaflow.diagnosis.doctor")
    monkeypatch.setattr(module, "_goodness", lambda *_: (None, "left out"))


@pytest.fixture(scope="module")
def frame():
    """An edge, whole numbers, two values, heavy tails, and a normal column."""
    g = np.random.default_rng(0)
    return pd.DataFrame({
        "edge": 1 + g.exponential(size=2500),
        "count": g.poisson(3, 2500),
        "side": g.integers(0, 2, 2500),
        "tails": g.standard_t(1.5, 2500),
        "plain": g.normal(size=2500),
    })


def fitted(frame, folder, **options):
    """Returns a run on a frame, and its file."""
    frame.to_csv(folder / "t.csv", index=False)
    source = TableConfig(str(folder / "t.csv"), **options)
    return fit_run(source, MODEL, folder / "run", **SETTINGS), folder / "t.csv"


def of_data(findings):
    """Returns severity and columns of each finding on data, by code."""
    found = [finding for finding in findings if finding.code.startswith("KF6")]
    assert max(Counter(finding.message for finding in found).values(), default=1) == 1
    return {(f.code, f.severity, f.evidence.get("columns")) for f in found}


ALL = {
    ("KF603", "note", "count"),
    ("KF603", "warning", "side"),
    ("KF606", "note", "tails"),
    ("KF608", "note", "edge"),
}


def test_each_finding_on_data_is_reported_once_on_each_path(frame, tmp_path):
    """By a fit, by the doctor on the run and on other rows, and in Python."""
    run, path = fitted(frame, tmp_path, repair="keep")
    flow = kf.load(run.folder)
    assert of_data(run.result.findings) == ALL
    assert of_data(diagnose_run(run.folder)[0].findings) == ALL
    assert of_data(diagnose_run(run.folder, str(path))[0].findings) == ALL
    assert of_data(kf.doctor(flow, frame).findings) == ALL
    assert "holds only 0 and 1" in run.result.verdict
    with pytest.warns(kf.errors.DataWarning):
        assert of_data(kf.fit(flow, frame, repair="keep", **SETTINGS).findings) == ALL


def test_bounds_and_noise_that_the_flow_has_are_no_findings(frame, tmp_path):
    """Neither on the rows of the run nor on others."""
    frame = frame[["edge", "count", "plain"]]
    run, path = fitted(frame, tmp_path, repair="dequantize", bounds=["edge=1,"])
    assert of_data(run.result.findings) == set()
    assert of_data(diagnose_run(run.folder)[0].findings) == set()
    assert of_data(diagnose_run(run.folder, str(path))[0].findings) == set()
    flow = kf.load(run.folder)
    assert of_data(kf.doctor(flow, frame).findings) == {("KF603", "note", "count")}
    density = FlowDensity(repair="dequantize", depth=2, hidden=(4,), max_epochs=1)
    counts = np.random.default_rng(0).poisson(0.7, (900, 1))
    with pytest.warns(kf.errors.DataWarning):
        assert of_data(density.fit(counts).diagnose(counts).findings) == set()


def test_an_edge_that_the_flow_keeps_by_itself_is_no_finding():
    """By its base."""
    x = torch.rand(900, 2, generator=torch.Generator().manual_seed(0))
    box = kf.Flow(kf.flows.UniformBox(2, low=0.0, high=1.0), kf.bijections.ElementwiseAffine(2))
    wide = kf.Flow(kf.flows.UniformBox(2, low=-0.1, high=1.0), kf.bijections.ElementwiseAffine(2))
    assert of_data(kf.doctor(box, x).findings) == set()
    assert of_data(kf.doctor(wide, x).findings) == {("KF608", "note", "x0, x1")}
