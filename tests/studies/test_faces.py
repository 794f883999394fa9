"""The experiment on faces, at a size that trains in a second."""

import json
import re

import numpy as np
import pytest
from PIL import Image

import kappaflow as kf
from kappaflow.errors import ArgumentError
from kappaflow.flows.recipe import from_options
from kappaflow.report.pictures import size_of
from kappaflow.runs.stored import read_run
from kappaflow_studies import EXPERIMENTS, FacesPreset, OneSize, experiment_named, reproduce_faces
from kappaflow_studies.faces.page import describe_likelihood, describe_size
from kappaflow_studies.faces.results import FacesReport
from kappaflow_studies.faces.study import FULL, MINUTES, runs_of

MODEL = {"levels": 1, "steps": 1, "hidden": 2, "memory": "store"}
SETTINGS = {"max_epochs": 3, "batch_size": 64, "conditioning_every": 2}
TINY = FacesPreset((OneSize(4, MODEL, SETTINGS), OneSize(8, MODEL, SETTINGS)), padding=2)


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A finished experiment, and what was reported on the way."""
    folder = tmp_path_factory.mktemp("experiments") / "faces"
    message = []
    return (
        folder,
        reproduce_faces(folder, preset=TINY, progress=False, say=message.append),
        message,
    )


def changed(report, **values):
    """Returns the first size of a report, its padded run with other values."""
    size = report.sizes[0]
    return size.model_copy(update={"padded": size.padded.model_copy(update=values)})


@pytest.mark.slow
def test_each_pair_differs_in_the_padding_alone(done):
    """Four run folders as fit leaves them, with a report each."""
    folder, _, message = done
    names = ["4-plain", "4-padded", "8-plain", "8-padded"]
    for name in names:
        assert {"report.html", "result.json", "samples"} <= {
            p.name for p in (folder / name).iterdir()
        }
    for size in (4, 8):
        plain, padded = (
            json.loads((folder / f"{size}-{kind}" / "config.json").read_text())
            for kind in ("plain", "padded")
        )
        assert padded["model"]["arguments"].pop("padding") == 2
        assert plain["model"]["arguments"].pop("padding") is None
        assert plain["model"]["arguments"] == padded["model"]["arguments"]
        assert plain["run"] == padded["run"]
    assert "8 x 8, 2 padding channels (4 of 4)" in message


@pytest.mark.slow
def test_the_numbers_are_those_of_the_runs(done):
    """Likelihoods as in result.json, curves where the conditioning was measured."""
    folder, made, _ = done
    report = FacesReport.model_validate_json((folder / "report.json").read_text())
    assert report == made.report and [size.size for size in report.sizes] == [4, 8]
    for size in report.sizes:
        assert size.images == [320, 40, 40]
        for run in size.runs:
            stored = json.loads((folder / run.folder / "result.json").read_text())
            assert run.bits_per_dimension == stored["test"]["bits_per_dimension"]
            lines = (folder / run.folder / "metrics.jsonl").read_text().splitlines()
            condition = [json.loads(line)["condition_number_median"] for line in lines]
            assert [point["condition_number_median"] for point in run.curve] == condition
            assert [point["epoch"] for point in run.curve] == [1, 2, 3]


@pytest.mark.slow
def test_distances_are_to_the_nearest_training_faces(done):
    """Of 64 samples and of all held-out faces, counted by hand."""
    folder, made, _ = done
    size = made.report.sizes[1]
    parts = read_run(folder / "8-plain").source.load()
    train, test = (
        part.batch(range(len(part))).numpy().reshape(len(part), -1).astype(float)
        for part in (parts.train, parts.test)
    )
    by_hand = np.sqrt(((test[:, None] - train[None]) ** 2).mean(2)).min(1)
    assert np.allclose(size.of_held_out, by_hand, atol=0.05)
    assert [len(run.of_samples) for run in size.runs] == [64, 64]
    assert min(size.plain.of_samples) > 0


@pytest.mark.slow
def test_the_page_shows_both_flows_of_each_size(done):
    """With links to the reports of the runs, and no request."""
    folder, made, _ = done
    page = (folder / "index.html").read_text()
    assert made.page == folder / "index.html"
    for name in ("4-plain", "4-padded", "8-plain", "8-padded"):
        assert f'href="{name}/report.html"' in page
    assert page.count("<img") == 2
    assert all(sentence in page for sentence in made.sentences)
    assert {"condition-4", "condition-8"} <= set(re.findall(r'data-figure="([^"]+)"', page))
    body = page[: page.index("<script>")]
    assert not re.search(r'(src|href)="(?!data:|#|[48]-)', body)


@pytest.mark.slow
def test_the_picture_shows_held_out_faces_above_the_samples(done):
    """Three bands of two rows; the first are test images."""
    folder, _, _ = done
    assert size_of((folder / "faces-8.png").read_bytes())[0] >= 512
    whole = np.asarray(Image.open(folder / "faces-8.png"))
    factor = whole.shape[1] // 71
    test = read_run(folder / "8-plain").source.load().test
    small = whole[::factor, ::factor]
    assert small.shape == (3 * 17 + 2 * 6, 71)
    assert np.array_equal(small[:8, :8], test.batch([0]).numpy()[0, 0])
    assert (small[17:23] == 255).all()


@pytest.mark.slow
def test_a_second_time_takes_what_is_finished(done):
    """No run is written again; the page comes out the same, also where it was lost."""
    folder, made, _ = done
    kept = {p: p.stat().st_mtime_ns for p in folder.glob("*-*/*") if p.is_file()}
    page = (folder / "index.html").read_bytes()
    (folder / "index.html").unlink()
    again = reproduce_faces(folder, preset=TINY, progress=False)
    assert again.report == made.report
    assert (folder / "index.html").read_bytes() == page
    assert {p: p.stat().st_mtime_ns for p in folder.glob("*-*/*") if p.is_file()} == kept


@pytest.mark.slow
def test_a_folder_of_other_trainings_is_refused(done):
    """It says what differs."""
    folder, _, _ = done
    with pytest.raises(ArgumentError, match="was made with"):
        reproduce_faces(folder, preset=TINY, seed=1, progress=False)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("factor", "words"),
    [(1.05, "about the same"), (3.0, "3.0 times larger with"), (0.25, "4.0 times smaller")],
)
def test_what_was_found_is_said_in_either_direction(done, factor, words):
    """Smaller, larger, or neither."""
    report = done[1].report
    start = report.sizes[0].plain.curve[-1]["condition_number_median"]
    curve = [{"epoch": 3, "condition_number_median": factor * start, "condition_number_p95": None}]
    assert words in describe_size(changed(report, curve=curve))
    lost = [{"epoch": 3, "condition_number_median": None, "condition_number_p95": None}]
    assert "cannot be compared" in describe_size(changed(report, curve=lost))


@pytest.mark.slow
def test_a_difference_of_bits_stands_beside_its_error(done):
    """Within two standard errors it is called none; the mean is that of the two runs."""
    size = done[1].report.sizes[0]
    plain, padded = (run.bits_per_dimension for run in size.runs)
    assert size.bits_more == pytest.approx(padded - plain, abs=1e-6)
    error = np.hypot(*(run.bits_standard_error for run in size.runs))
    assert 0 < size.bits_more_standard_error < error
    for more, words in ((0.1, "standard errors of zero"), (0.3, "worse"), (-0.3, "better")):
        other = {"bits_more": more, "bits_more_standard_error": 0.1}
        assert words in describe_likelihood(size.model_copy(update=other))
    lost = size.model_copy(update={"bits_more": float("nan")})
    assert "not finite" in describe_likelihood(lost)


@pytest.mark.slow
@pytest.mark.parametrize("preset", [MINUTES, FULL])
def test_the_presets_can_be_built(preset, tmp_path):
    """Each is a pair of flows of 32 and of 64 pixels that take what the faces are."""
    runs = runs_of(preset, tmp_path)
    assert [(run.size.size, run.padding > 0) for run in runs] == [
        (32, False), (32, True), (64, False), (64, True),
    ]  # fmt: skip
    for run in runs:
        side = run.size.size
        options = {"dequantize": "uniform", "padding": run.padding, **run.size.model}
        flow = from_options(kf.glow, (1, side, side), **options)
        assert flow.event_shape == (1, side, side)
        kf.training.checked_settings(**run.size.settings)


@pytest.mark.slow
def test_an_unknown_experiment_or_preset_names_those_there_are(tmp_path):
    """In one sentence."""
    assert experiment_named("faces") is EXPERIMENTS["faces"]
    with pytest.raises(ArgumentError, match="faces or all, got 'cats'"):
        experiment_named("cats")
    with pytest.raises(ArgumentError, match="'preset' should be one of minutes, full"):
        reproduce_faces(tmp_path / "faces", preset="hours")
    assert list(tmp_path.iterdir()) == []
