"""A run on images that is written again: a whole run, with its images and without them."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import kappaflow as kf
from kappaflow.errors import FileError
from kappaflow.images import ImageConfig
from kappaflow.report.files import read_report
from kappaflow.runs import (
    ModelConfig,
    TableConfig,
    diagnose_run,
    fit_run,
    rewrite_run,
    score_run,
    write_samples,
)

TINY = {"levels": 1, "steps": 1, "hidden": 4}
CLASSES = ("blue", "green", "red")


@pytest.fixture(scope="module")
def rewritten(tmp_path_factory):
    """A finished run by class on 45 pictures of 4 x 4, what it became, and the certificate."""
    home = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    for i in range(45):
        folder = home / "set" / CLASSES[i % 3]
        folder.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 60, (4, 4, 3), np.uint8)
        pixels[..., 2 - i % 3] += 150
        Image.fromarray(pixels).save(folder / f"{i:02}.png")
    source = ImageConfig(str(home / "set"), by_class=True)
    fit_run(source, ModelConfig("glow", TINY), home / "old", progress=False, max_epochs=2)
    return home, rewrite_run(home / "old", home / "new")


@pytest.fixture
def copied(rewritten, tmp_path):
    """A copy of the finished run, to be changed."""
    return Path(shutil.copytree(rewritten[0] / "old", tmp_path / "old"))


@pytest.fixture
def gone(rewritten):
    """Where the images of the run are as long as the run does not find them."""
    home, _ = rewritten
    yield (home / "set").rename(home / "elsewhere")
    (home / "elsewhere").rename(home / "set")


def read(path):
    """Returns what a JSON file holds."""
    return json.loads(path.read_text())


def files_of(folder):
    """Returns the paths of all files of a folder."""
    return {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.slow
def test_the_new_folder_has_all_that_the_old_one_has(rewritten):
    """But the checkpoint; and the certificate, on the held-out images with their classes."""
    home, done = rewritten
    lost = {"checkpoint/state.safetensors"}
    assert files_of(home / "new") == files_of(home / "old") - lost | {"certificate.json"}
    assert done.points == "held-out images of the run"
    assert done.certificate.points == read(home / "old/result.json")["test"]["rows"]
    assert done.certificate.differences["float64"].log_prob < 1e-9
    assert read(home / "new/certificate.json") == done.to_json()
    flow = kf.load(home / "new")
    assert not any(isinstance(part, kf.bijections.InvertibleConv1x1) for part in flow.modules())
    assert flow.context_features == 3


@pytest.mark.slow
def test_scores_and_result_are_those_of_the_old_flow_computed_by_the_new_one(rewritten):
    """Up to rounding, percentiles too."""
    home, _ = rewritten
    old, new = (read(home / name / "result.json") for name in ("old", "new"))
    for key in ("bits_per_dimension", "nll"):
        assert new["test"][key] == pytest.approx(old["test"][key], rel=1e-4)
    name = "condition_number_median"
    assert new[name] == pytest.approx(old[name], rel=1e-4)
    assert new["epochs"] == old["epochs"]
    both = [score_run(home / name, str(home / "set")) for name in ("old", "new")]
    assert np.allclose(*(scores["log_prob"] for scores in both), atol=1e-3)
    assert np.allclose(*(scores["percentile"] for scores in both), atol=0.1)
    files = [str(home / f"{name}.npy") for name in ("old", "new")]
    for name, file in zip(("old", "new"), files, strict=True):
        write_samples(home / name, 6, file)
    drawn = [np.load(file).astype(int) for file in files]
    assert np.abs(drawn[0] - drawn[1]).max() <= 1
    assert diagnose_run(home / "new")[1] == "held-out images of the run"


def test_the_report_is_drawn_of_the_new_flow(rewritten):
    """Its layers are profiled; title, facts and notes say what it is."""
    home, _ = rewritten
    old, new = (read_report(home / name) for name in ("old", "new"))
    assert new.about.title == old.about.title + ", rewritten"
    assert dict(new.about.model)["rewritten"].startswith("from ")
    assert len(new.profile.layers) > len(old.profile.layers)
    assert new.curves == old.curves
    assert "before it was rewritten" in new.result.notes[-1]
    assert new.charts.held_out == old.charts.held_out
    page = (home / "new/report.html").read_text()
    assert "rewritten" in page


@pytest.mark.slow
def test_without_its_images_a_run_is_compared_on_samples_of_all_classes(copied, gone):
    """It keeps its likelihood; its conditioning is that at samples, and the report says so."""
    new = copied.parent / "new"
    done = rewrite_run(copied, new)
    assert done.points == "samples of the flow" and done.certificate.points == 256
    assert done.certificate.differences["float64"].log_prob < 1e-9
    old, new_result = read(copied / "result.json"), read(new / "result.json")
    for key in ("test", "calibration"):
        assert new_result[key] == old[key]
    report = read_report(new)
    assert "at samples of the flow" in report.result.notes[-1]
    assert new_result["worst_layer"] in report.profile.layers
    scores = [score_run(run, str(gone))["log_prob"] for run in (copied, new)]
    assert np.allclose(*scores, atol=1e-3)


@pytest.mark.slow
def test_a_run_on_images_that_is_not_finished_stays_so(copied):
    """Its grids so far are there, and no other."""
    (copied / "result.json").unlink()
    rewrite_run(copied, copied.parent / "new")
    assert files_of(copied.parent / "new") == {
        "config.json", "model.safetensors", "certificate.json", "metrics.jsonl",
        "samples/epoch-0001.png", "samples/epoch-0002.png",
    }  # fmt: skip
    with pytest.raises(FileError, match="not finished"):
        score_run(copied.parent / "new", "digits")


def test_a_run_of_the_library_on_images_is_compared_on_samples(tmp_path):
    """It has no source, and its classes are numbers."""
    pixels = {"dequantize": "uniform", "values": 17}
    flow = kf.glow((1, 8, 8), **TINY, pixels=pixels, context_features=10)
    images = kf.load_images("digits").subset(range(100))
    kf.fit(flow, images, max_epochs=1, out=tmp_path / "run", progress=False)
    done = rewrite_run(tmp_path / "run", tmp_path / "new")
    assert done.points == "samples of the flow"
    x = images.batch(range(4)).float()
    context = torch.eye(10)[:4]
    log_probs = [
        each.log_prob(x, context, generator=torch.Generator().manual_seed(0))
        for each in (flow, kf.load(tmp_path / "new"))
    ]
    assert torch.allclose(*log_probs, atol=1e-3)


def test_a_report_on_a_table_is_not_taken_for_one_on_images(copied, tmp_path):
    """One sentence, and nothing is left behind."""
    data = np.random.default_rng(0).normal(size=(200, 3))
    np.savetxt(tmp_path / "data.csv", data, delimiter=",", header="a,b,c", comments="")
    small = ModelConfig("real_nvp", {"depth": 2, "hidden": (4,)})
    fit_run(TableConfig(str(tmp_path / "data.csv")), small, tmp_path / "table", max_epochs=1)
    shutil.copy(tmp_path / "table/report.json", copied / "report.json")
    before = sorted(tmp_path.iterdir())
    with pytest.raises(FileError, match="should be a report on .images., got one on .table."):
        rewrite_run(copied, tmp_path / "new")
    assert sorted(tmp_path.iterdir()) == before
