"""`kappaflow reproduce`: what it lists, runs and refuses."""

import json

import pytest
from tests.cli.test_refusals import refused

from kappaflow.experiments import FacesPreset, OneSize
from kappaflow.experiments import faces as module

TINY = FacesPreset((
    OneSize(4, {"levels": 1, "steps": 1, "hidden": 2, "memory": "store"}, {"max_epochs": 1}),
))


def test_the_experiments_are_listed(run):
    """A line each, with what is compared; or as JSON."""
    (one,) = json.loads(run("reproduce", "--list", "--json").out)
    assert one["name"] == "faces"
    listed = run("reproduce", "--list")
    assert listed.status == 0
    (line,) = listed.out.splitlines()
    assert line.startswith("faces  a Glow of faces of 32 x 32 and 64 x 64 pixels")


def test_an_experiment_is_run_into_a_folder_of_its_name(run, tmp_path, monkeypatch):
    """The sentences of what was found, then the page; as JSON the numbers."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(module.PRESETS, "minutes", TINY)
    done = run("reproduce", "faces", "--quiet")
    assert done.status == 0, done.err
    assert done.out.startswith("At 4 x 4 the condition number ends at ")
    assert "runs/faces/index.html" in done.out and done.err == ""
    assert (tmp_path / "runs/faces/4-padded/report.html").exists()
    again = run("reproduce", "faces", "--quiet", "--json")
    numbers = json.loads(again.out)
    assert numbers == json.loads((tmp_path / "runs/faces/faces.json").read_text())
    assert numbers["preset"] == "minutes"
    refused(run("reproduce", "faces", "--seed", 1, "--quiet"), "was made with")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "'experiment' should be one of faces"),
        (["cats"], "'experiment' should be one of faces, got 'cats'"),
        (["faces", "--preset", "hours"], "hours"),
        (["faces", "--seed", -1], "'seed'"),
        (["faces", "--seed", 0.5], "--seed"),
    ],
)
def test_what_there_is_not_is_refused(run, tmp_path, monkeypatch, words, said):
    """In one sentence, and nothing is written."""
    monkeypatch.chdir(tmp_path)
    refused(run("reproduce", *words), said)
    assert list(tmp_path.iterdir()) == []


def test_a_file_in_the_place_of_the_folder_is_refused(run, tmp_path):
    """It is left as it is."""
    (tmp_path / "faces").write_text("mine")
    refused(run("reproduce", "faces", "--out", tmp_path / "faces", "--quiet"), "'out' should be a")
    assert (tmp_path / "faces").read_text() == "mine"
