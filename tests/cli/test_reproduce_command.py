"""`kappaflow reproduce`: what it lists, runs and refuses."""

import json
import re

import pytest

import kappaflow_studies
from studies.powers import powers


def test_the_experiments_are_listed(run):
    """A line each, with what is compared; or as JSON."""
    names = [study["name"] for study in json.loads(run("reproduce", "--list", "--json").out)]
    assert names == list(kappaflow_studies.STUDIES) and "linear-depth" in names
    lines = run("reproduce", "--list").out.splitlines()
    assert len(lines) == len(names) and re.match(r"linear-depth +\w", lines[0])


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
    """A section each, with a link to its own page; without --out in a folder of its name."""
    monkeypatch.setattr(kappaflow_studies, "STUDIES", {"powers": powers(tmp_path)})
    monkeypatch.chdir(tmp_path)
    done = run("reproduce", "all", "--quiet")
    assert done.status == 0, done.err
    assert done.out.startswith("powers:\nThe largest power is 9.") and done.err == ""
    page = (tmp_path / "runs/all/index.html").read_text()
    assert 'href="powers/index.html"' in page and "Powers grow." in page
    assert 'data-figure="powers"' in page and "runs/all/index.html" in done.out
