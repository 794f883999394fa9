"""What a rewritten run keeps where the data of the run is gone, and what it refuses."""

import json

import numpy as np
import pytest
import torch

import kappaflow as kf
from kappaflow.errors import ArgumentError, FileError
from kappaflow.runs import ModelConfig, TableConfig, diagnose_run, fit_run, rewrite_run, score_run
from kappaflow.runs import evaluate as module

SMALL = {"depth": 3, "hidden": (8,), "partition": "random"}


def table(path, columns):
    """Writes a small table."""
    x = np.random.default_rng(0).normal(size=(300, columns))
    names = ",".join("abcdef"[:columns])
    np.savetxt(path, x, delimiter=",", header=names, comments="")
    return path


def trained(tmp_path, columns=4, **source):
    """Returns a finished run of two epochs, and its data."""
    data = table(tmp_path / "data.csv", columns)
    fit_run(
        TableConfig(str(data), **source),
        ModelConfig("real_nvp", SMALL),
        tmp_path / "run",
        max_epochs=2,
    )
    return tmp_path / "run", data


def read(path):
    """Returns what a JSON file holds."""
    return json.loads(path.read_text())


@pytest.mark.slow
def test_without_its_data_a_run_is_compared_on_samples_and_keeps_its_likelihood(tmp_path):
    """Scores stay possible; the report says what was measured where."""
    run, data = trained(tmp_path)
    kept = tmp_path / "kept.csv"
    data.rename(kept)
    done = rewrite_run(run, tmp_path / "new")
    assert done.points == "samples of the flow"
    assert done.certificate.differences["float64"].log_prob < 1e-10
    old, new = read(run / "result.json"), read(tmp_path / "new/result.json")
    for key in ("test", "references", "calibration", "epochs"):
        assert new[key] == old[key]
    report = read(tmp_path / "new/report.json")
    assert "at samples of the flow" in report["result"]["notes"][-1]
    assert len(report["profile"]["layers"]) > len(read(run / "report.json")["profile"]["layers"])
    assert new["worst_layer"] in report["profile"]["layers"]
    scores = [score_run(folder, str(kept))["log_prob"] for folder in (run, tmp_path / "new")]
    assert np.allclose(*scores, atol=1e-3)


@pytest.mark.slow
def test_other_data_under_the_same_name_is_not_taken_for_the_held_out_rows(tmp_path):
    """The fingerprint of the training rows says that they changed."""
    run, data = trained(tmp_path)
    data.write_text(data.read_text().replace("a,b,c,d\n", "a,b,c,d\n1,2,3,4\n"))
    assert rewrite_run(run, tmp_path / "new").points == "samples of the flow"


@pytest.mark.slow
def test_held_out_rows_are_those_of_the_run(tmp_path):
    """As many as the test rows, and the doctor finds them again in the new folder."""
    run, _ = trained(tmp_path)
    done = rewrite_run(run, tmp_path / "new")
    assert done.certificate.points == read(run / "result.json")["test"]["rows"]
    assert diagnose_run(tmp_path / "new")[1] == "held-out rows of the run"


@pytest.mark.slow
def test_a_run_that_is_not_finished_stays_so(tmp_path):
    """The model and what was asked for are there; there is nothing to report yet."""
    run, _ = trained(tmp_path)
    (run / "result.json").unlink()
    rewrite_run(run, tmp_path / "new")
    files = {path.name for path in (tmp_path / "new").iterdir()}
    assert files == {"config.json", "model.safetensors", "certificate.json", "metrics.jsonl"}
    with pytest.raises(FileError, match="not finished"):
        score_run(tmp_path / "new", "magic")


@pytest.mark.slow
def test_a_run_of_the_library_keeps_what_it_has(tmp_path):
    """Without a source there are samples to compare on, and no report to draw."""
    x = torch.randn(300, 4, generator=torch.Generator().manual_seed(0))
    flow = kf.real_nvp(4, depth=3, hidden=(8,), partition="random")
    kf.fit(flow, x, max_epochs=1, out=tmp_path / "run")
    done = rewrite_run(tmp_path / "run", tmp_path / "new")
    assert done.points == "samples of the flow"
    assert read(tmp_path / "new/result.json") == read(tmp_path / "run/result.json")
    assert torch.allclose(kf.load(tmp_path / "new").log_prob(x), flow.log_prob(x), atol=1e-3)


@pytest.mark.slow
def test_a_conditional_run_is_compared_on_its_rows_and_refused_without_them(tmp_path):
    """There are no samples without a context."""
    run, data = trained(tmp_path, 5, context=["e"])
    new = tmp_path / "new"
    assert rewrite_run(run, new).points == "held-out rows of the run"
    assert kf.load(new).context_features == 1
    data.unlink()
    kf.save(kf.load(new), tmp_path / "model")
    for folder in (run, tmp_path / "model"):
        with pytest.raises(
            ArgumentError,
            match=f"{folder} is missing or has changed: .* Restore the data, or call",
        ):
            rewrite_run(folder, tmp_path / "newer")
    assert not (tmp_path / "newer").exists()


@pytest.mark.slow
def test_what_fails_half_way_leaves_nothing(tmp_path, monkeypatch):
    """Neither the folder nor the one that it was made in."""
    run, _ = trained(tmp_path)
    before = sorted(tmp_path.iterdir())

    def fails(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "write_result", fails)
    with pytest.raises(OSError, match="No space left"):
        rewrite_run(run, tmp_path / "new")
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    ("text", "message"), [('{"test": {}}', "lacks 'validation_nll'"), ("no", "be read")]
)
def test_a_damaged_result_is_named(tmp_path, text, message):
    """That of the run, not a copy that is gone by then; and nothing is left."""
    run, _ = trained(tmp_path)
    (run / "result.json").write_text(text)
    with pytest.raises(FileError, match=message) as caught:
        rewrite_run(run, tmp_path / "new")
    assert str(run / "result.json") in str(caught.value)
    assert not [path for path in tmp_path.iterdir() if "new" in path.name]


@pytest.mark.slow
def test_a_rewritten_run_can_be_rewritten(tmp_path):
    """To the other partition; its report names the last step only."""
    run, _ = trained(tmp_path)
    rewrite_run(run, tmp_path / "one")
    rewrite_run(tmp_path / "one", tmp_path / "two", partition="alternating")
    report = read(tmp_path / "two/report.json")
    assert report["about"]["title"].count(", rewritten") == 1
    notes = [note for note in report["result"]["notes"] if "before it was rewritten" in note]
    assert len(notes) == 1
