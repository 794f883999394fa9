"""Commands on a run with kinds of columns: fit, score, sample, impute, report, rewrite, prune."""

import json
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal as polars_equal
from tests.cli.conftest import fitted, read, refused

import kappaflow as kf
from kappaflow.mixed import TableModel
from kappaflow.runs.stored import read_run, reload_data

SMALL = ("--depth", 2, "--hidden", 8, "--max-epochs", 3, "--quiet")


@pytest.fixture(scope="module")
def people(tmp_path_factory):
    """A csv of 400 rows: an identifier, numbers, labels, dates and truth values, with gaps."""
    generator = np.random.default_rng(0)
    x = generator.normal(size=400)
    days = generator.integers(10, 28, 400), generator.integers(10, 13, 400)
    frame = pl.DataFrame({
        "id": np.arange(1000, 1400),
        "height": np.round(170 + 8 * x, 3),
        "age": np.rint(45 + 9 * generator.normal(size=400)).astype(int),
        "region": np.where(x + generator.normal(size=400) > 0, "north", "south"),
        "member": generator.random(400) < 0.5,
        "joined": [f"{2000 + i % 20}-{m}-{d}" for i, (d, m) in enumerate(zip(*days, strict=True))],
        "code": np.arange(400) % 7,
    })
    gone = generator.random((5, 400)) < 0.1
    names = ("height", "age", "region", "member", "joined")
    path = tmp_path_factory.mktemp("people") / "people.csv"
    frame.with_columns(
        pl.when(pl.Series(mask)).then(None).otherwise(pl.col(name)).alias(name)
        for name, mask in zip(names, gone, strict=True)
    ).write_csv(path)
    return path


@pytest.fixture(scope="module")
def mixed(people, tmp_path_factory):
    """A finished run with kinds of columns."""
    words = ("--kinds", "auto", "member=boolean", "--exclude", "code")
    return fitted(tmp_path_factory, people, *words, *SMALL)


def test_a_run_has_the_likelihood_of_all_columns_in_its_result_and_its_report(mixed, people):
    """And the kinds of the columns among the facts; the model of its folder has the same value."""
    result = read(mixed, "result.json")["mixed"]
    assert result["rows"] == 40 and 0 < result["labels_nll"] < result["nll"]
    assert 0 < result["monte_carlo_error"] < 0.1 < result["standard_error"]
    assert read(mixed, "config.json")["run"]["source"]["kinds"] == ["auto", "member=boolean"]
    facts = dict(read(mixed, "report.json")["about"]["data"])
    assert facts["column region"].startswith("category, 2 labels")
    assert facts["column id"].startswith("identifier") and "column code" not in facts
    page = (mixed / "report.html").read_text()
    assert "Held-out NLL of all columns" in page
    scores = TableModel.load(mixed).log_prob(people).log_prob
    assert abs(-scores.mean() - result["nll"]) < 5 * result["standard_error"]


def test_a_table_without_rows_has_nothing_to_score_or_complete(run, mixed, people, tmp_path):
    """One sentence, where an index was out of range."""
    empty, out = tmp_path / "none.parquet", tmp_path / "out.csv"
    pl.read_csv(people).head(0).write_parquet(empty)
    for command, purpose in (("score", "score"), ("impute", "complete")):
        done = run(command, mixed, empty, "--out", out)
        refused(done, f"no rows: there is nothing to {purpose}")


def test_scores_are_those_of_the_model_of_the_run_with_their_errors(run, mixed, people, tmp_path):
    """In the order of the rows, with names and percentiles among the held-out rows."""
    out = tmp_path / "scores.csv"
    done = run("score", mixed, people, "--id", "id", "--out", out)
    assert done.status == 0, done.err
    scores = pl.read_csv(out)
    assert scores.columns == ["row", "id", "log_prob", "standard_error", "percentile"]
    assert scores["row"].to_list() == list(range(1, 401))
    assert scores["id"].cast(pl.Int64).to_list() == list(range(1000, 1400))
    expected = TableModel.load(mixed).log_prob(people)
    np.testing.assert_allclose(scores["log_prob"], expected.log_prob, rtol=1e-9)
    np.testing.assert_allclose(scores["standard_error"], expected.standard_error, rtol=1e-6)
    assert scores["percentile"].is_between(0, 100).all()
    ordered = scores.sort("log_prob")["percentile"].to_numpy()
    assert (np.diff(ordered) >= 0).all() and 30 < scores["percentile"].mean() < 70


def test_weights_count_in_the_likelihood_of_all_columns(run, people, tmp_path):
    """A weighted mean over all held-out rows, also those with gaps; no number is in a cell."""
    folder = tmp_path / "run"
    words = ("--kinds", "auto", "--columns", "region", "height", "--weights", "code")
    done = run("fit", people, *words, "--out", folder, *SMALL)
    assert done.status == 0, done.err
    result, rows = (
        read(folder, "result.json")["mixed"],
        reload_data(read_run(folder)).mixed.sources,
    )
    assert result["rows"] == rows[-1].row_count
    source = pl.read_csv(people)
    kept = source.filter(pl.Series(np.isin(np.arange(400), rows[-1].lines - 2)))
    model = TableModel.load(folder)
    nll = -model.log_prob(kept).log_prob
    np.testing.assert_allclose(result["nll"], np.average(nll, weights=kept["code"]), rtol=1e-6)
    assert abs(result["nll"] - nll.mean()) > 1e-4
    labels = np.average(-model.labels_log_prob(kept), weights=kept["code"])
    np.testing.assert_allclose(result["labels_nll"], labels, rtol=1e-6)


def test_samples_have_the_columns_and_the_types_of_the_table(run, mixed, people, tmp_path):
    """Complete rows, as a csv on standard output and in a parquet file."""
    done = run("sample", mixed, "-n", 30)
    assert done.status == 0 and len(done.out.splitlines()) == 31
    first = pl.read_csv(done.out.encode())
    out = tmp_path / "samples.parquet"
    assert run("sample", mixed, "-n", 30, "--out", out).status == 0
    frame, source = pl.read_parquet(out), pl.read_csv(people)
    assert first.columns == frame.columns == [name for name in source.columns if name != "code"]
    assert not frame.null_count().sum_horizontal()[0]
    assert set(frame["region"]) == {"north", "south"} and frame["age"].dtype == pl.Int64
    assert (
        frame["joined"]
        .str.to_date("%Y-%m-%d")
        .is_between(pl.date(1999, 1, 1), pl.date(2021, 1, 1))
        .all()
    )
    np.testing.assert_allclose(first["height"], frame["height"], rtol=1e-12)
    other = run("sample", mixed, "-n", 30, "--seed", 1)
    assert other.out != done.out


def test_samples_given_values_have_them(run, mixed):
    """A label, a whole number, a truth value and a date as text."""
    words = ("region=north", "age=44", "member=true", "joined=2005-11-12")
    done = run("sample", mixed, "-n", 20, "--given", *words)
    assert done.status == 0, done.err
    frame = pl.read_csv(done.out.encode())
    assert len(frame) == 20 and frame["height"].n_unique() > 5
    for name, value in {
        "region": "north",
        "age": 44,
        "member": True,
        "joined": "2005-11-12",
    }.items():
        assert set(frame[name].to_list()) == {value}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("weight=4", "'given' should name columns of the table, got ['weight']"),
        ("id=1005", "'given' should name columns of the table, got ['id']"),
        ("region=west", "has the label 'west'"),
        ("age=44.5", "44.5"),
        ("height=nan", "'given' should have a value for 'height', got nan"),
        ("height=1e9", "draws agree with the given values"),
        ("joined=yesterday", "dates are written like %Y-%m-%d"),
        ("age", "'given' should be values such as age=40, got 'age'"),
    ],
)
def test_given_values_that_are_not_possible_are_refused_in_one_sentence(
    run, mixed, tmp_path, given, message
):
    """With exit status 2, and nothing is written."""
    out = tmp_path / "samples.csv"
    refused(run("sample", mixed, "-n", 5, "--given", given, "--out", out), message)
    assert not list(tmp_path.iterdir())


def test_options_that_a_mixed_run_lacks_are_refused(run, mixed, finished, people, tmp_path):
    """By name, of fits and of samples; `--given` and `impute` need a run with kinds."""
    fit = ("fit", people, "--kinds", "auto", "--out", tmp_path / "run", *SMALL)
    refused(run(*fit, "--context", "salary"), "'context' names column 'salary'")
    for words in (("--jitter", "age"), ("--bounds", "age=positive"), ("--repair", "drop")):
        name = words[0].removeprefix("--")
        refused(run(*fit, *words), f"'{name}' should be left out with 'kinds'")
    refused(run(*fit, "--against", "code=1"), "'against' should be left out with 'kinds'")
    refused(run(*fit, "--duplicates", "weigh"), "'duplicates' should be keep with 'kinds'")
    refused(
        run("fit", people, "--kinds", "region", "--out", tmp_path / "run"), "'kinds' should be"
    )
    refused(run("sample", mixed, "-n", 3, "--temperature", 0.5), "'temperature' should be 1")
    refused(run("sample", mixed, "-n", 3, "--context", people), "'context' should be left out")
    refused(run("sample", finished, "-n", 3, "--given", "a=1"), "'given' should be left out")
    refused(run("impute", finished, people), "'run' should be one with kinds of columns")
    refused(
        run("sample", mixed, "-n", 3, "--out", tmp_path / "x.npz"), "such a file holds numbers"
    )
    assert not list(tmp_path.iterdir())


def test_a_table_of_labels_alone_is_refused_in_one_sentence(run, tmp_path):
    """A run has a flow; the message names the function that needs none."""
    path = tmp_path / "labels.csv"
    path.write_text("a,b\n" + "x,u\ny,v\ny,u\n" * 50)
    message = "kappaflow.fit_table models labels alone"
    refused(run("fit", path, "--kinds", "auto", "--out", tmp_path / "run", *SMALL), message)
    assert list(tmp_path.iterdir()) == [path]


def test_completed_rows_keep_the_text_of_their_values(run, mixed, people, tmp_path):
    """Each field of the csv that was there is there again, also of other columns."""
    out = tmp_path / "done.csv"
    done = run("impute", mixed, people, "--out", out, "--json")
    assert done.status == 0, done.err
    before, after = (path.read_text().splitlines() for path in (people, out))
    assert before[0] == after[0] and len(before) == len(after) == 401
    completed = 0
    for old, new in zip(before[1:], after[1:], strict=True):
        pairs = list(zip(old.split(","), new.split(","), strict=True))
        completed += any(not a for a, _ in pairs)
        assert all(b and a in {"", b} for a, b in pairs), (old, new)
    summary = json.loads(done.out)
    assert summary["rows"] == 400 and summary["completed"] == completed > 100
    assert f"{completed} of 400 rows were completed, in {out}" in done.err
    printed = run("impute", mixed, people)
    assert printed.status == 0
    polars_equal(pl.read_csv(printed.out.encode()), pl.read_csv(out))
    assert run("impute", mixed, people, "--seed", 1).out != printed.out
    refused(run("impute", mixed, people, "--json"), "'out' should be a file with 'json'")


def test_completions_that_cannot_be_made_write_nothing(run, mixed, people, tmp_path):
    """An unknown label, a missing column, and the source as the file."""
    rows = pl.read_csv(people)
    bad = tmp_path / "bad.csv"
    rows.with_columns(region=pl.lit("west")).write_csv(bad)
    out = tmp_path / "done.csv"
    refused(run("impute", mixed, bad, "--out", out), "has the label 'west' at line 2")
    rows.drop("age").write_csv(bad)
    refused(run("impute", mixed, bad, "--out", out), "lacks column 'age'")
    refused(run("impute", mixed, people, "--out", people), "'out'")
    refused(
        run("impute", mixed, people, "--out", out, "--seed", -1), "'seed' should be at least 0"
    )
    assert list(tmp_path.iterdir()) == [bad]


def test_other_commands_take_a_mixed_run_or_refuse_it_in_one_sentence(run, mixed, tmp_path):
    """The page, the diagnosis and a flow on one partition, which keeps the model; not pruning."""
    copy = shutil.copytree(mixed, tmp_path / "run")
    assert run("report", copy).status == 0
    assert "Held-out NLL of all columns" in (copy / "report.html").read_text()
    assert "KF" in run("doctor", copy).out
    refused(run("prune", copy, "--out", tmp_path / "pruned"), "without kinds of columns")
    done = run("rewrite", copy, "--out", tmp_path / "new")
    assert done.status == 0, done.err
    rows = TableModel.load(copy).sample(20)
    old, new = (TableModel.load(path).log_prob(rows) for path in (copy, tmp_path / "new"))
    np.testing.assert_allclose(new.log_prob, old.log_prob, atol=1e-3)
    assert kf.load(tmp_path / "new").context_features == kf.load(copy).context_features > 0
    assert not (tmp_path / "pruned").exists()


@pytest.mark.slow
def test_a_killed_fit_resumes_to_the_same_losses(people, tmp_path):
    """By the same command; the files of the run are the same but for times."""
    words = ["fit", str(people), "--kinds", "auto", "--depth", "2", "--hidden", "8", "--quiet"]
    words = [*words, "--max-epochs", "40", "--seed", "3", "--out"]
    command = [sys.executable, "-m", "kappaflow", *words]
    subprocess.run([*command, str(tmp_path / "whole")], check=True, capture_output=True)
    killed = tmp_path / "killed"
    process = subprocess.Popen([*command, str(killed)], stdout=subprocess.DEVNULL)
    lines = killed / "metrics.jsonl"
    deadline = time.monotonic() + 300
    while not (lines.exists() and len(lines.read_text().splitlines()) > 5):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (killed / "result.json").exists()
    subprocess.run([*command, str(killed)], check=True, capture_output=True)
    losses = [
        [
            json.loads(line)["train_nll"]
            for line in (folder / "metrics.jsonl").read_text().splitlines()
        ]
        for folder in (tmp_path / "whole", killed)
    ]
    assert losses[0] == losses[1]
    whole = read(tmp_path / "whole", "result.json")["mixed"]
    assert read(killed, "result.json")["mixed"]["nll"] == pytest.approx(whole["nll"], rel=1e-9)


def test_a_fit_with_a_context_is_scored_sampled_and_completed(run, people, tmp_path):
    """p(others | age, region): the page says how gaps of the context are read."""
    folder, out = tmp_path / "run", tmp_path / "out.csv"
    fit = ("fit", people, "--kinds", "auto", "--out", folder, *SMALL)
    result = run(*fit, "--context", "region", "age")
    assert result.status == 0 and "Held-out NLL of all columns given the context" in result.out
    page = (folder / "report.html").read_text()
    assert "context" in page and "given the context and labels" in page
    assert run("score", folder, people, "--out", out).status == 0
    context = tmp_path / "context.csv"
    pl.read_csv(people).drop_nulls().head(3).select("age", "region").write_csv(context)
    sampled = run("sample", folder, "-n", 2, "--context", context, "--out", out)
    assert sampled.status == 0, sampled
    rows, given = pl.read_csv(out), pl.read_csv(context)
    assert rows.select("age", "region").equals(pl.concat([given, given]))
    assert run("impute", folder, people, "--out", out).status == 0
    assert pl.read_csv(out)["age"].equals(pl.read_csv(people)["age"])
    refused(run("sample", folder, "-n", 1), "'context' should be rows of")
    given.with_columns(age=pl.lit(900)).write_csv(context)
    far = run("sample", folder, "-n", 1, "--context", context).err
    assert "3 of 3 context rows lie outside the range of the training rows" in far
    pl.read_csv(people).with_columns(age=pl.lit(900)).write_csv(context)
    assert "column 'age' in" in run("score", folder, context).err
    given.with_columns(region=pl.lit("moon")).write_csv(context)
    refused(run("sample", folder, "-n", 1, "--context", context), "has the label 'moon'")


@pytest.mark.parametrize("command", ["fit", "depth", "data examine"])
def test_the_first_remedy_for_gaps_and_texts_is_kinds_where_a_command_has_them(
    command, run, tmp_path
):
    """In errors on gaps, constants and texts; other commands do not name the option."""
    rows = np.random.default_rng(0).normal(size=(80, 2))
    frames = {
        "gaps": pl.DataFrame({"a": [None, *rows[1:, 0]], "b": rows[:, 1]}),
        "constant": pl.DataFrame({"a": rows[:, 0], "b": 1.5}),
        "texts": pl.DataFrame({"a": ["x", "y"] * 40, "day": ["2024-01-01", "2024-01-02"] * 40}),
    }
    for name, frame in frames.items():
        frame.write_csv(tmp_path / f"{name}.csv")
        outcome = run(*command.split(), tmp_path / f"{name}.csv")
        text = outcome.err + outcome.out
        assert ("--kinds auto" in text) == (command == "fit"), text
        if command == "fit" and name != "texts":
            assert text.index("--kinds auto") < text.index("--repair drop")


def test_a_fit_with_kinds_offers_no_option_that_it_refuses(run, tmp_path):
    """An edge of a number by its kind, none of a date, no test of labels where there are none."""
    generator = np.random.default_rng(0)
    days = pl.date_range(pl.date(2024, 1, 1), pl.date(2026, 3, 10), eager=True)
    frame = pl.DataFrame({"wait": generator.exponential(size=800), "day": days})
    frame.write_csv(tmp_path / "t.csv")
    outcome = run("fit", tmp_path / "t.csv", "--kinds", "auto", "--out", tmp_path / "r", *SMALL)
    text = outcome.out + outcome.err + (tmp_path / "r" / "report.html").read_text()
    assert "--kinds wait=positive" in text and "'day' (" not in text
    for wrong in ("--repair", "--bounds", "sampled labels", "given the labels"):
        assert wrong not in text
