"""`kappaflow reproduce`: what it lists, runs and refuses."""

import json
import re

import pytest
from tests.cli.test_refusals import refused

from kappaflow_studies import EXPERIMENTS, FacesPreset, OneSize
from kappaflow_studies.faces import study as module

TINY = FacesPreset((
    OneSize(4, {"levels": 1, "steps": 1, "hidden": 2, "memory": "store"}, {"max_epochs": 1}),
))


def test_the_experiments_are_listed(run):
    """A line each, with what is compared; or as JSON."""
    names = [one["name"] for one in json.loads(run("reproduce", "--list", "--json").out)]
    assert names == list(EXPERIMENTS) and {"linear-depth", "faces"} <= set(names)
    listed = run("reproduce", "--list")
    assert listed.status == 0
    lines = listed.out.splitlines()
    assert len(lines) == len(names)
    assert re.match(r"faces +a Glow of faces of 32 x 32 and 64 x 64 pixels", lines[-1])


@pytest.mark.slow
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
    assert numbers == json.loads((tmp_path / "runs/faces/report.json").read_text())
    assert numbers["preset"] == "minutes"
    refused(run("reproduce", "faces", "--seed", 1, "--quiet"), "was made with")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "'experiment' should be one of linear-depth"),
        (["cats"], "faces or all, got 'cats'"),
        (["faces", "--preset", "hours"], "hours"),
        (["faces", "--seed", -1], "'seed'"),
        (["faces", "--seed", 0.5], "--seed"),
    ],
)
def test_what_there_is_not_is_refused(run, tmp_path, monkeypatch, words, message):
    """In one sentence, and nothing is written."""
    monkeypatch.chdir(tmp_path)
    refused(run("reproduce", *words), message)
    assert list(tmp_path.iterdir()) == []


def test_a_file_in_the_place_of_the_folder_is_refused(run, tmp_path):
    """It is left as it is."""
    (tmp_path / "faces").write_text("mine")
    refused(run("reproduce", "faces", "--out", tmp_path / "faces", "--quiet"), "'out' should be a")
    assert (tmp_path / "faces").read_text() == "mine"


@pytest.mark.slow
def test_an_experiment_of_cases_takes_settings_from_a_file(run, tmp_path):
    """It prints what was found; its folder has the raw results."""
    config = tmp_path / "mine.toml"
    config.write_text(
        'ensembles = ["orthogonal"]\nsizes = [4]\ndepths = [3, 6]\ndraws = 1\nrestarts = 1\n'
        "adam_steps = 3\nadam_learning_rate = 0.02\nlbfgs_steps = 3\n"
    )
    words = ("reproduce", "linear-depth", "--config", config, "--out", tmp_path / "out")
    done = run(*words, "--processes", 1, "--quiet")
    assert done.status == 0, done.err
    assert done.out.startswith("Six couplings are enough: they fit 1 of 1 maps exactly")
    assert (tmp_path / "out/results.parquet").exists()
    again = json.loads(run(*words, "--quiet", "--json").out)
    assert again["name"] == "linear-depth" and again["preset"] == "mine.toml"


@pytest.mark.slow
def test_all_of_them_make_one_page(run, tmp_path, monkeypatch):
    """A section each, with a link to its own page; settings are for one of them."""
    import kappaflow_studies as package

    monkeypatch.setitem(module.PRESETS, "minutes", TINY)
    monkeypatch.setattr(package, "EXPERIMENTS", {"faces": EXPERIMENTS["faces"]})
    done = run("reproduce", "all", "--out", tmp_path / "all", "--quiet")
    assert done.status == 0, done.err
    page = (tmp_path / "all/index.html").read_text()
    assert 'href="faces/index.html"' in page and EXPERIMENTS["faces"].claim in page
    assert 'data-figure="condition-4"' in page
    refused(run("reproduce", "all", "--config", tmp_path / "x.toml"), "'config'")
    refused(run("reproduce", "faces", "--config", tmp_path / "x.toml"), "'config'")
