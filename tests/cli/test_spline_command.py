"""`kappaflow fit --model spline` and what is done with its run."""

import json

import pytest
from tests.cli.conftest import SMALL

import kappaflow as kf

WORDS = ("--model", "spline", "--bins", 4, "--tail-bound", 3, *SMALL)


@pytest.mark.parametrize(
    "more",
    [
        ("--context", "c"),
        ("--mixing", "lu", "--memory", "invert"),
        pytest.param(("--padding", 1), marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_splines_are_a_model_too(run, table, tmp_path, more):
    """They train, report, score and sample, and the configuration has what was asked for."""
    folder = tmp_path / "run"
    outcome = run("fit", table, "--out", folder, *WORDS, *more)
    assert outcome.status == 0
    arguments = json.loads((folder / "config.json").read_text())["model"]["arguments"]
    assert (arguments["bins"], arguments["bound"], arguments["depth"]) == (4, 3.0, 2)
    message = json.loads((folder / "report.json").read_text())["about"]["model"]
    assert ["recipe", "spline"] in message and ["bins", "4"] in message
    couplings = [
        p for p in kf.load(folder).modules() if isinstance(p, kf.bijections.SplineCoupling)
    ]
    assert len(couplings) == 2 and "bins=4, bound=3" in repr(couplings[0])
    assert run("score", folder, table).status == 0
    assert json.loads((folder / "diagnosis.json").read_text())["ok"] is True
    if "--context" not in more:
        assert run("sample", folder, "-n", 3).status == 0
    if "--padding" not in more:
        assert run("doctor", folder).status == 0


@pytest.mark.slow
def test_a_rewritten_run_keeps_its_splines(run, table, tmp_path):
    """They are left as they are, and reported so; the permutations become couplings."""
    folder = tmp_path / "run"
    assert run("fit", table, "--out", folder, *WORDS, "--partition", "random").status == 0
    done = run("rewrite", folder, "--out", tmp_path / "rewritten")
    assert done.status == 0 and "SplineCoupling" in done.out
    scores = [run("score", one, table).out for one in (folder, tmp_path / "rewritten")]
    values = [[float(line.split(",")[0]) for line in text.splitlines()[1:]] for text in scores]
    assert values[0] == pytest.approx(values[1], abs=1e-3)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--bins", 1), "'bins' should be at least 2, got 1: one bin is the identity"),
        (("--tail-bound", 0), "'bound'"),
        (("--scale-bound", 3), "'scale_bound' should be left out for spline"),
        (("--linear", "svd"), "'linear' should be left out for spline"),
        (("--model", "nice", "--bins", 4), "'bins' should be left out for nice"),
        (("--model", "nice", "--tail-bound", 4), "--tail-bound is an option of spline"),
    ],
)
def test_what_does_not_fit_is_refused(run, table, tmp_path, words, message):
    """In one sentence, before anything is written."""
    words = words if "--model" in words else ("--model", "spline", *words)
    refused = run("fit", table, "--out", tmp_path / "run", *words, *SMALL)
    assert refused.status == 2 and message in refused.err and not (tmp_path / "run").exists()
