"""What each command does when all is well."""

import io
import json
import subprocess
import sys

import numpy as np
import polars as pl
import pytest
import torch
from tests.cli.conftest import SMALL

import kappaflow as kf
from kappaflow.cli.app import app
from kappaflow.native import describe

COMMANDS = (
    "fit", "sample", "score", "doctor", "report", "export", "factor", "rewrite", "tradeoff",
    "reproduce", "data",
)  # fmt: skip


def test_fit_writes_a_run_folder_with_everything_in_it(finished):
    """Model, checkpoint, metrics, result, diagnosis and report are there and can be read."""
    files = {p.relative_to(finished).as_posix() for p in finished.rglob("*") if p.is_file()}
    assert files == {
        "config.json", "model.safetensors", "checkpoint/state.safetensors", "metrics.jsonl",
        "result.json", "diagnosis.json", "report.html", "report.json",
    }  # fmt: skip
    result = json.loads((finished / "result.json").read_text())
    assert {"test", "references", "separations", "epochs", "stopped_because"} <= set(result)
    assert json.loads((finished / "diagnosis.json").read_text())["ok"] is True
    assert json.loads((finished / "config.json").read_text())["run"]["columns"] == ["a", "b", "c"]


@pytest.mark.slow
def test_a_whitened_start_is_fitted_stored_and_said(run, table, tmp_path):
    """The rows are uncorrelated at first; model, configuration and report know of it."""
    words = ("--start", "whiten", "--model", "nice", *SMALL)
    assert run("fit", table, "--out", tmp_path / "run", *words).status == 0
    (whiten,) = [p for p in kf.load(tmp_path / "run").modules() if isinstance(p, kf.factor.Whiten)]
    assert whiten.fitted
    config = json.loads((tmp_path / "run/config.json").read_text())
    assert config["model"]["arguments"]["start"] == "whiten"
    message = json.loads((tmp_path / "run/report.json").read_text())
    assert ["start", "whiten"] in message["about"]["model"]
    again = run("fit", table, "--out", tmp_path / "run", *SMALL, "--model", "nice")
    assert again.status == 2 and "run" in again.err


def test_fit_without_out_names_the_folder_after_the_data(run, table, tmp_path, monkeypatch):
    """The same command finds its run there; one with other options says how to name another."""
    monkeypatch.chdir(tmp_path)
    words = ("fit", table, *SMALL[:-1])
    done = run(*words)
    assert done.status == 0 and "the run folder is runs/data; --out names another" in done.err
    assert (tmp_path / "runs/data/report.html").exists()
    assert "runs/data was finished already" in run(*words).err
    other = run(*words, "--seed", 1)
    assert (
        other.status == 2 and "'out' should be a new folder: runs/data was made with" in other.err
    )
    assert "Without --out the folder is runs/data: give another, such as --out runs/data-2." in (
        " ".join(other.err.split())
    )
    assert "'out' should be given for standard input" in run("fit", "-", *SMALL).err


def test_notes_and_findings_are_the_same_in_the_terminal_in_json_and_on_the_page(
    run, table, tmp_path
):
    """The table leaves out a column of text, and the training is too short."""
    words = ("fit", table, "--out", tmp_path / "run", *SMALL[:-1])
    shown = run(*words)
    result = json.loads(run(*words, "--json").out)
    report = json.loads((tmp_path / "run/report.json").read_text())
    assert result["notes"] == report["result"]["notes"] and "kind" in result["notes"][0]
    assert all(note in shown.err for note in result["notes"])
    keys = ("code", "severity", "message", "cause", "fix")
    assert [[one[key] for key in keys] for one in result["findings"]] == [
        [one[key] for key in keys] for one in report["result"]["findings"]
    ]
    assert result["findings"]
    for one in result["findings"]:
        assert f"{one['severity']} {one['code']}" in shown.out and one["message"] in shown.out


def test_the_two_likelihoods_differ_by_the_change_of_units(finished):
    """Their difference is the sum of the logs of the training deviations."""
    test = json.loads((finished / "result.json").read_text())["test"]
    units = kf.load(finished).bijection.bijections[0]
    shift = units.deviation.double().log().sum().item()
    assert test["nll"] - test["nll_standardized"] == pytest.approx(shift, abs=1e-5)


def test_fit_again_returns_the_stored_result_at_once(run, table, finished):
    """The same command on a finished folder trains nothing and changes no file."""
    before = {p: p.stat().st_mtime_ns for p in finished.rglob("*") if p.is_file()}
    words = ("--out", finished, "--where", "kind=even", "--against", "kind=odd")
    again = run("fit", table, *words, *SMALL, "--json")
    assert again.status == 0
    stored = json.loads((finished / "result.json").read_text())
    assert json.loads(again.out)["test"] == stored["test"]
    assert {p: p.stat().st_mtime_ns for p in finished.rglob("*") if p.is_file()} == before


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".arrow", ".npy", ".npz"])
def test_samples_come_in_the_units_and_under_the_names_of_the_data(
    run, finished, tmp_path, suffix
):
    """Every format holds as many rows as asked for, the same ones for the same seed."""
    out = tmp_path / f"samples{suffix}"
    assert run("sample", finished, "-n", 50, "--out", out, "--seed", 3).status == 0
    table = kf.load_table(out)
    generator = torch.Generator().manual_seed(3)
    expected = kf.load(finished).sample(50, generator=generator).numpy()
    assert np.allclose(table.values, expected, rtol=1e-6)
    assert table.columns == (("x0", "x1", "x2") if suffix == ".npy" else ("a", "b", "c"))


def test_scores_are_the_log_prob_of_each_row_and_its_percentile(run, table, finished, tmp_path):
    """log_prob equals that of the loaded flow; percentiles lie in 0..100 and agree in order."""
    out = tmp_path / "scores.parquet"
    assert run("score", finished, table, "--out", out).status == 0
    scores = pl.read_parquet(out)
    x = torch.from_numpy(kf.load_table(table).values).float()
    expected = kf.load(finished).log_prob(x).detach().double().numpy()
    assert scores.columns == ["row", "log_prob", "percentile"]
    assert np.allclose(scores["log_prob"], expected, atol=1e-5)
    order = np.argsort(expected)
    percentile = scores["percentile"].to_numpy()[order]
    assert (np.diff(percentile) >= -1e-9).all() and 0 <= percentile[0] and percentile[-1] <= 100


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
    wrong = run("score", finished, data, "--id", "a")
    assert wrong.status == 2 and "'id' should name a column that the run does not use" in wrong.err


def test_the_median_training_row_has_percentile_fifty(run, finished, tmp_path, table):
    """The percentile is against the training rows' own scores."""
    result = json.loads((finished / "result.json").read_text())
    quantiles = np.array(result["calibration"]["log_prob_quantiles"])
    assert len(quantiles) == 1001 and (np.diff(quantiles) >= 0).all()
    scores = run("score", finished, table)
    rows = [tuple(map(float, line.split(",")[1:])) for line in scores.out.splitlines()[1:]]
    near = min(rows, key=lambda row: abs(row[0] - quantiles[500]))
    assert abs(near[1] - 50) < 2


def test_standard_input_and_output_work_as_a_dash(run, finished, monkeypatch):
    """Samples piped into score come out scored."""
    samples = run("sample", finished, "-n", 5).out
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(samples.encode())))
    scored = run("score", finished, "-").out.splitlines()
    assert scored[0] == "row,log_prob,percentile" and len(scored) == 6


@pytest.mark.slow
def test_doctor_gives_a_verdict_and_names_the_points(run, table, finished):
    """Healthy: status 0, a sentence, and the figures; as JSON too."""
    healthy = run("doctor", finished)
    assert healthy.status == 0 and "Use this flow with care: " in healthy.out
    assert "held-out rows of the run" in healthy.out
    on_table = run("doctor", finished, table)
    assert on_table.status == 0
    assert "The doctor found no problem at 64 of 600 rows" in on_table.out
    assert json.loads(run("doctor", finished, table, "--json").out)["ok"] is True


def test_doctor_fails_on_a_flow_that_cannot_be_believed(run, finished, tmp_path):
    """An error-level finding gives status 1 and names a layer."""
    flow = kf.load(finished)
    flow.bijection.bijections[1].plain().bijections[0].conditioner.layers[-1].bias.data.fill_(
        float("nan")
    )
    kf.save(flow, tmp_path / "bad")
    sick = run("doctor", tmp_path / "bad")
    assert sick.status == 1 and "KF101" in sick.out and "1 AffineCoupling" in sick.out


def test_report_is_drawn_anew_from_its_numbers(run, finished):
    """A deleted page comes back, byte for byte."""
    page = (finished / "report.html").read_bytes()
    (finished / "report.html").unlink()
    assert run("report", finished).out.strip() == str(finished / "report.html")
    assert (finished / "report.html").read_bytes() == page
    assert json.loads(run("report", finished, "--json").out)["result"]["ok"] is True


def test_data_lists_the_shipped_sets_with_their_source(run):
    """Name, size, citation and license, also for machines."""
    listed = run("data").out
    assert "magic" in listed and "10.24432/C52C8B" in listed and "CC BY 4.0" in listed
    assert json.loads(run("data", "--json").out)[0]["rows"] == 19020


def test_a_conditional_run_samples_for_each_context(run, table, tmp_path):
    """--context at fit makes the density conditional; sample and score then want it."""
    folder = tmp_path / "run"
    assert run("fit", table, "--out", folder, "--context", "c", *SMALL).status == 0
    given = tmp_path / "given.csv"
    given.write_text("c\n0.5\n-0.5\n")
    drawn = run("sample", folder, "-n", 3, "--context", given).out.splitlines()
    assert drawn[0] == "a,b,c" and len(drawn) == 7
    assert run("score", folder, table).status == 0
    refused = run("sample", folder, "-n", 3)
    assert refused.status == 2 and "'context'" in refused.err


@pytest.mark.slow
def test_nice_is_a_model_too(run, table, tmp_path):
    """--model nice trains and reports."""
    outcome = run("fit", table, "--out", tmp_path / "run", "--model", "nice", *SMALL)
    assert outcome.status == 0 and "held-out NLL" in outcome.out


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "words"),
    [
        ("planar", ()),
        ("radial", ()),
        ("invertible_network", ("--condition-number", 3, "--smoothing", 0.5)),
        ("invertible_network", ("--linear", "plain", "--negative-slope", 0.5)),
    ],
)
def test_planar_radial_and_invertible_networks_are_models_too(run, table, tmp_path, model, words):
    """They train, report, sample and score; the configuration has what was asked for."""
    folder, few = tmp_path / "run", ("--depth", 2, "--max-epochs", 2, "--quiet")
    outcome = run("fit", table, "--out", folder, "--model", model, *words, *few)
    assert outcome.status == 0 and "held-out NLL" in outcome.out
    arguments = json.loads((folder / "config.json").read_text())["model"]["arguments"]
    names = (word[2:].replace("-", "_") for word in words[::2])
    requested = dict(zip(names, words[1::2], strict=True))
    assert arguments["depth"] == 2 and requested.items() <= arguments.items()
    assert run("sample", folder, "-n", 3).status == 0
    assert run("score", folder, table).status == 0


@pytest.mark.slow
def test_one_column_is_no_gaussian_to_a_planar_flow(run, table, tmp_path):
    """Only couplings have nothing to read there."""
    words = ("--columns", "b", "--max-epochs", 1, "--depth", 1)
    message = run("fit", table, "--out", tmp_path / "one", *words).err
    assert "the flow is a Gaussian" in message
    planar = run("fit", table, "--out", tmp_path / "two", "--model", "planar", *words)
    assert planar.status == 0 and "the flow is a Gaussian" not in planar.err


@pytest.mark.slow
def test_linear_maps_mix_between_couplings_and_can_be_rewritten(run, table, tmp_path):
    """--mixing takes the place of partitions that mix; doctor and rewrite know such a flow."""
    folder = tmp_path / "run"
    words = ("--mixing", "svd", "--condition-bound", 3)
    assert run("fit", table, "--out", folder, *words, *SMALL).status == 0
    arguments = json.loads((folder / "config.json").read_text())["model"]["arguments"]
    kept = {name: arguments[name] for name in ("mixing", "condition_bound", "partition")}
    assert kept == {"mixing": "svd", "condition_bound": 3.0, "partition": "half"}
    assert run("doctor", folder).status == 0
    rewritten = run("rewrite", folder, "--out", tmp_path / "fixed")
    assert rewritten.status == 0 and "SVDLinear" in rewritten.out


def test_every_command_is_known_documented_and_helps():
    """The list of commands is the documented one, and each option has a help text."""
    from pathlib import Path

    page = (Path(__file__).parents[2] / "docs/command-line.md").read_text()
    registered = [name for name in app if not name.startswith("-")]
    assert sorted(registered) == sorted(COMMANDS)
    for name in COMMANDS:
        assert f"`kappaflow {name}" in page, f"{name} is not in docs/command-line.md"


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


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_a_command_has_examples(run, command):
    """One or two that can be copied."""
    examples = run(command, "--help").out.partition("For example:")[2].partition("╭")[0]
    assert examples.count(f"kappaflow {command}") >= (1 if command == "data" else 2)


def test_help_of_fit_shows_the_common_options_first(run):
    """The other options follow in groups."""
    text = run("fit", "--help").out
    groups = ("Common options", "Model", "Training", "Data", "Conditioning", "Images", "Output")
    places = [text.index(f"─ {name} ─") for name in groups]
    assert places == sorted(places) and "─ Parameters ─" not in text
    common = text[places[0] : places[1]]
    assert common.count("--") < 25 and "--max-time-s" in common and "--bins" not in common


def test_python_dash_m_is_the_command():
    """`python -m kappaflow --version` prints the version, and which backend runs."""
    done = subprocess.run(
        [sys.executable, "-m", "kappaflow", "--version"], capture_output=True, text=True
    )
    assert done.stdout.strip() == f"{kf.__version__}, {describe()}"


@pytest.mark.slow
def test_the_flow_of_an_unfinished_run_is_not_passed_off_as_final(run, finished, tmp_path):
    """Samples and diagnosis come with a remark on stderr; of a finished run they do not."""
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(finished, copy)
    (copy / "result.json").unlink()
    for words in (("sample", copy, "-n", 1), ("doctor", copy)):
        outcome = run(*words)
        assert outcome.status == 0
        assert "not finished" in outcome.err
    assert "not finished" not in run("sample", finished, "-n", 1).err


@pytest.mark.slow
def test_tensorboard_gets_the_figures_of_a_command(run, table, tmp_path):
    pytest.importorskip("tensorboard")
    words = ("--depth", 2, "--hidden", 8, "--max-epochs", 1, "--quiet")
    board = tmp_path / "board"
    found = run("fit", table, "--out", tmp_path / "run", *words, "--tensorboard", board)
    assert found.status == 0, found.err
    assert [path.name.startswith("events.") for path in board.iterdir()] == [True]
