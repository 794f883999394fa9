"""`kappaflow fit --condition-budget` and `kappaflow tradeoff`."""

import json

import numpy as np
import pytest
from tests.cli.conftest import SMALL

from kappaflow.training.progress import describe_likelihood


@pytest.fixture(scope="module")
def correlated(tmp_path_factory):
    """A csv of two columns that belong together, and an angle."""
    path = tmp_path_factory.mktemp("table") / "data.csv"
    a, b, c = np.random.default_rng(0).normal(size=(3, 500))
    np.savetxt(path, np.c_[a, a + 0.2 * b, c], delimiter=",", header="a,b,c", comments="")
    return path


def refused(outcome, message):
    """Asserts the form of a refusal."""
    assert outcome.status == 2 and outcome.out == "", outcome
    assert message in outcome.err and outcome.err.count("\n") == 1


@pytest.mark.slow
def test_fit_shows_the_condition_number_that_was_asked_for(run, correlated, tmp_path):
    """On the terminal, in result.json, in the report's headline numbers and in config.json."""
    out = tmp_path / "run"
    words = ("fit", correlated, "--out", out, "--condition-budget", 2, "--depth", 2)
    words = (*words, "--hidden", 8, "--max-epochs", 8, "--learning-rate", 0.02, "--quiet")
    done = run(*words)
    assert done.status == 0, done.err
    result = json.loads((out / "result.json").read_text())
    assert result["condition_budget"] == 2.0 and result["condition_rows"] == 50
    assert 1 < result["condition_number_p95"] < 2.2
    assert "(budget 2, 50 rows)" in done.out
    report = json.loads((out / "report.json").read_text())
    assert report["result"]["condition_number_p95"] == result["condition_number_p95"]
    assert "(budget 2.00)" in (out / "report.html").read_text()
    config = json.loads((out / "config.json").read_text())
    assert config["run"]["training"]["condition_budget"] == 2.0
    metrics = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert all("condition_price" in line for line in metrics)


@pytest.mark.slow
def test_fit_says_where_correlations_ask_for_more(run, correlated, tmp_path):
    """Once, before training."""
    words = ("--depth", 2, "--hidden", 8, "--max-epochs", 1)
    done = run("fit", correlated, "--out", tmp_path / "run", "--condition-budget", 3, *words)
    assert done.err.count("alone need a condition number of") == 1


@pytest.mark.slow
@pytest.mark.parametrize("budget", ["0.5", "1", "nan", "inf"])
def test_a_budget_that_is_none_is_refused(run, correlated, tmp_path, budget):
    """In one sentence, with no folder made."""
    words = ("fit", correlated, "--out", tmp_path / "run", "--condition-budget", budget, *SMALL)
    refused(run(*words), "'condition_budget' should be")
    assert not (tmp_path / "run").exists()


def test_images_are_refused_by_both_commands(run, tmp_path):
    """They have other options, and no trade-off."""
    words = ("digits", "--out", tmp_path / "run")
    refused(run("fit", *words, "--condition-budget", 9), "--condition-budget is an option of")
    refused(run("tradeoff", *words), "should be a table")


def test_tradeoff_prints_a_table_and_names_its_page(run, correlated, tmp_path):
    """With a context too; a second call answers from what is there, as JSON."""
    words = ("tradeoff", correlated, "--budgets", 2, 50, "--couplings", 2, "--hidden", 8)
    words = (*words, "--max-epochs", 3, "--context", "c", "--out", tmp_path / "out", "--quiet")
    done = run(*words)
    assert done.status == 0, done.err
    lines = done.out.splitlines()
    assert lines[0].split()[0] == "budget"
    assert [line.split()[0] for line in lines[1:4]] == ["2", "50", "none"]
    assert str(tmp_path / "out" / "index.html") in done.out
    again = json.loads(run(*words, "--json").out)
    assert [flow["budget"] for flow in again["flows"]] == [2.0, 50.0, None]
    assert ["rows to train / validate / test", "400 / 50 / 50"] in again["model"]
    assert ["context", "c"] in again["model"]
    assert "exclude" not in dict(again["model"])


def test_the_line_of_progress_names_the_budget():
    """Behind the condition number, where one was measured."""
    figures = {
        "condition_number_p95": 98.76,
        "train_nll_standardized": 1.0,
        "validation_nll_standardized": 2.0,
        "train_nll": 1.0,
    }
    assert describe_likelihood(figures, "nll", 100.0).endswith("cond 98.8 of 100")
    assert describe_likelihood(figures, "nll", None).endswith("cond 98.8")
    unmeasured = {**figures, "condition_number_p95": None}
    assert "cond" not in describe_likelihood(unmeasured, "nll", 100.0)
