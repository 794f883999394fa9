"""What each command does with images, and what it refuses."""

import json
import shutil

import numpy as np
import polars as pl
import pytest
import torch
from PIL import Image
from tests.cli.conftest import TINY, read, refused

import kappaflow as kf
from kappaflow.report.pictures import size_of


def pixels(path):
    """The pixels of a picture."""
    with Image.open(path) as image:
        return np.asarray(image)


def test_fit_writes_a_run_folder_with_grids_of_samples(digits_run):
    """What a run on a table has, and samples of some epochs and of the weights that were kept."""
    files = {p.relative_to(digits_run).as_posix() for p in digits_run.rglob("*") if p.is_file()}
    assert files == {
        "config.json", "model.safetensors", "checkpoint/state.safetensors", "metrics.jsonl",
        "result.json", "diagnosis.json", "report.html", "report.json",
        "samples/epoch-0001.png", "samples/epoch-0002.png", "samples/best.png",
    }  # fmt: skip
    result = read(digits_run, "result.json")
    assert {"nll", "bits_per_dimension", "bits_standard_error"} <= set(result["test"])
    assert {"epochs", "worst_layer", "verdict"} <= set(result)
    config = read(digits_run, "config.json")
    run = config["run"]
    assert run["source"]["data"] == "digits" and run["flip"] is False and run["classes"] == []
    assert config["model"]["name"] == "glow" and kf.load(digits_run).augment.values == 17
    lines = (digits_run / "metrics.jsonl").read_text().splitlines()
    assert all(json.loads(line)["validation_bits_per_dimension"] > 0 for line in lines)


def test_fit_again_returns_the_stored_result_at_once(run, digits_run):
    """The same command on a finished folder changes no file; another is refused."""
    before = {p: p.stat().st_mtime_ns for p in digits_run.rglob("*") if p.is_file()}
    words = ("fit", "digits", "--out", digits_run, *TINY)
    again = run(*words, "--max-epochs", 2, "--model", "glow", "--json")
    assert again.status == 0
    stored = read(digits_run, "result.json")
    message = json.loads(again.out)
    assert message["test"] == stored["test"] and "calibration" not in message
    refused(run(*words, "--max-epochs", 3), "max_epochs 2, not 3")
    refused(run(*words, "--max-epochs", 2, "--flip"), "flip false, not true")
    refused(run(*words, "--max-epochs", 2, "--size", 16), "shape [1, 8, 8]")
    assert {p: p.stat().st_mtime_ns for p in digits_run.rglob("*") if p.is_file()} == before


@pytest.mark.filterwarnings("always:left out of the folder")
def test_images_that_cannot_be_read_are_left_out_if_the_user_says_so(run, pictures, tmp_path):
    """The number is a note of the fit, stands in its config, and is a warning of scores."""
    folder, home = tmp_path / "set", tmp_path / "run"
    shutil.copytree(pictures, folder)
    broken = sorted(folder.rglob("*.png"))[::20]
    for path in broken:
        path.write_bytes(b"no image")
    words = ("fit", folder, "--out", home, *TINY, "--max-epochs", 1)
    refused(run(*words), "3 of 45 images cannot be read")
    refused(run(*words), "--skip-unreadable leaves out such files")
    done = run(*words[:-3], "--skip-unreadable", "--max-epochs", 1)
    assert done.status == 0, done.err
    config = read(home, "config.json")["run"]
    assert config["unreadable"] == 3 and config["source"]["skip_unreadable"]
    note = "left out of the folder: 3 images that cannot be read"
    assert read(home, "result.json")["notes"] == [note]
    done = run("score", home, folder, "--out", tmp_path / "scores.csv")
    assert done.status == 0 and done.err.count(note) == 1
    assert (tmp_path / "scores.csv").read_text().count("\n") == 1 + 45 - 3


@pytest.mark.slow
def test_the_summary_is_in_bits_per_dimension(run, pictures, tmp_path):
    """For people: the likelihood next to that of single pixels, and where the pictures are."""
    words = ("fit", pictures, "--size", 4, "--out", tmp_path / "run", "--model", "jet")
    sizes = ("--patch", 2, "--depth", 1, "--width", 4, "--logit", 0.05)
    outcome = run(*words, *sizes, "--max-epochs", 1, "--quiet")
    assert outcome.status == 0, outcome.err
    assert "Held-out bits per dimension" in outcome.out and "independent pixels" in outcome.out
    assert str(tmp_path / "run" / "samples") in outcome.out
    flow = kf.load(tmp_path / "run")
    assert any(isinstance(part, kf.bijections.Logit) for part in flow.bijection)


@pytest.mark.slow
def test_channels_of_noise_are_added_by_an_option(run, pictures, tmp_path):
    """The flow is one of images and noise; bits count the image, and the page says bound."""
    folder = tmp_path / "run"
    words = ("fit", pictures, "--size", 4, "--out", folder, *TINY, "--max-epochs", 1)
    outcome = run(*words, "--padding", 2)
    assert outcome.status == 0, outcome.err
    config = read(folder, "config.json")
    assert config["model"]["arguments"]["padding"] == 2
    flow = kf.load(folder)
    assert flow.event_shape == (3, 4, 4) and flow.joint_shape == (5, 4, 4)
    test = read(folder, "result.json")["test"]
    assert test["bits_per_dimension"] == pytest.approx(test["nll"] / (3 * 4 * 4 * np.log(2)))
    page = (folder / "report.html").read_text()
    assert "Each image gets one sample of the noise in the pixels and in the padding" in page
    assert (
        "upper bound on the bits" in page
        and "2 channels, drawn from N(0, 1), were added to each image" in page
    )
    for used in (
        ("sample", folder, "-n", 3, "--out", tmp_path / "drawn.npy"),
        ("score", folder, pictures, "--out", tmp_path / "scores.csv"),
        ("doctor", folder),
        ("report", folder),
    ):
        assert run(*used).status in (0, 1), used
    assert np.load(tmp_path / "drawn.npy").shape == (3, 3, 4, 4)
    assert "bits_per_dimension" in pl.read_csv(tmp_path / "scores.csv").columns
    refused(run(*words, "--padding", 1), "made with padding 2, not 1")


def test_samples_are_one_picture_an_array_or_a_picture_each(run, digits_run, tmp_path):
    """In a grid, as whole numbers in the units of the data, and in a folder made for them."""
    drawn = kf.load(digits_run).sample(12, generator=torch.Generator().manual_seed(3))
    words = ("sample", digits_run, "-n", 12, "--seed", 3, "--out")
    assert run(*words, tmp_path / "all.npy").status == 0
    array = np.load(tmp_path / "all.npy")
    assert array.dtype == np.uint8 and array.shape == (12, 1, 8, 8)
    assert np.array_equal(array, drawn.numpy())
    assert run(*words, tmp_path / "all.png").status == 0
    picture = pixels(tmp_path / "all.png")
    assert picture.shape[1] >= 512
    factor = picture.shape[1] // 35
    assert np.array_equal(picture[::factor, ::factor][:8, :8], np.rint(array[0, 0] * (255 / 16)))
    assert run(*words, tmp_path / "each").status == 0
    files = sorted((tmp_path / "each").iterdir())
    assert [file.name for file in files] == [f"{i:02}.png" for i in range(1, 13)]
    last = pixels(files[-1])
    assert np.array_equal(last, np.rint(array[11, 0] * (255 / 16)).astype(np.uint8))


def test_all_classes_take_turns_or_one_is_named(run, class_run, tmp_path):
    """Sample i is of class i modulo their number; a grid has a column for each."""
    flow = kf.load(class_run)
    context = torch.eye(3)
    words = ("sample", class_run, "-n", 7, "--out")
    assert run(*words, tmp_path / "all.npy").status == 0
    expected = flow.sample(
        1, context[torch.arange(7) % 3], generator=torch.Generator().manual_seed(0)
    )[0]
    assert np.array_equal(np.load(tmp_path / "all.npy"), expected.numpy())
    assert run(*words, tmp_path / "red.npy", "--class", "red").status == 0
    expected = flow.sample(1, context[[2] * 7], generator=torch.Generator().manual_seed(0))[0]
    assert np.array_equal(np.load(tmp_path / "red.npy"), expected.numpy())
    assert run(*words, tmp_path / "all.png").status == 0
    width, height = size_of((tmp_path / "all.png").read_bytes())
    assert (width / 26, height / 26) == (width // 26, width // 26)  # 3 x 3 of 8 pixels
    assert run(*words, tmp_path / "cold.npy", "--temperature", 0).status == 0
    cold, warm = (np.load(tmp_path / f"{name}.npy").astype(float) for name in ("cold", "all"))
    assert np.ptp(cold, axis=0).mean() < np.ptp(warm, axis=0).mean()


def test_scores_name_the_image(run, digits_run, class_run, pictures, tmp_path):
    """The path below the folder, or the number; bits per dimension, log_prob and percentile."""
    out = tmp_path / "scores.csv"
    assert run("score", class_run, pictures, "--out", out).status == 0
    scores = pl.read_csv(out)
    assert scores.columns == ["image", "bits_per_dimension", "log_prob", "percentile"]
    assert scores["image"][0] == "blue/00.png" and len(scores) == 45
    expected = -scores["log_prob"].to_numpy() / (192 * np.log(2))
    assert np.allclose(scores["bits_per_dimension"], expected)
    assert run("score", digits_run, "digits", "--out", tmp_path / "d.npy").status == 0
    digits = np.load(tmp_path / "d.npy")
    assert np.array_equal(digits[:, 0], np.arange(1797)) and digits.shape == (1797, 4)
    refused(run("score", class_run, pictures, "--out", tmp_path / "s.npy"), "are text")
    assert not (tmp_path / "s.npy").exists()


def test_scores_do_not_depend_on_the_order_of_the_classes(run, class_run, pictures, tmp_path):
    """An image of a class scores the same where that class is the only one but one."""
    part = tmp_path / "part"
    for name in ("green", "red"):
        shutil.copytree(pictures / name, part / name)
    assert run("score", class_run, part, "--out", tmp_path / "part.csv").status == 0
    assert run("score", class_run, pictures, "--out", tmp_path / "all.csv").status == 0
    some, every = (pl.read_csv(tmp_path / f"{name}.csv") for name in ("part", "all"))
    joined = some.join(every, on="image")
    assert len(joined) == 30
    # the noise that fills the pixels depends on the place of an image among the others
    off = (joined["bits_per_dimension"] - joined["bits_per_dimension_right"]).abs()
    assert off.max() < 0.1
    swapped = tmp_path / "swapped"
    shutil.copytree(pictures / "red", swapped / "blue")
    shutil.copytree(pictures / "green", swapped / "green")
    assert run("score", class_run, swapped, "--out", tmp_path / "swapped.csv").status == 0


@pytest.mark.slow
def test_doctor_examines_held_out_images_or_others(run, class_run, pictures):
    """It says which."""
    assert "held-out images of the run" in run("doctor", class_run).out
    assert json.loads(run("doctor", class_run, pictures, "--json").out)["ok"] is True


@pytest.mark.slow
def test_a_run_of_the_library_on_images_can_be_sampled(run, tmp_path):
    """It knows its classes by their numbers, and is not scored."""
    flow = kf.glow((1, 8, 8), levels=1, steps=1, hidden=2, context_features=10,
                   pixels={"dequantize": "uniform", "values": 17})  # fmt: skip
    images = kf.load_images("digits").subset(range(100))
    kf.fit(flow, images, max_epochs=1, out=tmp_path / "run", progress=False)
    out = tmp_path / "seven.png"
    assert run("sample", tmp_path / "run", "-n", 2, "--class", 7, "--out", out).status == 0
    refused(run("score", tmp_path / "run", "digits"), "made by kappaflow.fit")


def test_a_damaged_image_is_named_and_no_run_is_left(run, pictures, tmp_path):
    """The sentence has its path; the folder of the run is not made."""
    copy = tmp_path / "set"
    shutil.copytree(pictures, copy)
    broken = copy / "red" / "05.png"
    broken.write_bytes(broken.read_bytes()[:60])
    words = ("fit", copy, "--out", tmp_path / "run", "--size", 8, *TINY, "--max-epochs", 1)
    refused(run(*words), "05.png")
    assert not (tmp_path / "run").exists()
