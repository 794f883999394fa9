"""`kappaflow fit` with a model of zuko, with none, and on a device."""

import json

import pytest
from tests.cli.conftest import SMALL

from kappaflow.runs import pilot as module

FEW = ("--max-epochs", 1, "--quiet")


@pytest.mark.parametrize(
    ("model", "more"),
    [
        ("zuko:maf", ()),
        ("zuko:nsf", ("--bins", 4)),
        ("zuko:realnvp", ("--context", "c")),
    ],
)
def test_a_flow_of_zuko_is_a_model_too(run, table, tmp_path, model, more):
    """It trains, reports, scores, samples and is examined."""
    folder = tmp_path / "run"
    assert run("fit", table, "--out", folder, "--model", model, *SMALL, *more).status == 0
    config = json.loads((folder / "config.json").read_text())["model"]
    assert (config["name"], config["arguments"]["kind"]) == ("zuko_flow", model[5:])
    said = json.loads((folder / "report.json").read_text())["about"]["model"]
    assert ["recipe", model] in said
    assert run("score", folder, table).status == 0
    if not more or model == "zuko:nsf":
        assert run("sample", folder, "-n", 3).status == 0
        assert "condition number" in run("doctor", folder).out


def test_depth_is_not_for_a_continuous_flow(run, table, tmp_path):
    """It is one transform."""
    words = ("--model", "zuko:cnf", "--depth", 2)
    outcome = run("fit", table, "--out", tmp_path / "run", *words)
    assert outcome.status == 2 and "'depth' should be left out for zuko:cnf" in outcome.err


def test_without_a_word_of_the_model_a_pilot_chooses(run, table, tmp_path, monkeypatch):
    """What it chose is said before training starts; --memory leaves the choice open."""
    monkeypatch.setattr(module, "CANDIDATES", (("real_nvp", 1), ("spline", 1)))
    monkeypatch.setattr(module, "ROWS", (500, 1000))
    words = ("fit", table, "--memory", "store", "--max-epochs", 1)
    outcome = run(*words, "--out", tmp_path / "run")
    assert outcome.status == 0
    assert "by a pilot of" in outcome.err
    run_of = json.loads((tmp_path / "run" / "config.json").read_text())
    assert run_of["model"]["arguments"]["memory"] == "store"
    assert "pilot" in run_of["run"]


@pytest.mark.parametrize("more", [("--depth", 1, "--hidden", 8), ("--pilot-s", 0)])
def test_a_word_of_the_model_or_no_time_leaves_real_nvp(run, table, tmp_path, more):
    """Nothing is tried then."""
    folder = tmp_path / "run"
    assert run("fit", table, "--out", folder, *FEW, *more).status == 0
    config = json.loads((folder / "config.json").read_text())
    assert config["model"]["name"] == "real_nvp" and "pilot" not in config["run"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--pilot-s", -1), "'pilot_s' should be 0 or more"),
        (("--device", "tpu"), "'device' should be"),
    ],
)
def test_a_wrong_pilot_or_device_is_refused(run, table, tmp_path, words, said):
    """Before anything is written."""
    outcome = run("fit", table, "--out", tmp_path / "run", *words)
    assert outcome.status == 2 and said in outcome.err
    assert not (tmp_path / "run").exists()
