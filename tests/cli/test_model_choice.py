"""`kappaflow fit` with a model of zuko, with none, and on a device."""

import json

import pytest
from tests.cli.conftest import SMALL

from kappaflow.runs import model_search as module

FEW = ("--max-epochs", 1, "--quiet")


@pytest.mark.parametrize(
    ("model", "more"),
    [
        pytest.param("zuko:maf", (), marks=pytest.mark.slow),
        pytest.param("zuko:nsf", ("--bins", 4), marks=pytest.mark.slow),
        ("zuko:realnvp", ("--context", "c")),
    ],
)
def test_a_flow_of_zuko_is_a_model_too(run, table, tmp_path, model, more):
    """It trains, reports, scores, samples and is examined."""
    folder = tmp_path / "run"
    assert run("fit", table, "--out", folder, "--model", model, *SMALL, *more).status == 0
    config = json.loads((folder / "config.json").read_text())["model"]
    assert (config["name"], config["arguments"]["kind"]) == ("zuko_flow", model[5:])
    message = json.loads((folder / "report.json").read_text())["about"]["model"]
    assert ["recipe", model] in message
    assert run("score", folder, table).status == 0
    if not more or model == "zuko:nsf":
        assert run("sample", folder, "-n", 3).status == 0
        assert "condition number" in run("doctor", folder).out


def test_depth_is_not_for_a_continuous_flow(run, table, tmp_path):
    """It is one transform."""
    words = ("--model", "zuko:cnf", "--depth", 2)
    outcome = run("fit", table, "--out", tmp_path / "run", *words)
    assert outcome.status == 2 and "'depth' should be left out for zuko:cnf" in outcome.err


@pytest.mark.slow
def test_without_an_option_of_the_model_it_is_searched(run, table, tmp_path, monkeypatch):
    """The choice is printed before training starts; --memory leaves it open."""
    tiny = {"hidden": (8,), "partition": "half", "start": "identity", "dropout": 0.0}
    entrants = [("real_nvp", {"depth": 1, **tiny}), ("spline", {"depth": 1, **tiny})]
    monkeypatch.setattr(
        module,
        "candidates",
        lambda table, search, **more: [
            (name, own | search.arguments, 5e-3) for name, own in entrants
        ],
    )
    words = ("fit", table, "--memory", "store", "--max-epochs", 48, "--batch-size", 64)
    outcome = run(*words, "--out", tmp_path / "run")
    assert outcome.status == 0
    assert "chose 1 " in outcome.err and "after a search of" in outcome.err
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["model"]["arguments"]["memory"] == "store"
    assert len(config["run"]["model_search"]["trials"]) == 2


@pytest.mark.slow
def test_without_search_time_the_first_candidate_is_taken(run, table, tmp_path):
    """The message says why nothing was compared."""
    outcome = run("fit", table, "--out", tmp_path / "run", "--max-epochs", 1, "--search-time", 0)
    assert outcome.status == 0 and "model: spline, without a search" in outcome.err


@pytest.mark.slow
def test_an_option_of_the_model_gives_real_nvp(run, table, tmp_path):
    """Nothing is searched then."""
    folder, more = tmp_path / "run", ("--depth", 1, "--hidden", 8)
    assert run("fit", table, "--out", folder, *FEW, *more).status == 0
    config = json.loads((folder / "config.json").read_text())
    assert config["model"]["name"] == "real_nvp" and "model_search" not in config["run"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--search-time", -1), "'search_time' should be 0 or more"),
        (("--device", "tpu"), "'device' should be"),
    ],
)
def test_a_wrong_search_time_or_device_is_refused(run, table, tmp_path, words, message):
    """Before anything is written."""
    outcome = run("fit", table, "--out", tmp_path / "run", *words)
    assert outcome.status == 2 and message in outcome.err
    assert not (tmp_path / "run").exists()
