"""Trainings shared by processes that torchrun started: real ones."""

import json
from pathlib import Path

import pytest
import torch
from faults.ranks import by_torchrun, finish
from faults.trainings import ended, started, write_rows

from kappaflow.cli.app import main
from kappaflow.storage import read_tensors
from kappaflow.training import read_metrics
from rank_cases import CASES, outcome, resumed

ROOT = Path(__file__).parents[2]
EXACT = {"rtol": 1e-9, "atol": 1e-11}


@pytest.fixture(scope="module")
def together(tmp_path_factory):
    """A folder in which each of two ranks has written what it came to, and what they printed."""
    folder = tmp_path_factory.mktemp("together")
    assert resumed(folder / "one then two", stop=True) is None
    status, message = ended(
        started([str(folder)], [*by_torchrun(2), str(ROOT / "tests" / "rank_cases.py")])
    )
    assert not status, message
    return folder, message


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::kappaflow.errors.DataWarning")
@pytest.mark.parametrize("name", CASES)
def test_two_ranks_come_to_what_one_process_does(together, name):
    """Gradients, weights, losses and skipped steps; and both ranks have the same bits."""
    number = list(CASES).index(name)
    first, second = (
        read_tensors(together[0] / f"{number}-{rank}.safetensors")[0] for rank in (0, 1)
    )
    alone = outcome(CASES[name]())
    assert set(first) == set(alone) == set(second)
    for key, value in alone.items():
        assert torch.equal(first[key], second[key]), key
        if (name, key) == ("float16", "skipped_steps"):  # sums of half the rows overflow elsewhere
            assert (first[key] - value).abs().max() <= 1
            continue
        allowed = EXACT if name not in {"bfloat16", "float16"} else {"rtol": 0.05, "atol": 0.05}
        torch.testing.assert_close(first[key], value, **allowed, msg=key)
    if name == "a row that is not finite":
        assert first["skipped_steps"].tolist() == [1, 2]
    elif name != "float16":  # where a scale that was too large is found by skipping a step
        assert first["skipped_steps"].sum() == 0


@pytest.mark.slow
def test_the_first_rank_writes_and_speaks(together):
    """Callbacks are called once, a finished run is the same on all, refusals are one sentence."""
    folder, message = together
    first, second = (json.loads((folder / f"{rank}.json").read_text()) for rank in (0, 1))
    assert (first["epochs reported"], second["epochs reported"]) == (2, 0)
    assert first["again"] and second["again"]
    assert len(read_metrics(folder / "run")) == 2
    assert first["refused"] == second["refused"]
    assert set(first["refused"]) == {"condition_budget", "device", "fit_energy", "out"}
    assert "Warning" not in message, message


@pytest.mark.slow
def test_a_rank_disconnects_before_python_shuts_down(together):
    """A thread that then frees a tensor of a last exchange would abort the process."""
    for rank in (0, 1):
        names = (together[0] / f"{rank}.threads").read_text().split("\n")
        assert names.count("gloo_tcp_loop") == 1  # of gradients: torch's reducer keeps it


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::kappaflow.errors.DataWarning")
def test_a_run_goes_on_with_another_number_of_ranks(together, tmp_path):
    """From one to two and from two to one, to the losses of a training left in peace."""
    expected = resumed(tmp_path / "expected", stop=False)
    assert len(read_metrics(together[0] / "two then one")) == 2
    for name in ("one then two", "two then one"):
        losses = resumed(together[0] / name, stop=False)
        torch.testing.assert_close(torch.tensor(losses), torch.tensor(expected), rtol=1e-9, atol=0)


def test_each_rank_says_who_it_is(tmp_path, monkeypatch, capsys):
    """Which process prints follows from the environment that a launcher makes."""
    for name, value in {"WORLD_SIZE": "2", "RANK": "1"}.items():
        monkeypatch.setenv(name, value)
    assert main(["fit", "two_moons", "--out", str(tmp_path / "run"), "--search-time", "-1"]) == 2
    message = capsys.readouterr()
    assert message.err.startswith("kappaflow: rank 1: 'search_time' should be")
    assert not message.out
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_ranks_search_together(tmp_path):
    """The first says what was chosen, and the winner trains on in all of them."""
    data, run = write_rows(tmp_path / "rows.csv"), tmp_path / "run"
    words = ["fit", str(data), "--out", str(run), "--max-time-s", "6"]
    words += ["--max-epochs", "100000", "--patience", "100000"]  # so that the time ends it
    status, printed = ended(started(words, [*by_torchrun(2), "-m", "kappaflow"]))
    assert not status, printed
    assert printed.count("after a search of") == 1
    search = json.loads((run / "config.json").read_text())["run"]["model_search"]
    assert len(search["trials"]) + search["left_out"] == 6  # a busy machine tries fewer
    assert read_metrics(run)[-1]["learning_rate"] < 1e-3


@pytest.mark.slow
def test_the_command_prints_once(tmp_path):
    """The first rank makes the report and speaks; `make faults-short` kills ranks."""
    data = write_rows(tmp_path / "rows.csv")
    message = finish(data, tmp_path / "printed", count=2, epochs=3)
    assert message.count("The report is") == message.count("Held-out NLL, input units") == 1, (
        message
    )
    assert "Warning" not in message, message
    assert (tmp_path / "printed" / "report.html").exists()
