"""Every model is fitted by the command, with its options, and its run is used as any other."""

import numpy as np
import polars as pl
import pytest
from tests.cli.conftest import SMALL, read

import kappaflow as kf
from kappaflow.runs import model_search
from kappaflow.runs.candidate import Candidate

FEW = ("--depth", 2, "--max-epochs", 2, "--quiet")
SPLINE = ("--model", "spline", "--bins", 4, "--tail-bound", 3, *SMALL)
MODELS = {  # options, and arguments in the description of the model
    "start": (("--start", "whiten", "--model", "nice", *SMALL), {"start": "whiten"}),
    "planar": (("--model", "planar", *FEW), {"depth": 2}),
    "radial": (("--model", "radial", *FEW), {"depth": 2}),
    "svd": (
        ("--model", "invertible_network", "--condition-number", 3, "--smoothing", 0.5, *FEW),
        {"condition_number": 3, "smoothing": 0.5},
    ),
    "plain": (
        ("--model", "invertible_network", "--linear", "plain", "--negative-slope", 0.5, *FEW),
        {"linear": "plain", "negative_slope": 0.5},
    ),
    "mixing": (
        ("--mixing", "svd", "--condition-bound", 3, *SMALL),
        {"mixing": "svd", "condition_bound": 3.0, "partition": "half"},
    ),
    "spline": ((*SPLINE, "--mixing", "lu", "--memory", "invert"), {"bins": 4, "bound": 3.0}),
    "autoregressive": (("--model", "autoregressive", "--bins", 4, *SMALL), {"bins": 4}),
    "given": ((*SPLINE, "--context", "c"), {"context_features": 1}),
    "maf": (("--model", "zuko:maf", *SMALL), {"kind": "maf"}),
    "nsf": (("--model", "zuko:nsf", "--bins", 4, *SMALL), {"kind": "nsf"}),
    "realnvp": (("--model", "zuko:realnvp", "--context", "c", *SMALL), {"kind": "realnvp"}),
    "padding": (("--padding", 1, *SMALL), {"padding": 1}),
    "defaults": (
        ("--hidden", 8, "--max-epochs", 1, "--quiet"),
        {"depth": 16, "partition": "random-half"},
    ),
}
QUICK = ("spline", "realnvp")


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[] if n in QUICK else pytest.mark.slow) for n in MODELS]
)
def test_a_model_is_fitted_with_its_options_and_its_run_is_used(run, table, tmp_path, name):
    """The model file has the options; scores, samples, diagnosis and rewriting work."""
    options, expected = MODELS[name]
    folder = tmp_path / "run"
    outcome = run("fit", table, "--out", folder, *options)
    assert outcome.status == 0 and "Held-out NLL" in outcome.out, outcome.err
    config = read(folder, "config.json")
    assert expected.items() <= config["model"]["arguments"].items()
    assert config["run"]["training"]["learning_rate"] == 5e-3
    assert run("score", folder, table, "--out", tmp_path / "old.csv").status == 0
    assert run("doctor", folder).status == 0
    sampled = run("sample", folder, "-n", 3)
    assert sampled.status == (2 if "--context" in options else 0)
    if name in ("mixing", "spline"):
        rewritten = run("rewrite", folder, "--out", tmp_path / "new")
        assert rewritten.status == 0, rewritten.err
        certificate = read(tmp_path / "new", "certificate.json")
        assert len(certificate["replaced"]) == 2
        assert run("score", tmp_path / "new", table, "--out", tmp_path / "new.csv").status == 0
        old, new = (pl.read_csv(tmp_path / file)["log_prob"] for file in ("old.csv", "new.csv"))
        np.testing.assert_allclose(old, new, rtol=1e-4, atol=2e-3)


@pytest.mark.slow
def test_only_a_coupling_of_one_column_is_a_gaussian(run, table, tmp_path):
    """Padding gives it something to read and two features to whiten; a planar flow bends."""
    words = ("fit", table, "--columns", "b", "--max-epochs", 1, "--depth", 1, "--out")
    for i, (more, expected) in enumerate((
        (("--hidden", 8), True),
        (("--padding", 1, "--start", "whiten"), False),
        (("--model", "planar"), False),
    )):
        outcome = run(*words, tmp_path / str(i), *more)
        assert outcome.status == 0 and ("the flow is a Gaussian" in outcome.err) == expected


@pytest.mark.slow
def test_without_an_option_of_the_model_it_is_searched(run, table, tmp_path, monkeypatch):
    """The choice is printed before training starts; --memory leaves it open."""
    tiny = {"hidden": (8,), "partition": "half", "start": "identity", "dropout": 0.0}
    entrants = [("real_nvp", {"depth": 1, **tiny}), ("spline", {"depth": 1, **tiny})]
    monkeypatch.setattr(
        model_search,
        "candidates_of",
        lambda table, search, **more: [
            Candidate(name, own | search.arguments, 5e-3) for name, own in entrants
        ],
    )
    words = ("fit", table, "--memory", "store", "--max-epochs", 48, "--batch-size", 64)
    outcome = run(*words, "--out", tmp_path / "run")
    assert outcome.status == 0
    assert "chose 1 " in outcome.err and "after a search of" in outcome.err
    config = read(tmp_path / "run", "config.json")
    assert config["model"]["arguments"]["memory"] == "store"
    assert len(config["run"]["model_search"]["trials"]) == 2
    outcome = run("fit", table, "--out", tmp_path / "b", "--max-epochs", 1, "--search-time", 0)
    assert outcome.status == 0 and "model: real_nvp, without a search" in outcome.err


@pytest.mark.slow
def test_tensorboard_gets_the_figures_of_a_command(run, table, tmp_path):
    pytest.importorskip("tensorboard")
    board = tmp_path / "board"
    assert run("fit", table, "--out", tmp_path / "run", *SMALL, "--tensorboard", board).status == 0
    assert [path.name.startswith("events.") for path in board.iterdir()] == [True]
    assert kf.load(tmp_path / "run").event_shape == (3,)
