"""One training by the processes of each launcher: two real processes, with its variables."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from faults.ranks import both_losses, by_torchrun, same, words
from faults.trainings import ended, started, write_rows

from launched import trained

PROGRAM = str(Path(__file__).parents[1] / "launched.py")
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def alone():
    """The losses of one process."""
    return trained()


def free_port():
    """Returns a port that nothing uses."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


def variables(launcher, rank, port):
    """Returns what a launcher sets for one of two processes."""
    meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    if launcher == "srun":
        step = {"SLURM_JOB_ID": str(port), "SLURM_STEP_ID": "1", "SLURM_NTASKS": "2"}
        nodes = {"SLURM_STEP_NODELIST": "localhost", "SLURM_STEP_TASKS_PER_NODE": "2"}
        numbers = {"SLURM_PROCID": rank, "SLURM_LOCALID": rank, "SLURM_STEP_NUM_TASKS": 2}
        return {**step, **nodes, **{name: str(value) for name, value in numbers.items()}}
    names = {
        "env": ("RANK", "WORLD_SIZE"),
        "mpirun": ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"),
        "mpiexec": ("PMI_RANK", "PMI_SIZE"),
    }[launcher]
    return {**meeting, **dict(zip(names, (str(rank), "2"), strict=True))}


def two(launcher, arguments):
    """Returns the status and the output of two processes of a launcher."""
    port = free_port()
    processes = [
        subprocess.Popen(
            [sys.executable, *map(str, arguments)],
            env={**os.environ, "OMP_NUM_THREADS": "1", **variables(launcher, rank, port)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in (0, 1)
    ]
    return [ended(process) for process in processes]


def written(folder):
    """Returns what each rank wrote."""
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in (0, 1)]


@pytest.mark.parametrize("launcher", ["env", "srun", "mpirun", "mpiexec"])
def test_processes_of_a_launcher_train_one_flow(launcher, alone, tmp_path):
    """The losses are those of one process on each of them."""
    for status, message in two(launcher, [PROGRAM, tmp_path, "launched"]):
        assert not status, message
    for losses in written(tmp_path):
        assert sum(losses, []) == pytest.approx(sum(alone, []), rel=1e-9)


def test_torchrun_trains_one_flow(alone, tmp_path):
    """As the launchers do that set other variables."""
    status, message = ended(started([str(tmp_path), "launched"], [*by_torchrun(2), PROGRAM]))
    assert not status, message
    for losses in written(tmp_path):
        assert sum(losses, []) == pytest.approx(sum(alone, []), rel=1e-9)


def test_a_process_group_of_the_program_is_used_and_kept(alone, tmp_path):
    """The program destroys it itself."""
    for status, message in two("env", [PROGRAM, tmp_path, "own group"]):
        assert not status, message
    for losses in written(tmp_path):
        assert sum(losses, []) == pytest.approx(sum(alone, []), rel=1e-9)


def test_workers_of_ray_train_one_flow(alone, tmp_path):
    """Ray initialises their process group."""
    pytest.importorskip("ray.train")
    status, message = ended(started([str(tmp_path), "ray"], [PROGRAM]))
    assert not status, message
    for losses in written(tmp_path):
        assert sum(losses, []) == pytest.approx(sum(alone, []), rel=1e-9)


@pytest.mark.parametrize(
    ("way", "sentence"),
    [
        ("other rows", "ArgumentError: the 2 ranks should be given the same data"),
        ("one rank of a group", "RankError: not all 2 ranks came to this training within 4 s"),
    ],
)
def test_processes_that_train_something_else_are_refused(way, sentence, tmp_path):
    """Neither a mixture of two trainings nor an endless wait comes of it."""
    for status, message in two("env", [PROGRAM, tmp_path, way]):
        assert not status, message
    assert json.loads((tmp_path / "0.json").read_text()).startswith(sentence)


@pytest.mark.parametrize("rank", ["0", "1"])
def test_a_rank_that_finds_no_other_says_so(rank, tmp_path, monkeypatch):
    """Within a limited time, and with the address."""
    port = free_port()
    for name, value in {**variables("env", rank, port)}.items():
        monkeypatch.setenv(name, value)
    status, message = ended(started([str(tmp_path), "too late"], [PROGRAM]))
    assert not status, message
    text = json.loads((tmp_path / f"{rank}.json").read_text())
    assert text.startswith(f"RankError: rank {rank} of 2 did not meet all the others at 127.0.0.1")


def test_the_command_under_srun_writes_one_run(tmp_path):
    """One rank prints, and the losses are those of one process."""
    data, run = write_rows(tmp_path / "rows.csv"), tmp_path / "run"
    outcomes = two("srun", ["-m", "kappaflow", *words(data, run, 3)])
    assert [status for status, _ in outcomes] == [0, 0], outcomes
    assert "The report is" in outcomes[0][1] and not outcomes[1][1]
    status, message = ended(started(words(data, tmp_path / "alone", 3)))
    assert not status, message
    assert same(both_losses(run), both_losses(tmp_path / "alone"))
