"""`kappaflow prune`: from a run to a run of a shallower flow."""

import json

import numpy as np
import pytest

import kappaflow as kf
from kappaflow.cli.app import main
from kappaflow.errors import ArgumentError
from kappaflow.runs import ModelConfig, TableConfig, fit_run, prune_run


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished run on a table of three columns, with its data next to it."""
    folder = tmp_path_factory.mktemp("runs")
    x = np.random.default_rng(0).normal(size=(900, 3))
    x[:, 1] += x[:, 0] ** 2
    np.savetxt(folder / "data.csv", x, header="a,b,c", comments="", delimiter=",")
    model = ModelConfig("spline", {"depth": 4, "hidden": (16,)})
    source = TableConfig(str(folder / "data.csv"))
    return fit_run(source, model, folder / "run", progress=False, max_epochs=6).folder


def test_the_new_run_has_a_report_and_says_what_it_costs(run, tmp_path, capsys):
    """The loss on test rows is the difference of the likelihoods in the two results."""
    new = tmp_path / "new"
    assert main(["prune", str(run), "--out", str(new), "--nats", "0.5", "--epochs", "3"]) == 0
    text = capsys.readouterr().out
    pruned = json.loads((new / "pruned.json").read_text())
    assert pruned["layers"] < 4 and len(pruned["removed"]) == 4 - pruned["layers"]
    assert f"4 -> {pruned['layers']}" in text and f"The new run is {new}" in text
    before, after = (json.loads((f / "result.json").read_text())["test"] for f in (run, new))
    assert after["nll"] - before["nll"] == pytest.approx(pruned["test_loss"], abs=1e-4)
    page = (new / "report.html").read_text()
    assert f"without {pruned['removed'][0]}" in page
    assert len(kf.load(new).sample(3)) == 3


def test_json_has_the_same_figures_as_the_file(run, tmp_path, capsys):
    """So a script reads either."""
    new = tmp_path / "new"
    command = ["prune", str(run), "--out", str(new), "--nats", "2", "--epochs", "1", "--json"]
    assert main(command) == 0
    assert json.loads(capsys.readouterr().out) == json.loads((new / "pruned.json").read_text())


def test_nothing_is_written_if_no_layer_can_go(run, tmp_path):
    """Without a training and without a tolerance each layer is needed."""
    done = prune_run(run, tmp_path / "new", nats=1e-9, max_epochs=1, learning_rate=1e-9)
    assert done.folder is None and done.test_loss == 0 and not (tmp_path / "new").exists()
    assert done.to_json()["removed"] == [] and len(done.pruned.trials) == 2


def test_what_cannot_be_pruned_is_refused(run, tmp_path):
    """An existing folder, and a run whose data is gone."""
    with pytest.raises(ArgumentError, match="'out' should be a new folder"):
        prune_run(run, run)
    data = run.parent / "data.csv"
    away = data.rename(tmp_path / "data.csv")
    with pytest.raises(ArgumentError, match="a table in memory whose data has not changed"):
        prune_run(run, tmp_path / "new")
    away.rename(data)
    assert not (tmp_path / "new").exists()
