"""`kappaflow synthetic`: copies and usefulness of samples of a run."""

import json

import numpy as np
import pytest
import torch

import kappaflow as kf
from kappaflow.cli.app import main
from kappaflow.errors import ArgumentError, FileError
from kappaflow.runs import ModelConfig, TableConfig, fit_run, synthetic_run


def fitted(folder, **options):
    """Returns the folder of a run on a table with a rounded column, and the path of the table."""
    x = np.random.default_rng(0).normal(size=(600, 3))
    x[:, 1] += x[:, 0]
    x[:, 2] = np.round(2 * x[:, 2])
    path = folder / "data.csv"
    np.savetxt(path, x, header="a,b,c", comments="", delimiter=",")
    model = ModelConfig("real_nvp", {"depth": 2, "hidden": (8,)})
    source = TableConfig(str(path), **options)
    return fit_run(source, model, folder / "run", progress=False, max_epochs=2).folder


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished run, with its data next to it."""
    return fitted(tmp_path_factory.mktemp("runs"))


def test_a_run_is_compared_with_its_rows(run, capsys):
    """The figures are printed, and written next to the run."""
    assert main(["synthetic", str(run), "--target", "b", "-n", "400", "--seed", "1"]) == 0
    text = capsys.readouterr().out
    stored = json.loads((run / "synthetic.json").read_text())
    assert stored["copies"]["verdict"] in text and stored["usefulness"]["verdict"] in text
    assert stored["copies"]["samples"] == 400 and stored["usefulness"]["test_rows"] == 60
    assert stored["copies"]["held_out_rows"] == 60 and stored["copies"]["train_rows"] == 480
    assert stored["copies"]["p_value"] > 0.01 and stored["usefulness"]["score"] == "R2"


def test_json_is_the_file_and_the_target_may_be_left_out(run, capsys):
    """So a script reads either."""
    assert main(["synthetic", str(run), "--json", "-n", "100"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == json.loads((run / "synthetic.json").read_text())
    assert printed["usefulness"] is None
    assert main(["synthetic", str(run), "-n", "100"]) == 0
    assert "--target COLUMN" in capsys.readouterr().err


def test_a_flow_that_repeats_its_training_rows_is_caught(run, monkeypatch):
    """Its samples are the rows with the noise of rounded values, which are rounded back."""
    from kappaflow.runs.stored import read_run, reload_data

    rows = torch.from_numpy(reload_data(read_run(run)).train.values)
    monkeypatch.setattr("kappaflow.runs.synthetic.samples_of", lambda flow, n, *_: rows[:n])
    result = synthetic_run(run, n=200).copies
    assert result.exact == 1 and result.p_value < 1e-3


def test_samples_of_a_conditional_run_have_contexts_of_validation_rows(tmp_path, monkeypatch):
    """The context joins the samples, and may be the target."""
    from kappaflow.runs import synthetic
    from kappaflow.runs.stored import read_run, reload_data

    seen = []

    def record(samples, *rows, **options):
        seen.append(samples)
        return kf.copies(samples, *rows, **options)

    monkeypatch.setattr(synthetic, "copies", record)
    folder = fitted(tmp_path, context=["c"])
    result = synthetic_run(folder, target="c", n=150)
    validation = reload_data(read_run(folder)).validation
    assert seen[0].all_columns == ("a", "b", "c")
    counts = np.unique(seen[0].context, return_counts=True)
    assert np.isin(counts[0], validation.context).all() and counts[1].sum() == 150
    assert result.copies.p_value > 0.01 and result.usefulness.target == "c"


def test_what_cannot_be_compared_is_refused(run, tmp_path):
    """A wrong target, a run whose data is gone, and a saved model; nothing is written."""
    with pytest.raises(ArgumentError, match="'target' should be one of 'a', 'b', 'c', got 'd'"):
        synthetic_run(run, target="d", n=50)
    with pytest.raises(ArgumentError, match="'n' should be at least 1, got 0"):
        synthetic_run(run, n=0)
    data = run.parent / "data.csv"
    away = data.rename(tmp_path / "data.csv")
    with pytest.raises(FileError, match="there is no file"):
        synthetic_run(run)
    away.rename(data)
    kf.save(kf.real_nvp(2, depth=1), tmp_path / "model")
    with pytest.raises(FileError, match="holds a model but no run"):
        synthetic_run(tmp_path / "model")
