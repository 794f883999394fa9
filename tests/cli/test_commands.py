"""What each command does with a run on a table when all is well."""

import io
import json
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from tests.cli.conftest import AGAINST, SMALL, read

import kappaflow as kf
from kappaflow.cli.app import app
from kappaflow.cli.show import shown_step
from kappaflow.data import toy_names
from kappaflow.native import describe

COMMANDS = (
    "fit", "sample", "score", "impute", "doctor", "report", "export", "factor",
    "rewrite", "prune", "depth", "reproduce", "data",
)  # fmt: skip


def test_fit_writes_a_run_folder_with_everything_in_it(finished):
    """The two likelihoods differ by the change of units: the logs of the training deviations."""
    files = {p.relative_to(finished).as_posix() for p in finished.rglob("*") if p.is_file()}
    assert files == {
        "config.json", "model.safetensors", "checkpoint/state.safetensors", "metrics.jsonl",
        "result.json", "diagnosis.json", "report.html", "report.json",
    }  # fmt: skip
    result = read(finished, "result.json")
    assert {"test", "references", "separations", "epochs", "stopped_because"} <= set(result)
    assert read(finished, "diagnosis.json")["ok"] is True
    assert read(finished, "config.json")["run"]["columns"] == ["a", "b", "c"]
    shift = kf.load(finished).bijection.bijections[0].deviation.double().log().sum().item()
    test = result["test"]
    assert test["nll"] - test["nll_standardized"] == pytest.approx(shift, abs=1e-5)


def test_fit_without_out_names_the_folder_after_the_data(run, table, tmp_path, monkeypatch):
    """The same command finds its run there; one with other options says how to name another.

    Notes and findings are the same in the terminal, in JSON and on the page.
    """
    monkeypatch.chdir(tmp_path)
    words = ("fit", table, *SMALL[:-1])
    done = run(*words)
    assert done.status == 0 and "the run folder is runs/data; --out names another" in done.err
    assert (tmp_path / "runs/data/report.html").exists()
    result = json.loads(run(*words, "--json").out)
    assert "runs/data was finished already" in run(*words).err
    other = run(*words, "--seed", 1)
    text = " ".join(other.err.split())
    assert other.status == 2 and "'out' should be a new folder: runs/data was made with" in text
    assert (
        "Without --out the folder is runs/data: give another, such as --out runs/data-2." in text
    )
    report = read(tmp_path / "runs/data", "report.json")["result"]
    assert result["notes"] == report["notes"] and "kind" in result["notes"][0]
    assert all(note in done.err for note in result["notes"])
    assert result["findings"] == report["findings"] != []
    for finding in result["findings"]:
        assert f"{finding['severity']} {finding['code']}" in done.out
        assert finding["message"] in done.out


def test_fit_again_returns_the_stored_result_at_once(run, table, finished):
    """The same command on a finished folder trains nothing and changes no file."""
    before = {p: p.stat().st_mtime_ns for p in finished.rglob("*") if p.is_file()}
    again = run("fit", table, "--out", finished, *AGAINST, *SMALL, "--json")
    assert again.status == 0
    assert json.loads(again.out)["test"] == read(finished, "result.json")["test"]
    assert {p: p.stat().st_mtime_ns for p in finished.rglob("*") if p.is_file()} == before


def test_samples_come_in_the_units_and_under_the_names_of_the_data(run, finished, tmp_path):
    """The same ones for the same seed; at temperature 0 all are the mode."""
    out = tmp_path / "samples.parquet"
    assert run("sample", finished, "-n", 50, "--out", out, "--seed", 3).status == 0
    table = kf.load_table(out)
    expected = kf.load(finished).sample(50, generator=torch.Generator().manual_seed(3)).numpy()
    assert np.allclose(table.values, expected, rtol=1e-6) and table.columns == ("a", "b", "c")
    assert run("sample", finished, "-n", 4, "--out", out, "--temperature", 0).status == 0
    assert np.ptp(kf.load_table(out).values, axis=0).max() == 0


def test_scores_are_the_log_prob_of_each_row_and_its_percentile(run, table, finished, tmp_path):
    """Percentiles are against the scores of the held-out rows: the median has 50."""
    out = tmp_path / "scores.parquet"
    assert run("score", finished, table, "--out", out).status == 0
    scores = pl.read_parquet(out)
    x = torch.from_numpy(kf.load_table(table).values).float()
    expected = kf.load(finished).log_prob(x).detach().double().numpy()
    assert scores.columns == ["row", "log_prob", "percentile"]
    assert np.allclose(scores["log_prob"], expected, atol=1e-5)
    percentile = scores["percentile"].to_numpy()[np.argsort(expected)]
    assert (np.diff(percentile) >= -1e-9).all() and 0 <= percentile[0] and percentile[-1] <= 100
    quantiles = np.array(read(finished, "result.json")["calibration"]["log_prob_quantiles"])
    assert len(quantiles) == 1001 and (np.diff(quantiles) >= 0).all()
    middle = (scores["log_prob"] - quantiles[500]).abs().arg_min()
    assert abs(scores["percentile"][middle] - 50) < 2


def test_scores_name_rows_and_count_those_without_one(run, table, finished, tmp_path):
    """--id copies a column; a gap or a text leaves the score empty, --repair drop the row out."""
    lines = table.read_text().splitlines()[:31]
    names = ["name", *(f"e{i:04}" for i in range(30))]
    lines[5] = "," + lines[5].split(",", 1)[1]
    lines[9] = "broken," + lines[9].split(",", 1)[1]
    data = tmp_path / "events.csv"
    data.write_text("\n".join(f"{a},{b}" for a, b in zip(lines, names, strict=True)) + "\n")
    scored = run("score", finished, data, "--id", "name")
    rows = [line.split(",") for line in scored.out.splitlines()]
    assert scored.status == 0 and rows[0] == ["row", "name", "log_prob", "percentile"]
    assert [row[:2] for row in rows[1:]] == [[str(i + 1), f"e{i:04}"] for i in range(30)]
    assert [row[0] for row in rows[1:] if row[2] == "" and row[3] == ""] == ["5", "9"]
    assert "2 of 30 rows could not be scored" in scored.err and "line 6:" in scored.err
    dropped = run("score", finished, data, "--repair", "drop")
    assert len(dropped.out.splitlines()) == 29
    assert "2 rows could not be scored and were left out" in dropped.err


def test_standard_input_and_output_work_as_a_dash(run, finished, monkeypatch):
    """Samples piped into score come out scored."""
    samples = run("sample", finished, "-n", 5).out
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(samples.encode())))
    scored = run("score", finished, "-").out.splitlines()
    assert scored[0] == "row,log_prob,percentile" and len(scored) == 6


def test_report_is_drawn_again_from_its_numbers(run, finished):
    """A deleted page comes back, byte for byte."""
    page = (finished / "report.html").read_bytes()
    (finished / "report.html").unlink()
    assert run("report", finished).out.strip() == str(finished / "report.html")
    assert (finished / "report.html").read_bytes() == page
    assert json.loads(run("report", finished, "--json").out)["result"]["ok"] is True


def test_data_lists_the_shipped_sets_with_their_source(run):
    """Name, size, citation and license, also for machines; images after tables."""
    text = run("data").out
    assert "magic" in text and "10.24432/C52C8B" in text and "CC BY 4.0" in text
    assert "digits: 1,797 handwritten digits" in text and "comes with scikit-learn" in text
    listed = json.loads(run("data", "--json").out)
    names = [data_set["name"] for data_set in listed]
    assert names == ["magic", *toy_names(), "digits", "mnist-5k", "faces"]
    assert listed[0]["rows"] == 19020


def test_a_conditional_run_samples_for_each_context(run, table, tmp_path):
    """Sample then needs the context."""
    folder = tmp_path / "run"
    assert run("fit", table, "--out", folder, "--context", "c", *SMALL).status == 0
    rows = tmp_path / "rows.csv"
    rows.write_text("c\n0.5\n-0.5\n")
    drawn = run("sample", folder, "-n", 3, "--context", rows).out.splitlines()
    assert drawn[0] == "a,b,c" and len(drawn) == 7
    assert run("score", folder, table).status == 0
    refused = run("sample", folder, "-n", 3)
    assert refused.status == 2 and "'context'" in refused.err


def test_every_command_is_documented_and_its_help_has_examples(run):
    """One or two that can be copied."""
    page = (Path(__file__).parents[2] / "docs/command-line.md").read_text()
    assert sorted(name for name in app if not name.startswith("-")) == sorted(COMMANDS)
    for command in COMMANDS:
        assert f"`kappaflow {command}" in page, f"{command} is not in docs/command-line.md"
        examples = run(command, "--help").out.partition("For example:")[2].partition("╭")[0]
        assert examples.count(f"kappaflow {command}") >= (1 if command == "data" else 2)


def test_help_of_commands_does_not_import_torch_or_polars():
    """Help is quick because nothing heavy is loaded for it."""
    code = (
        "import sys\nfrom kappaflow.cli.app import main\n"
        f"for command in {COMMANDS!r}:\n"
        "    assert main([command, '--help']) == 0\n"
        "    heavy = {'torch', 'polars', 'plotly', 'matplotlib', 'scipy', 'rich.progress'}\n"
        "    assert not heavy & set(sys.modules), command"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_sampling_loads_only_what_it_needs(finished):
    """The compiler of torch and scipy.stats would more than double the time of a few samples."""
    code = (
        "import sys\n"
        "from kappaflow.cli.app import main\n"
        f"assert main(['sample', {str(finished)!r}, '-n', '2']) == 0\n"
        "assert 'torch' in sys.modules\n"
        "assert not {'torch._dynamo', 'sympy', 'scipy.stats', 'sklearn'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert not done.returncode, done.stderr


def test_help_of_fit_shows_the_common_options_first(run):
    """The other options follow in groups."""
    text = run("fit", "--help").out
    groups = ("Common options", "Model", "Training", "Data", "Conditioning", "Images", "Output")
    starts = [text.index(f"─ {name} ─") for name in groups]
    assert starts == sorted(starts) and "─ Parameters ─" not in text
    common = text[starts[0] : starts[1]]
    assert common.count("--") < 25 and "--max-time-s" in common and "--bins" not in common


def test_python_dash_m_is_the_command(monkeypatch, capsys):
    """`python -m kappaflow --version` prints the version, and which backend runs."""
    monkeypatch.setattr(sys, "argv", ["kappaflow", "--version"])
    with pytest.raises(SystemExit, match="^0$"):
        runpy.run_module("kappaflow", run_name="__main__")
    assert capsys.readouterr().out.strip() == f"{kf.__version__}, {describe()}"


@pytest.mark.skipif(
    torch.version.cuda is not None and not torch.cuda.is_available(),
    reason="torch would call the missing driver",
)
@pytest.mark.parametrize(
    "command", ["sample", "score", pytest.param("doctor", marks=pytest.mark.slow)]
)
def test_a_cuda_device_is_mentioned_once_where_it_is_not_used(
    run, finished, table, monkeypatch, command
):
    """On stderr; the default stays the CPU."""
    more = {"sample": ("-n", 5), "score": (table,), "doctor": ()}[command]
    note = "--device cuda runs on the CUDA device of this machine"
    plain = run(command, finished, *more)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    outcome = run(command, finished, *more)
    assert outcome.err.count(note) == 1 and note not in plain.err
    assert outcome.out == plain.out
    assert note not in run(command, finished, *more, "--device", "cpu").err


def test_steps_are_shown_on_a_terminal_alone(capsys):
    """On stderr, and nothing of them in a pipe."""
    with shown_step() as show:
        show("layer 1 of 2")
    assert capsys.readouterr().err == ""
    with shown_step(visible=True) as show:
        show("layer 1 of [2]")
    assert capsys.readouterr().out == ""
