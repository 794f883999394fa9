"""Real processes that score and sample, killed with SIGKILL at any moment, and started again."""

import os
import random
import signal
import subprocess
import sys
import time

import numpy as np
import polars as pl
import pytest

from kappaflow.runs import ModelConfig, TableConfig, fit_run

PROGRAM = """
import sys, time
from kappaflow.cli.app import main
from kappaflow.data import chunks
from kappaflow.runs import chunked_output, samples
from kappaflow.training import measure
chunks.CHUNK_ROWS, parts = int(sys.argv[1]), iter(range(int(sys.argv[2])))
measure.ROWS_AT_ONCE = samples.ROWS_AT_ONCE = 64
table_bytes = chunked_output.table_bytes
def some(*given):
    if next(parts, None) is None:
        time.sleep(1000)  # until it is killed, however late that is
    return table_bytes(*given)
chunked_output.table_bytes = some
sys.exit(main(sys.argv[3:]))
"""
ROWS = 4000


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run on two columns, with ROWS rows to score beside it."""
    folder = tmp_path_factory.mktemp("run")
    x = np.random.default_rng(0).normal(size=(ROWS, 2))
    pl.DataFrame({"a": x[:, 0], "b": x[:, 1]}).write_parquet(folder / "t.parquet")
    model = ModelConfig("real_nvp", {"depth": 2, "hidden": (8,)})
    source = TableConfig(data=str(folder / "t.parquet"))
    fit_run(source, model, folder / "run", progress=False, max_epochs=1)
    return folder / "run"


def hears_control_c():
    """Lets a process hear Ctrl-C, which shells disable for what runs in the background."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def started(rows, words, parts=10**9):
    """Starts a process whose chunks have so many rows, and that waits after so many chunks."""
    command = [sys.executable, "-c", PROGRAM, str(rows), str(parts), *map(str, words)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command, env=environment, stderr=subprocess.PIPE, preexec_fn=hears_control_c
    )


def finished(rows, words):
    """Runs a process to its end."""
    process = started(rows, words)
    said = process.communicate(timeout=600)[1].decode()
    assert process.returncode == 0, said


def killed(words, folder, parts, delay_s):
    """Kills a process a little after there are so many parts; returns how many it left."""
    process = started(64, words, parts + 4 - len(list(folder.glob("0*.parquet"))))
    deadline = time.monotonic() + 600
    while process.poll() is None and time.monotonic() < deadline:
        if len(list(folder.glob("0*.parquet"))) >= parts:
            time.sleep(delay_s)
            break
        time.sleep(0.0005)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    return len(list(folder.glob("0*.parquet")))


@pytest.mark.slow
@pytest.mark.parametrize("command", ["score", "sample"])
def test_a_process_killed_at_random_moments_ends_with_the_same_file(run, tmp_path, command):
    """Three kills, then to the end: the file of a process that made all at once."""
    whole, out = tmp_path / "whole.csv", tmp_path / "out.csv"
    words = [run, run.parent / "t.parquet"] if command == "score" else [run, "-n", ROWS]
    finished(10 * ROWS, [command, *words, "--out", whole])
    moments, folder, left = random.Random(0), tmp_path / ".out.csv.parts", []
    for parts in (0, 2, 40):
        words_out = [command, *words, "--out", out]
        left.append(killed(words_out, folder, parts, moments.uniform(0, 0.01)))
        assert not out.exists()
    assert left == sorted(left) and left[-1] >= 40  # no part is ever lost
    finished(64, [command, *words, "--out", out])
    assert out.read_bytes() == whole.read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.csv", "whole.csv"]


@pytest.mark.slow
def test_control_c_says_how_to_go_on(run, tmp_path):
    """Status 130 and one line; the parts stay."""
    words = ["sample", run, "-n", 100 * ROWS, "--out", tmp_path / "out.csv"]
    process, folder = started(64, words), tmp_path / ".out.csv.parts"
    deadline = time.monotonic() + 600
    while not len(list(folder.glob("0*.parquet"))) and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=600)[1].decode()
    assert process.returncode == 130
    assert "run the same command again to resume" in said and "Traceback" not in said
    assert list(folder.glob("0*.parquet"))
