"""How much memory it takes to score and to sample does not depend on how many rows there are."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from kappaflow.runs import ModelConfig, TableConfig, fit_run

# The high-water mark of this program alone: ru_maxrss counts that of the process it came from too.
PROGRAM = """
import re, sys
from pathlib import Path
from kappaflow.cli.app import main
status = main(sys.argv[1:])
print(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])
sys.exit(status)
"""
FEW, MANY, COLUMNS = 300_000, 3_000_000, 4
ALLOWED = 80e6  # bytes, where all scores are 48 MB and all numbers read 96 MB, each many times


def peak_bytes(*words):
    """Returns the most that a command had in memory, in bytes."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "POLARS_MAX_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *map(str, words)],
        capture_output=True, text=True, check=True, env=environment,
    )  # fmt: skip
    return 1024 * int(done.stdout.split()[-1])


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A small run, with few rows and with many to score next to it."""
    folder = tmp_path_factory.mktemp("run")
    x = np.random.default_rng(0).normal(size=(MANY, COLUMNS))
    frame = pl.DataFrame({f"x{i}": x[:, i] for i in range(COLUMNS)})
    for rows in (FEW, MANY):
        frame.head(rows).write_parquet(folder / f"{rows}.parquet")
        np.save(folder / f"{rows}.npy", x[:rows])
        frame.head(rows).write_csv(folder / f"{rows}.csv", float_precision=6)
    frame.head(500).write_parquet(folder / "train.parquet")
    model = ModelConfig("real_nvp", {"depth": 2, "hidden": (8,)})
    source = TableConfig(data=str(folder / "train.parquet"))
    fit_run(source, model, folder / "run", progress=False, max_epochs=1)
    return folder / "run"


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="this is not Linux")
@pytest.mark.parametrize(
    ("data", "suffix"),
    [("parquet", "parquet"), ("npy", "npy"), ("csv", "csv"), ("parquet", "arrow")],
)
def test_ten_times_the_rows_take_no_more_memory_to_score(run, tmp_path, data, suffix):
    """Whatever is read, and whatever is written."""
    few, many = (
        peak_bytes("score", run, run.parent / f"{rows}.{data}", "--out", tmp_path / f"s.{suffix}")
        for rows in (FEW, MANY)
    )
    assert many < few + ALLOWED, f"{few / 1e6:.0f} and {many / 1e6:.0f} MB"


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="this is not Linux")
def test_ten_times_the_rows_take_no_more_memory_to_draw(run, tmp_path):
    """Nor does it take more to sample."""
    few, many = (
        peak_bytes("sample", run, "-n", rows, "--out", tmp_path / "s.parquet")
        for rows in (FEW, MANY)
    )
    assert many < few + ALLOWED, f"{few / 1e6:.0f} and {many / 1e6:.0f} MB"
