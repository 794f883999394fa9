"""`kappaflow rewrite`: from a run to a run of the same function on one partition."""

import contextlib
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

import kappaflow as kf
from kappaflow.cli.app import main
from kappaflow.errors import ArgumentError, FileError
from kappaflow.runs import ModelConfig, TableConfig, diagnose_run, fit_run, rewrite_run, score_run
from kappaflow.runs import evaluate as module

MODEL = ModelConfig("real_nvp", {"depth": 3, "hidden": (8,), "partition": "random"})


def trained(folder, **source):
    """Returns a finished run of two epochs on a table of five columns, one of text."""
    x = np.random.default_rng(0).normal(size=(600, 4))
    lines = [",".join(map(repr, row)) + f",{'eo'[i % 3 == 0]}" for i, row in enumerate(x.tolist())]
    (folder / "data.csv").write_text("\n".join(["a,b,c,d,kind", *lines]) + "\n")
    data = TableConfig(str(folder / "data.csv"), **source)
    return fit_run(data, MODEL, folder / "run", progress=False, max_epochs=2).folder


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished run, with its data next to it."""
    source = {"where": ["kind=e"], "against": "kind=o"}
    return trained(tmp_path_factory.mktemp("runs"), **source)


@pytest.fixture
def copy(run, tmp_path):
    """A copy of the run that may be changed."""
    return Path(shutil.copytree(run, tmp_path / "copy"))


@pytest.fixture
def data_away(run):
    """Moves the data of the run away while a test runs, and returns the file."""
    data = run.parent / "data.csv"
    other = data.rename(data.with_name("other.csv"))
    yield other
    other.rename(data)


@pytest.fixture(scope="module")
def rewritten(run, tmp_path_factory):
    """Returns the folder of the rewritten run, and what the command printed."""
    folder, text = tmp_path_factory.mktemp("rewritten") / "run", io.StringIO()
    with contextlib.redirect_stdout(text):
        assert main(["rewrite", str(run), "--out", str(folder)]) == 0
    return folder, text.getvalue()


def read(path):
    """Returns what a JSON file holds."""
    return json.loads(path.read_text())


def test_rewrite_prints_the_certificate(rewritten, run, tmp_path, capsys):
    """Couplings before and after, each linear map, the differences; or the file as JSON."""
    folder, text = rewritten
    certificate = read(folder / "certificate.json")
    assert certificate["compared_on"] == "held-out rows of the run"
    assert certificate["points"] == read(run / "result.json")["test"]["rows"]
    assert re.search(rf"couplings after +{certificate['couplings_after']}\n", text)
    assert f"{len(certificate['replaced'])}, as " in text
    assert certificate["differences"]["float64"]["log_prob"] < 1e-10
    assert "log_prob " in text and str(folder) in text
    model, new = tmp_path / "model", tmp_path / "new"
    kf.save(kf.load(run), model)  # has no report to draw
    words = ["rewrite", str(model), "--out", str(new), "--partition", "alternating", "--json"]
    assert main(words) == 0
    assert capsys.readouterr().out == (new / "certificate.json").read_text()


def test_the_report_is_that_of_the_new_flow(rewritten, run):
    """Its layers are profiled, its title and its facts name the change."""
    folder, _ = rewritten
    report, old = (read(home / "report.json") for home in (folder, run))
    assert report["about"]["title"] == f"{old['about']['title']}, rewritten"
    facts = dict(report["about"]["model"])
    assert facts["rewritten"] == f"from {run} on the partition half"
    layers = report["profile"]["layers"]
    assert facts["layers"] == str(len(layers)) and len(layers) > len(old["profile"]["layers"])
    condition = [r["profile"]["condition_number"]["median"][-1] for r in (report, old)]
    assert condition[0] == pytest.approx(condition[1], rel=1e-3)
    for path in (("test", "nll"), ("separations", 0, "auc")):
        values = [report["result"], old["result"]]
        for key in path:
            values = [value[key] for value in values]
        assert values[0] == pytest.approx(values[1], abs=1e-4)


def test_a_rewritten_run_is_used_as_any_other(rewritten, run, capsys):
    """The same densities, samples and held-out rows; `fit` does not train on in it."""
    folder, _ = rewritten
    data = str(run.parent / "data.csv")
    scores = [score_run(home, data) for home in (run, folder)]
    for name in ("log_prob", "percentile"):
        np.testing.assert_allclose(scores[0][name], scores[1][name], rtol=1e-4, atol=2e-3)
    samples = [
        kf.load(home).sample(20, generator=torch.Generator().manual_seed(0))
        for home in (run, folder)
    ]
    torch.testing.assert_close(*samples, rtol=1e-3, atol=1e-3)
    assert diagnose_run(folder)[1] == "held-out rows of the run"
    assert main(["report", str(folder)]) == 0
    words = ["--where", "kind=e", "--against", "kind=o", "--max-epochs", "2", "--quiet"]
    model = ["--depth", "3", "--hidden", "8", "--partition", "random"]
    assert main(["fit", data, "--out", str(folder), *words, *model]) == 2
    assert "should be a new folder" in capsys.readouterr().err


@pytest.mark.slow
def test_without_its_data_a_run_is_compared_on_samples_and_keeps_its_likelihood(
    run, tmp_path, data_away
):
    """Scores stay possible; the report names what was measured where."""
    done = rewrite_run(run, tmp_path / "new")
    assert done.points == "samples of the flow"
    assert done.certificate.differences["float64"].log_prob < 1e-10
    old, new = read(run / "result.json"), read(tmp_path / "new/result.json")
    for key in ("test", "references", "calibration", "epochs"):
        assert new[key] == old[key]
    report = read(tmp_path / "new/report.json")
    assert "at samples of the flow" in report["result"]["notes"][-1]
    assert new["worst_layer"] in report["profile"]["layers"]
    scores = [score_run(home, str(data_away))["log_prob"] for home in (run, tmp_path / "new")]
    assert np.allclose(*scores, atol=1e-3)


@pytest.mark.slow
def test_other_data_under_the_same_name_is_not_taken_for_the_held_out_rows(tmp_path):
    """The fingerprint of the training rows says that they changed."""
    run, data = trained(tmp_path), tmp_path / "data.csv"
    data.write_text(data.read_text().replace("kind\n", "kind\n1,2,3,4,e\n"))
    assert rewrite_run(run, tmp_path / "new").points == "samples of the flow"


@pytest.mark.slow
def test_a_run_that_is_not_finished_stays_so(copy, tmp_path):
    """The model and its options are there; there is nothing to report yet."""
    (copy / "result.json").unlink()
    rewrite_run(copy, tmp_path / "new")
    files = {path.name for path in (tmp_path / "new").iterdir()}
    assert files == {"config.json", "model.safetensors", "certificate.json", "metrics.jsonl"}
    with pytest.raises(FileError, match="not finished"):
        score_run(tmp_path / "new", "magic")


@pytest.mark.slow
def test_a_model_and_a_run_of_the_library_stay_what_they_are(tmp_path):
    """They are compared on samples, and have no report to draw."""
    x = torch.randn(300, 4, generator=torch.Generator().manual_seed(0))
    flow = kf.real_nvp(4, depth=3, hidden=(8,), partition="random")
    kf.save(flow, tmp_path / "model")
    kf.fit(flow, x, max_epochs=1, out=tmp_path / "run")
    for name in ("model", "run"):
        done = rewrite_run(tmp_path / name, tmp_path / f"new-{name}")
        assert done.points == "samples of the flow"
    files = {path.name for path in (tmp_path / "new-model").iterdir()}
    assert files == {"config.json", "model.safetensors", "certificate.json"}
    assert read(tmp_path / "new-run/result.json") == read(tmp_path / "run/result.json")
    new = kf.load(tmp_path / "new-run")
    assert torch.allclose(new.log_prob(x), flow.log_prob(x), atol=1e-3)


@pytest.mark.slow
def test_a_conditional_run_is_compared_on_its_rows_and_refused_without_them(tmp_path):
    """There are no samples without a context."""
    run, new = trained(tmp_path, context=["d"]), tmp_path / "new"
    assert rewrite_run(run, new).points == "held-out rows of the run"
    assert kf.load(new).context_features == 1
    (tmp_path / "data.csv").unlink()
    kf.save(kf.load(new), tmp_path / "model")
    for folder in (run, tmp_path / "model"):
        with pytest.raises(
            ArgumentError,
            match=f"{folder} is missing or has changed: .* Restore the data, or call",
        ):
            rewrite_run(folder, tmp_path / "newer")
    assert not (tmp_path / "newer").exists()


@pytest.mark.slow
def test_what_fails_half_way_leaves_nothing(run, tmp_path, monkeypatch):
    """Neither the folder nor the temporary one."""

    def fails(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "write_result", fails)
    with pytest.raises(OSError, match="No space left"):
        rewrite_run(run, tmp_path / "new")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("text", "message"), [('{"test": {}}', "lacks 'validation_nll'"), ("no", "be read")]
)
def test_a_damaged_result_is_named(copy, tmp_path, text, message):
    """That of the run, not of the copy that is gone by then; and nothing is left."""
    (copy / "result.json").write_text(text)
    with pytest.raises(FileError, match=message) as caught:
        rewrite_run(copy, tmp_path / "new")
    assert str(copy / "result.json") in str(caught.value)
    assert not [path for path in tmp_path.iterdir() if "new" in path.name]


@pytest.mark.slow
def test_a_rewritten_run_can_be_rewritten(rewritten, tmp_path):
    """To the other partition; its report names the last step only."""
    rewrite_run(rewritten[0], tmp_path / "two", partition="alternating")
    report = read(tmp_path / "two/report.json")
    assert report["about"]["title"].count(", rewritten") == 1
    notes = [note for note in report["result"]["notes"] if "before it was rewritten" in note]
    assert len(notes) == 1


@pytest.mark.slow
def test_a_rewriting_that_is_killed_leaves_no_run_behind(run, tmp_path):
    """At whatever moment: either the complete run is there, or none."""
    command = [sys.executable, "-m", "kappaflow", "rewrite", str(run), "--out"]
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
