"""`kappaflow data FILE`: the columns, problems and suggested options of a table."""

import json
import shlex
from io import StringIO

import numpy as np
import pandas as pd
import pytest
from tests.cli.conftest import SMALL, refused

from kappaflow.data import examine


@pytest.fixture
def path(tmp_path):
    """A file with an edge at 1, whole numbers, a text and a code for missing values."""
    g = np.random.default_rng(0)
    frame = pd.DataFrame({
        "kind": g.choice(["even", "odd"], 900),
        "mass": 1 + g.exponential(size=900),
        "count": g.poisson(3, 900),
        "size": np.where(g.random(900) < 0.02, -999, g.normal(size=900)),
    })
    frame.to_csv(tmp_path / "t.csv", index=False)
    return tmp_path / "t.csv"


def test_the_command_prints_columns_problems_and_options(run, path):
    """Options as flags; those of reading are the same as of `fit`."""
    text = run("data", path, "--where", "mass<50").out
    head, columns, problems, options = text.split("\n\n")
    assert head.startswith(f"{path}: ") and head.endswith(" rows")
    (mass,) = (line.split() for line in columns.splitlines() if line.startswith("mass"))
    assert mass[1] == "continuous" and mass[-1] == "1,"
    assert "kind    text, left out" in columns
    assert "warning: column 'count' holds whole numbers only" in problems
    assert [line.strip() for line in options.splitlines()[1:]] == [
        "--missing -999",
        "--repair dequantize",
        "--bounds mass=1,",
    ]
    printed, expected = json.loads(run("data", path, "--json").out), examine(path).to_dict()
    assert printed["suggestions"] == expected["suggestions"]
    assert printed["columns"] == json.loads(json.dumps(expected["columns"]))


def test_a_fit_with_the_suggested_options_has_no_such_problem_left(run, path, tmp_path):
    """They can be pasted."""
    options = run("data", path).out.partition("help:\n")[2]
    words = ("--depth", 2, "--hidden", 8, "--max-epochs", 1, "--quiet", "--json")
    result = run("fit", path, "--out", tmp_path / "run", *shlex.split(options), *words)
    findings = json.loads(result.out)["findings"]
    assert not [finding for finding in findings if finding["code"] in ("KF603", "KF608")]


def test_a_fit_adds_noise_to_counts_and_its_samples_are_counts(run, path, tmp_path):
    """It says so, and leaves them as they are with an option."""
    data = run("data", path, "--columns", "count").out
    assert "a fit in memory adds uniform noise of width 1 unless --repair is given" in data
    assert "Options" not in data
    words = ("fit", path, "--columns", "mass", "count", *SMALL, "--json")
    notes = json.loads(run(*words, "--out", tmp_path / "noise").out)["notes"]
    (note,) = [note for note in notes if "to 'count' (1): the likelihood is a bound" in note]
    assert note.endswith("; --repair keep leaves them as they are")
    samples = pd.read_csv(StringIO(run("sample", tmp_path / "noise", "-n", 300, "--out", "-").out))
    assert set(samples["count"]) <= set(range(20)) and (samples["mass"] % 1 != 0).all()
    kept = json.loads(run(*words, "--out", tmp_path / "kept", "--repair", "keep").out)
    assert kept["likelihood"] == "exact" and "whole numbers" in kept["verdict"]


def test_a_column_of_weights_is_not_questioned(run, tmp_path):
    """It is not modeled, as in a fit with this option; without the option it is a question."""
    path = tmp_path / "t.csv"
    rows = np.random.default_rng(0).normal(size=(300, 3)) ** [1, 1, 2]
    np.savetxt(path, rows, header="a,b,weight", comments="", delimiter=",")
    question = "named like a weight of rows, and is modeled like the others"
    assert question in run("data", path).out
    done = run("data", path, "--weights", "weight", "--json")
    assert done.status == 0, done.err
    result = json.loads(done.out)
    assert {c["name"]: c["role"] for c in result["columns"]}["weight"] == "left out"
    assert question not in done.out and result["suggestions"] == {}


def test_files_that_are_no_tables_are_refused(run, path):
    """In one sentence."""
    refused(run("data", "digits"), "'file' should be a table, digits holds images")
    refused(run("data", path.with_name("u.csv")), "there is no file")
    refused(run("data", "--where", "kind=even"), "'where' should be left out without a file")
