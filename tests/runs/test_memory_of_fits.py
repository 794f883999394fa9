"""Training on a table on disk in less memory than the table takes, and after kills."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from kappaflow.data.on_disk import REST, TRAIN
from kappaflow.training import read_metrics

LIMITED = """
import resource, sys
from kappaflow.cli.app import main
resource.setrlimit(resource.RLIMIT_DATA, (int(sys.argv[1]), int(sys.argv[1])))
sys.exit(main(sys.argv[2:]))
"""
SMALL_CHUNKS = """
import sys, time
from contextlib import contextmanager
from kappaflow.cli.app import main
from kappaflow.data import chunks, on_disk
from kappaflow.training.run_folder import RunFolder
chunks.CHUNK_ROWS = 500
size, last = int(sys.argv[1]), int(sys.argv[2])
rows_file, log = on_disk._rows_file, RunFolder.log
@contextmanager
def file_of_some(*given):
    with rows_file(*given) as take:
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
ALL = 10**12  # bytes or epochs
MODEL = "--model real_nvp --depth 2 --hidden 8 --quiet --on-disk"
ROWS, COLUMNS = 9_100_000, 16
ALLOWED = 1_150_000_000  # bytes that are no file: Python with torch and polars takes most of them


def started(program, *words):
    """Starts a program in a process of one thread."""
    alone = {"OMP_NUM_THREADS": "1", "POLARS_MAX_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-c", program, *map(str, words)],
        env={**os.environ, **alone}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def finished(process):
    """Waits until a process has ended well."""
    message = process.communicate(timeout=1000)[1]
    assert process.returncode == 0, message


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="no other system limits what is no file")
def test_a_table_larger_than_memory_is_trained_on(tmp_path):
    """And refused in a sentence where it is to be read into memory."""
    path = tmp_path / "t.npy"
    generator, size = np.random.default_rng(0), ROWS // 28
    table = np.lib.format.open_memmap(path, "w+", np.float64, (ROWS, COLUMNS))
    for start in range(0, ROWS, size):
        table[start : start + size] = generator.normal(size=(size, COLUMNS))
    del table
    assert path.stat().st_size > ALLOWED
    words = [ALLOWED, "fit", path, *MODEL.split(), "--max-epochs", 1, "--batch-size", 20_000]
    finished(started(LIMITED, *words, "--out", tmp_path / "run"))
    words.remove("--on-disk")
    process = started(LIMITED, *words, "--out", tmp_path / "other")
    message = process.communicate(timeout=1000)[1]
    assert process.returncode in (1, 2) and "does not fit in memory" in message, message


def written_until(folder, size):
    """Waits until so many bytes of rows to train on are written."""
    deadline = time.monotonic() + 600
    while time.monotonic() < deadline:
        if sum(path.stat().st_size for path in folder.glob("rows/.train.npy.*")) >= size:
            return
        time.sleep(0.001)
    raise AssertionError("no rows were written")


@pytest.mark.slow
def test_a_process_killed_while_it_writes_rows_or_trains_goes_on(tmp_path):
    """To the losses of one that was left in peace; nothing of the rows is left."""
    data, run, whole = tmp_path / "t.npy", tmp_path / "run", tmp_path / "whole"
    np.save(data, np.random.default_rng(0).normal(size=(40_000, 4)))
    words = ["fit", data, *MODEL.split(), "--max-epochs", 6, "--batch-size", 4_000, "--out"]
    finished(started(SMALL_CHUNKS, ALL, ALL, *words, whole))
    for size in (1, 200_000):
        process = started(SMALL_CHUNKS, size + 50_000, ALL, *words, run)
        written_until(run, size)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert not (run / "rows" / REST).exists()
    files = set()
    for last in (3, 4):
        process = started(SMALL_CHUNKS, ALL, last, *words, run)
        while not (run / "metrics.jsonl").exists() or len(read_lines(run)) < last:
            assert process.poll() is None
            time.sleep(0.001)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        files.add((run / "rows" / TRAIN).stat().st_ino)
    assert len(files) == 1  # it was used again
    finished(started(SMALL_CHUNKS, ALL, ALL, *words, run))
    found, expected = (
        [(line["train_nll"], line["validation_nll"]) for line in read_metrics(folder)]
        for folder in (run, whole)
    )
    assert found == expected and len(found) == 6
    assert sorted(path.name for path in run.iterdir()) == sorted(
        path.name for path in whole.iterdir()
    )


def read_lines(run: Path) -> list[str]:
    """Returns the lines of metrics that are whole."""
    return (run / "metrics.jsonl").read_text().rpartition("\n")[0].splitlines()
