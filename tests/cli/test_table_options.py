"""Options of tables: bounds, a condition budget, on disk, duplicates, few rows."""

import json
import re
import subprocess
import sys
from contextlib import ExitStack

import numpy as np
import polars as pl
import pytest
from tests.cli.conftest import SMALL, read

import kappaflow as kf
from kappaflow.runs.stored import read_run, reload_data
from kappaflow.training.progress import describe_likelihood

BOUNDS = ("--bounds", "mass=positive", "p=0,1", "angle=circular:0,360", "late=,5")
BUSY = 6  # processes that never wait


def test_a_run_keeps_its_bounds(run, tmp_path):
    """It is fitted once, samples inside, scores outside as -inf and says so, and is rewritten."""
    rng = np.random.default_rng(0)
    bounded = tmp_path / "rows.csv"
    columns = {
        "angle": np.degrees(rng.vonmises(0, 2, 300)) % 360,
        "mass": rng.lognormal(0, 2, 300),
        "p": rng.beta(2, 0.8, 300),
        "late": 5 - rng.exponential(1, 300),
        "free": rng.normal(size=300),
    }
    pl.DataFrame(columns).write_csv(bounded)
    folder = tmp_path / "run"
    words = ("fit", bounded, "--out", folder, "--model", "spline", *BOUNDS, *SMALL)
    first = run(*words)
    assert first.status == 0, first.err
    config = read(folder, "config.json")
    assert config["run"]["source"]["bounds"] == list(BOUNDS[1:])
    assert config["model"]["arguments"]["bounds"] == ["circular:0,360", "0,", "0,1", ",5", None]
    domains = dict(read(folder, "report.json")["about"]["data"])["domains"]
    assert domains.startswith("mass above 0; p between 0 and 1; angle on the circle from 0 to 360")
    again = run(*words)
    assert again.status == 0 and "finished already" in again.err
    assert run("sample", folder, "-n", 2000, "--out", tmp_path / "drawn.csv").status == 0
    drawn = pl.read_csv(tmp_path / "drawn.csv")
    assert drawn["mass"].min() > 0 and 0 < drawn["p"].min() and drawn["p"].max() < 1
    assert drawn["angle"].min() >= 0 and drawn["angle"].max() < 360 and drawn["late"].max() < 5
    outside = tmp_path / "outside.csv"
    pl.read_csv(bounded).head(3).with_columns(mass=pl.Series([1.0, -1.0, 0.0])).write_csv(outside)
    scored = run("score", folder, outside)
    values = [float(line.split(",")[1]) for line in scored.out.splitlines()[1:]]
    assert np.isneginf(values).tolist() == [False, True, True]
    assert "2 of 3 rows have a log_prob of -inf" in scored.err
    assert run("doctor", folder).status == 0
    refused = run("doctor", folder, outside)
    assert refused.status in (1, 2) and "row 1 does not" in refused.err
    assert run("rewrite", folder, "--out", tmp_path / "new").status == 0
    x = kf.load(folder).sample(20)
    old, new = (kf.load(f).log_prob(x).detach() for f in (folder, tmp_path / "new"))
    np.testing.assert_allclose(new, old, atol=1e-3)


@pytest.fixture(scope="module")
def correlated(tmp_path_factory):
    """A csv of two columns that belong together, and an angle."""
    path = tmp_path_factory.mktemp("table") / "data.csv"
    a, b, c = np.random.default_rng(0).normal(size=(3, 500))
    np.savetxt(path, np.c_[a, a + 0.2 * b, c], delimiter=",", header="a,b,c", comments="")
    return path


@pytest.mark.slow
def test_fit_shows_the_condition_number_and_its_budget(run, correlated, tmp_path):
    """On the terminal, in result.json, in the report's headline numbers and in config.json."""
    out = tmp_path / "run"
    words = ("fit", correlated, "--out", out, "--condition-budget", 2, "--depth", 2)
    words = (*words, "--hidden", 8, "--max-epochs", 8, "--learning-rate", 0.02)
    done = run(*words)
    assert done.status == 0, done.err
    assert done.err.count("alone need a condition number of") == 1
    result = read(out, "result.json")
    assert result["condition_budget"] == 2.0 and result["condition_rows"] == 50
    assert 1 < result["condition_number_p95"] < 2.2
    assert "(budget 2.00)" in done.out
    report = read(out, "report.json")["result"]
    assert report["condition_number_p95"] == result["condition_number_p95"]
    assert "(budget 2.00)" in (out / "report.html").read_text()
    assert read(out, "config.json")["run"]["training"]["condition_budget"] == 2.0
    metrics = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert all("condition_price" in line for line in metrics)


def test_the_line_of_progress_names_the_budget():
    """After the condition number, where one was measured."""
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


def test_a_run_on_disk_is_used_on_its_held_out_rows(run, tmp_path):
    """Which are drawn again from the table; copies of a row are in one part."""
    x = np.repeat(np.random.default_rng(0).normal(size=(300, 2)), 2, axis=0)
    data, out = tmp_path / "t.npy", tmp_path / "run"
    np.save(data, x)
    words = ("fit", data, "--model", "real_nvp", *SMALL)
    assert run(*words, "--on-disk", "--out", out).status == 0
    rows = reload_data(read_run(out))
    assert [len(part) for part in (rows.trained_on, rows.validation, rows.test)] == [480, 60, 60]
    assert read(out, "result.json")["test"]["rows"] == 60
    repeated = ["rows that repeat earlier ones", "300, kept"]
    assert repeated in read(out, "report.json")["about"]["data"]
    assert "worst layer" in run("doctor", out).out and not (out / "rows").exists()
    in_memory = tmp_path / "memory"
    assert run(*words, "--out", in_memory).status == 0
    assert read(in_memory, "config.json")["run"]["source"]["on_disk"] is None
    assert run(*words, "--out", in_memory, "--on-disk").status == 2


def few(n, columns=2):
    """Returns normal rows."""
    return np.random.default_rng(n).normal(size=(n, columns))


TRAINED = {
    "three rows of one column": (few(3, 1), ()),
    "five rows of tiny numbers, on disk": (1e-30 * few(5), ("--on-disk",)),
    "a context that is constant": (np.c_[few(4, 1), np.full(4, 3.0)], ("--context", "c1")),
    "four rows and padding": (few(4, 1), ("--padding", 1)),
    "five rows within bounds": (np.exp(few(5)), ("--bounds", "c0=positive", "c1=0,100")),
    "twelve rows, six against six": (few(12), ("--where", "kind=a", "--against", "kind=b")),
    "a budget, splines": (few(12), ("--model", "spline", "--condition-budget", 10)),
}
LONG = ("four rows and padding", "a budget, splines")


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow if n in LONG else ()) for n in TRAINED]
)
def test_a_few_rows_make_a_run_that_every_command_can_read(name, tmp_path, run):
    """The verdict says so; no number is nan or inf, and no other library warns."""
    x, options = TRAINED[name]
    lines = [",".join([*map(repr, row), "ab"[i % 2]]) for i, row in enumerate(x.tolist())]
    names = [f"c{i}" for i in range(x.shape[1])]
    table, folder = tmp_path / "tiny.csv", tmp_path / "run"
    table.write_text("\n".join([",".join([*names, "kind"]), *lines]) + "\n")
    small = ("--depth", 2, "--hidden", 4, "--max-epochs", 1, "--quiet")
    for words in (
        ("fit", table, "--out", folder, *small, *options),
        ("doctor", folder),
        ("report", folder),
        ("score", folder, table, "--out", tmp_path / "scores.csv"),
        *([] if "--context" in options else [("sample", folder, "-n", 2)]),
    ):
        outcome = run(*words)
        assert outcome.status == 0, words
        assert not re.search(r"Traceback|Warning|degrees of freedom|encountered", outcome.err)
        assert not re.search(r"\b(nan|inf)\b", outcome.out)
        if words[0] == "fit":
            assert "Use this flow with care" in outcome.out or "Do not" in outcome.out


@pytest.mark.slow
def test_a_fit_on_a_busy_machine_keeps_its_limit_and_its_schedule(tmp_path):
    """Search and training end within 60 s, the learning rate falls, and the report is written."""
    with ExitStack() as stack:
        for _ in range(BUSY):
            process = subprocess.Popen([sys.executable, "-c", "while True: pass"])
            stack.callback(process.wait)
            stack.callback(process.kill)
        command = [sys.executable, "-m", "kappaflow", "fit", "magic", "--out", tmp_path / "run"]
        done = subprocess.run(
            [*command, "--max-time-s", "60"], capture_output=True, text=True, check=True
        )
    assert "measuring the flow and writing its report" in done.stderr
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    last = json.loads(lines[-1])
    assert last["time_s"] < 62 and last["learning_rate_share"] < 0.05
    assert (tmp_path / "run" / "report.html").exists()
