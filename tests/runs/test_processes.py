"""Real processes: killed and started again, or with less memory than their tables take."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from kappaflow.data.on_disk import REST, TRAIN
from kappaflow.runs import ModelConfig, TableConfig, fit_run
from kappaflow.training import read_metrics

pytestmark = pytest.mark.slow
CHUNKED = """
import sys
from kappaflow.cli.app import main
from kappaflow.data import chunks
from kappaflow.runs import samples
from kappaflow.training import measure
chunks.CHUNK_ROWS = int(sys.argv[1])
measure.ROWS_AT_ONCE = samples.ROWS_AT_ONCE = 64
sys.exit(main(sys.argv[2:]))
"""
# The high-water mark of this program alone: ru_maxrss counts that of the process it came from too.
MEASURED = """
import sys
from pathlib import Path
from kappaflow.cli.app import main
status = main(sys.argv[1:])
print(Path("/proc/self/status").read_text())
sys.exit(status)
"""
LIMITED = """
import resource, sys
from kappaflow.cli.app import main
resource.setrlimit(resource.RLIMIT_DATA, (int(sys.argv[1]), int(sys.argv[1])))
sys.exit(main(sys.argv[2:]))
"""
STOPPING = """
import sys, time
from contextlib import contextmanager
from kappaflow.cli.app import main
from kappaflow.data import chunks, on_disk
from kappaflow.training.run_folder import RunFolder
chunks.CHUNK_ROWS = 500
size, last = int(sys.argv[1]), int(sys.argv[2])
rows_file, log = on_disk._rows_file, RunFolder.log
@contextmanager
def file_of_some(*arguments):
    with rows_file(*arguments) as take:
        written = 0
        def take_some(rows):
            nonlocal written
            if written > size:
                time.sleep(1000)  # until it is killed, however late that is
            take(rows)
            written += rows.nbytes
        yield take_some
def log_some(self, figures):
    if figures["epoch"] > last:
        time.sleep(1000)
    log(self, figures)
on_disk._rows_file, RunFolder.log = file_of_some, log_some
sys.exit(main(sys.argv[3:]))
"""
ROWS = 10_000
FEW, MANY, COLUMNS = 250_000, 2_500_000, 4
ALLOWED = 80e6  # bytes: scores of 2,250,000 rows take 72 MB, and the rows would take as much again
# Memory that is free goes back at once, or its peak depends on how fast the machine is.
AT_ONCE = "dirty_decay_ms:0,muzzy_decay_ms:0"
ALL = 10**12  # bytes or epochs
ON_DISK = "--model real_nvp --depth 2 --hidden 8 --quiet --on-disk".split()
LARGE = 9_100_000, 16
LIMIT = 1_150_000_000  # bytes that are no file: Python with torch and polars takes most of them
linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has these figures")


def started(program, *words):
    """Starts a program in a process of one thread, which Ctrl-C reaches."""
    return subprocess.Popen(
        [sys.executable, "-c", program, *map(str, words)],
        env=os.environ
        | {"OMP_NUM_THREADS": "1", "POLARS_MAX_THREADS": "1", "_RJEM_MALLOC_CONF": AT_ONCE},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def finished(program, *words):
    """Runs a process to its end, and returns what it printed."""
    process = started(program, *words)
    out, err = process.communicate(timeout=1000)
    assert process.returncode == 0, err
    return out


def fitted(folder, rows):
    """Returns a small run on the first 500 rows of a table."""
    pl.DataFrame(rows[:500], schema=[f"x{i}" for i in range(rows.shape[1])]).write_parquet(
        folder / "train.parquet"
    )
    model = ModelConfig("real_nvp", {"depth": 2, "hidden": (8,)})
    source = TableConfig(data=str(folder / "train.parquet"))
    return fit_run(source, model, folder / "run", progress=False, max_epochs=1).folder


def stopped(words, folder, chunks, sent):
    """Sends a signal to a process once it has written so many chunks; returns it at its end."""
    process = started(CHUNKED, 64, *words)
    while process.poll() is None and len(list(folder.glob(".0*.tmp"))) < chunks:
        time.sleep(0.0005)
    process.send_signal(sent)
    return process.communicate(timeout=600)[1], process.returncode


@pytest.mark.parametrize("command", ["score", "sample"])
def test_a_killed_process_leaves_no_file_and_starts_again(tmp_path, command):
    """Two kills, then to the end: the file of a process that wrote all at once, and no other."""
    folder = tmp_path / "data"
    folder.mkdir()
    x = np.random.default_rng(0).normal(size=(ROWS, 2))
    pl.DataFrame(x, schema=["x0", "x1"]).write_csv(folder / "t.csv")
    run = fitted(folder, x)
    at_once, out = tmp_path / "at-once.csv", tmp_path / "out.csv"
    words = [command, run, *([folder / "t.csv"] if command == "score" else ["-n", ROWS])]
    finished(CHUNKED, 10 * ROWS, *words, "--out", at_once)
    parts = tmp_path / ".out.csv.parts"
    for chunks in (2, 40):
        _, status = stopped([*words, "--out", out], parts, chunks, signal.SIGKILL)
        assert status == -signal.SIGKILL and not out.exists()
    finished(CHUNKED, 64, *words, "--out", out)
    assert out.read_bytes() == at_once.read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["at-once.csv", "data", "out.csv"]
    if command == "sample":
        out.unlink()
        words[-1] = 100 * ROWS
        text, status = stopped([*words, "--out", out], parts, 1, signal.SIGINT)
        assert status == 130 and "stopped" in text and "Traceback" not in text
        assert not parts.exists() and not out.exists()


@linux
def test_ten_times_the_rows_take_no_more_memory(tmp_path):
    """To score whatever is read and written, and to sample."""
    x = np.random.default_rng(0).normal(size=(MANY, COLUMNS))
    run = fitted(tmp_path, x)
    frame = pl.DataFrame(x, schema=[f"x{i}" for i in range(COLUMNS)])
    for rows in (FEW, MANY):
        frame.head(rows).write_parquet(tmp_path / f"{rows}.parquet")
        np.save(tmp_path / f"{rows}.npy", x[:rows])
        frame.head(rows).write_csv(tmp_path / f"{rows}.csv", float_precision=6)
    for data, suffix in (
        ("parquet", "parquet"), ("npy", "npy"), ("csv", "csv"), ("parquet", "arrow"), ("", "npy"),
    ):  # fmt: skip
        peaks = []
        for rows in (FEW, MANY):
            words = ("score", run, tmp_path / f"{rows}.{data}") if data else ("sample", run)
            more = ("--out", tmp_path / f"s.{suffix}", *(() if data else ("-n", rows)))
            status = finished(MEASURED, *words, *more)
            peaks.append(1024 * int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]))
        few, many = peaks
        assert many < few + ALLOWED, f"{data} to {suffix}: {few / 1e6:.0f} and {many / 1e6:.0f} MB"


@linux
def test_a_table_larger_than_memory_is_trained_on(tmp_path):
    """And refused in a sentence where it is to be read into memory."""
    path = tmp_path / "t.npy"
    generator, size = np.random.default_rng(0), LARGE[0] // 28
    table = np.lib.format.open_memmap(path, "w+", np.float64, LARGE)
    for start in range(0, LARGE[0], size):
        table[start : start + size] = generator.normal(size=(size, LARGE[1]))
    del table
    assert path.stat().st_size > LIMIT
    words = [LIMIT, "fit", path, *ON_DISK, "--max-epochs", 1, "--batch-size", 20_000]
    finished(LIMITED, *words, "--out", tmp_path / "run")
    words.remove("--on-disk")
    process = started(LIMITED, *words, "--out", tmp_path / "other")
    text = process.communicate(timeout=1000)[1]
    assert process.returncode in (1, 2) and "does not fit in memory" in text, text


def until(process, is_reached):
    """Kills a process at a moment."""
    deadline = time.monotonic() + 600
    while not is_reached():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.communicate()


def test_a_process_killed_while_it_writes_rows_or_trains_continues(tmp_path):
    """To the losses of one that was left in peace; nothing of the rows is left."""
    data, run, other = tmp_path / "t.npy", tmp_path / "run", tmp_path / "other"
    np.save(data, np.random.default_rng(0).normal(size=(40_000, 4)))
    words = ["fit", data, *ON_DISK, "--max-epochs", 6, "--batch-size", 4_000, "--out"]
    finished(STOPPING, ALL, ALL, *words, other)
    for size in (1, 200_000):
        process = started(STOPPING, size + 50_000, ALL, *words, run)
        until(process, lambda size=size: size_of(run) >= size)
        assert not (run / "rows" / REST).exists()
    numbers = set()
    for last in (3, 4):
        process = started(STOPPING, ALL, last, *words, run)
        until(process, lambda last=last: lines_of(run) >= last)
        numbers.add((run / "rows" / TRAIN).stat().st_ino)
    assert len(numbers) == 1  # the file was used again
    finished(STOPPING, ALL, ALL, *words, run)
    losses, expected = (
        [(line["train_nll"], line["validation_nll"]) for line in read_metrics(folder)]
        for folder in (run, other)
    )
    assert losses == expected and len(losses) == 6
    assert {path.name for path in run.iterdir()} == {path.name for path in other.iterdir()}


def size_of(run: Path) -> int:
    """Returns the number of bytes of rows that are written."""
    return sum(path.stat().st_size for path in run.glob("rows/.train.npy.*"))


def lines_of(run: Path) -> int:
    """Returns the number of complete lines of metrics."""
    path = run / "metrics.jsonl"
    return path.read_text().count("\n") if path.exists() else 0
