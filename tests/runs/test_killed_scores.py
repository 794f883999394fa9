"""Real processes that score and sample, killed with SIGKILL, and started again."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import polars as pl
import pytest

from kappaflow.runs import ModelConfig, TableConfig, fit_run

PROGRAM = """
import sys
from kappaflow.cli.app import main
from kappaflow.data import chunks
from kappaflow.runs import samples
from kappaflow.training import measure
chunks.CHUNK_ROWS = int(sys.argv[1])
measure.ROWS_AT_ONCE = samples.ROWS_AT_ONCE = 64
sys.exit(main(sys.argv[2:]))
"""
ROWS = 10_000


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run on two columns, with ROWS rows to score next to it."""
    folder = tmp_path_factory.mktemp("run")
    x = np.random.default_rng(0).normal(size=(ROWS, 2))
    pl.DataFrame({"a": x[:, 0], "b": x[:, 1]}).write_csv(folder / "t.csv")
    model = ModelConfig("real_nvp", {"depth": 2, "hidden": (8,)})
    source = TableConfig(data=str(folder / "t.csv"))
    fit_run(source, model, folder / "run", progress=False, max_epochs=1)
    return folder / "run"


def started(rows, words):
    """Starts a process whose chunks have so many rows, and which Ctrl-C reaches."""
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(rows), *map(str, words)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def finished(rows, words):
    """Runs a process to its end."""
    process = started(rows, words)
    errors = process.communicate(timeout=600)[1].decode()
    assert process.returncode == 0, errors


def stopped(words, folder, chunks, sent):
    """Sends a signal to a process once it has written so many chunks; returns it at its end."""
    process = started(64, words)
    while process.poll() is None and len(list(folder.glob(".0*.tmp"))) < chunks:
        time.sleep(0.0005)
    process.send_signal(sent)
    process.errors = process.communicate(timeout=600)[1].decode()
    return process


@pytest.mark.slow
@pytest.mark.parametrize("command", ["score", "sample"])
def test_a_killed_process_leaves_no_file_and_starts_again(run, tmp_path, command):
    """Two kills, then to the end: the file of a process that made all at once, and no other."""
    whole, out = tmp_path / "whole.csv", tmp_path / "out.csv"
    words = [run, run.parent / "t.csv"] if command == "score" else [run, "-n", ROWS]
    finished(10 * ROWS, [command, *words, "--out", whole])
    for chunks in (2, 40):
        folder = tmp_path / ".out.csv.parts"
        process = stopped([command, *words, "--out", out], folder, chunks, signal.SIGKILL)
        assert process.returncode == -signal.SIGKILL and not out.exists()
    finished(64, [command, *words, "--out", out])
    assert out.read_bytes() == whole.read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.csv", "whole.csv"]


@pytest.mark.slow
def test_control_c_leaves_nothing(run, tmp_path):
    """Status 130 and one line."""
    words = ["sample", run, "-n", 100 * ROWS, "--out", tmp_path / "out.csv"]
    process = stopped(words, tmp_path / ".out.csv.parts", 1, signal.SIGINT)
    assert process.returncode == 130
    assert "stopped" in process.errors and "Traceback" not in process.errors
    assert not list(tmp_path.iterdir())
