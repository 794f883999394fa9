"""`--weights`: a column that counts the rows instead of being modeled."""

import json

import numpy as np
import polars as pl
import pytest

import kappaflow as kf
from kappaflow.cli.app import main
from kappaflow.errors import ArgumentError

SHORT = {"search_time": 0, "max_epochs": 1, "progress": False, "seed": 3}


def frame(rows=100):
    """Returns rows of two columns with weights between 0 and 3."""
    rng = np.random.default_rng(0)
    return pl.DataFrame({
        "a": rng.normal(size=rows),
        "w": rng.uniform(0, 3, rows),
        "b": rng.gamma(3, size=rows),
    })


def test_a_name_is_the_column_of_that_name():
    """The same training as with its values, bit for bit."""
    by_name = kf.fit_auto(frame(), weights="w", **SHORT)
    by_value = kf.fit_auto(frame().drop("w"), weights=frame()["w"].to_numpy(), **SHORT)
    assert by_name.flow.columns == ("a", "b")
    assert by_name.history[-1]["validation_nll"] == by_value.history[-1]["validation_nll"]
    unweighted = kf.fit_auto(frame().drop("w"), **SHORT)
    assert by_name.history[-1]["validation_nll"] != unweighted.history[-1]["validation_nll"]


def test_a_run_counts_rows_by_the_column_and_scores_without_it(tmp_path, capsys):
    """The report says what the weights are worth; other rows need no weights."""
    data, run = tmp_path / "a.csv", tmp_path / "run"
    frame().write_csv(data)
    command = ["fit", str(data), "--out", str(run), "--weights", "w", "--max-epochs", "1"]
    assert main([*command, "--depth", "2", "--hidden", "8", "--quiet"]) == 0
    facts = dict(json.loads((run / "report.json").read_text())["about"]["data"])
    weights = frame()["w"].to_numpy()
    worth = 0.8 * weights.sum() ** 2 / (weights**2).sum()
    assert float(facts["weights"].split()[-3]) == pytest.approx(worth, rel=0.1)
    frame().drop("w").write_csv(tmp_path / "b.csv")
    assert (
        main(["score", str(run), str(tmp_path / "b.csv"), "--out", str(tmp_path / "s.csv")]) == 0
    )
    assert main(["doctor", str(run)]) in (0, 1)
    assert "w" not in kf.load(run).columns


def test_negative_weights_are_refused_with_a_way_out():
    """Their number is named."""
    weights = np.where(np.arange(100) < 7, -1.0, 1.0)
    with pytest.raises(ArgumentError, match="7 of 100 are negative.*Resample"):
        kf.fit_auto(frame().drop("w"), weights=weights, **SHORT)


def test_a_column_that_is_missing_is_named():
    """With the most similar one."""
    with pytest.raises(ArgumentError, match="'weights' names column 'W'.*did you mean 'w'"):
        kf.fit_auto(frame(), weights="W", **SHORT)


def test_a_right_flow_of_weighted_rows_is_not_blamed(tmp_path, run):
    """The latents of the rows alone are far from normal; those by weight are not."""
    rng = np.random.default_rng(0)
    x = rng.normal(0.5, 2.0, size=(4000, 2))
    weights = np.exp(((x - 0.5) ** 2 / 8 - x**2 / 2).sum(1))  # of a standard normal
    path = tmp_path / "t.csv"
    np.savetxt(path, np.c_[x, weights], header="a,b,w", comments="", delimiter=",")
    options = ("--model", "real_nvp", "--depth", 1, "--max-epochs", 4, "--weights", "w")
    done = run("fit", path, "--out", tmp_path / "run", *options)
    assert done.status == 0, done.err
    again = run("doctor", tmp_path / "run", "--json")
    for text in ((tmp_path / "run" / "diagnosis.json").read_text(), again.out):
        codes = {finding["code"] for finding in json.loads(text)["findings"]}
        assert not codes & {"KF216", "KF403", "KF503"}, codes
