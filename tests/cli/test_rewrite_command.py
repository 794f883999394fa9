"""`kappaflow rewrite`: from a run to a run of the same function on one partition."""

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import polars as pl
import pytest
from tests.cli.test_refusals import refused

import kappaflow as kf
from kappaflow.cli.app import main

WORDS = (
    *("--where", "kind=e", "--against", "kind=o", "--quiet"),
    *("--depth", "3", "--hidden", "8", "--max-epochs", "2", "--partition", "random"),
)


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """A csv of 600 rows: four columns of numbers, one of text."""
    path = tmp_path_factory.mktemp("table") / "data.csv"
    x = np.random.default_rng(0).normal(size=(600, 4))
    lines = [",".join(map(repr, row)) + f",{'eo'[i % 3 == 0]}" for i, row in enumerate(x.tolist())]
    path.write_text("\n".join(["a,b,c,d,kind", *lines]) + "\n")
    return path


@pytest.fixture(scope="module")
def finished(table, tmp_path_factory):
    """A finished run on the table."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    assert main(["fit", str(table), "--out", str(folder), *WORDS]) == 0
    return folder


@pytest.fixture(scope="module")
def rewritten(finished, tmp_path_factory):
    """Returns the folder of the finished run, written again, and what was printed."""
    folder = tmp_path_factory.mktemp("rewritten") / "run"
    message = io.StringIO()
    with contextlib.redirect_stdout(message):
        assert main(["rewrite", str(finished), "--out", str(folder)]) == 0
    return folder, message.getvalue()


def test_rewrite_prints_the_certificate(rewritten):
    """Couplings before and after, each linear map, the differences, and where they are from."""
    folder, message = rewritten
    certificate = json.loads((folder / "certificate.json").read_text())
    assert certificate["compared_on"] == "held-out rows of the run"
    assert f"couplings after                          {certificate['couplings_after']}" in message
    for one in certificate["replaced"]:
        assert one["name"] in message
    assert certificate["differences"]["float64"]["log_prob"] < 1e-10
    assert "log_prob, nats" in message and str(folder) in message


@pytest.mark.slow
def test_a_rewritten_run_is_sampled_scored_examined_and_reported(
    run, rewritten, finished, table, tmp_path
):
    """The same densities and percentiles, and a diagnosis on the same held-out rows."""
    folder, _ = rewritten
    scores = []
    for one in (finished, folder):
        assert run("score", one, table, "--out", tmp_path / f"{one.parent.name}.csv").status == 0
        scores.append(pl.read_csv(tmp_path / f"{one.parent.name}.csv").to_numpy())
    assert np.allclose(*scores, rtol=1e-4, atol=2e-3)
    drawn = [run("sample", one, "-n", 20).out.splitlines() for one in (finished, folder)]
    assert drawn[0][0] == drawn[1][0] == "a,b,c,d"
    numbers = [np.loadtxt(lines, delimiter=",", skiprows=1) for lines in drawn]
    assert np.allclose(*numbers, rtol=1e-3, atol=1e-3)
    assert "held-out rows of the run" in run("doctor", folder).out
    assert run("report", folder).status == 0
    result, old = (json.loads((f / "result.json").read_text()) for f in (folder, finished))
    assert result["test"]["nll"] == pytest.approx(old["test"]["nll"], abs=1e-4)
    (auc,), (old_auc,) = ([one["auc"] for one in r["separations"]] for r in (result, old))
    assert auc == pytest.approx(old_auc, abs=1e-4)


def test_the_report_is_that_of_the_new_flow(rewritten, finished):
    """Its layers are profiled, its title and its facts say what it is."""
    folder, _ = rewritten
    report = json.loads((folder / "report.json").read_text())
    old = json.loads((finished / "report.json").read_text())
    assert report["about"]["title"] == f"{old['about']['title']}, rewritten"
    facts = dict(report["about"]["model"])
    assert facts["rewritten"] == f"from {finished} on the partition half"
    assert facts["layers"] == str(len(report["profile"]["layers"]))
    assert len(report["profile"]["layers"]) > len(old["profile"]["layers"])
    condition = [r["profile"]["condition_number"]["median"][-1] for r in (report, old)]
    assert condition[0] == pytest.approx(condition[1], rel=1e-3)


def test_as_json_it_prints_what_is_in_the_folder(run, finished, tmp_path):
    """The certificate, byte for byte; a partition by name or by size."""
    words = ("--partition", "alternating", "--json")
    outcome = run("rewrite", finished, "--out", tmp_path / "run", *words)
    assert outcome.status == 0
    assert outcome.out == (tmp_path / "run/certificate.json").read_text()


@pytest.mark.slow
def test_a_saved_model_is_compared_on_samples(run, tmp_path):
    """It is no run, and stays none: a model with its certificate."""
    kf.save(kf.real_nvp(4, depth=3, hidden=(4,), partition="random"), tmp_path / "model")
    outcome = run("rewrite", tmp_path / "model", "--out", tmp_path / "new")
    assert outcome.status == 0 and "samples of the flow" in outcome.out
    files = {path.name for path in (tmp_path / "new").iterdir()}
    assert files == {"config.json", "model.safetensors", "certificate.json"}
    assert run("doctor", tmp_path / "new").status == 0


def test_a_run_is_not_given_to_the_training_of_another_model(run, rewritten, table):
    """`fit` would train the old model there, and is refused."""
    folder, _ = rewritten
    refused(run("fit", table, "--out", folder, *WORDS), "should be a new folder")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["no-run", "--out", "new"], "no-run"),
        (["RUN"], "--out"),
        (["RUN", "--out", "there"], "'out' should be a new folder"),
        (["RUN", "--out", "new", "--partition", "3"], "'partition'"),
        (["RUN", "--out", "new", "--partition", "third"], "--partition"),
        (["RUN", "--out", "new", "--couplings", "1"], "'couplings'"),
        (["RUN", "--out", "new", "--seed", "-1"], "'seed'"),
    ],
)
def test_what_cannot_be_rewritten_is_refused_in_one_sentence(
    run, finished, tmp_path, monkeypatch, words, message
):
    """And nothing is written, nor is a file that is there touched."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there").write_text("mine")
    refused(run("rewrite", *(finished if word == "RUN" else word for word in words)), message)
    assert [path.name for path in tmp_path.iterdir()] == ["there"]
    assert (tmp_path / "there").read_text() == "mine"


@pytest.mark.slow
def test_a_rewriting_that_is_killed_leaves_no_run_behind(finished, tmp_path):
    """At whatever moment: either the whole run is there, or none."""
    command = [sys.executable, "-m", "kappaflow", "rewrite", str(finished), "--out"]
    for kill, delay_s in enumerate((0.0, 0.05, 0.2, 0.5)):
        out = tmp_path / f"run{kill}"
        process = subprocess.Popen(
            [*command, str(out)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        deadline = time.monotonic() + 600
        while process.poll() is None and time.monotonic() < deadline:
            if list(tmp_path.glob(f".run{kill}.*")):
                time.sleep(delay_s)
                break
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert not out.exists() or (out / "report.html").exists()
        if delay_s == 0:
            assert not out.exists()
