"""Compares training on a table on disk with training in memory: time and memory."""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from benchmarks.processes import console
from benchmarks.score_rows import write_rows
from benchmarks.tables import markdown

KINDS = {"in memory": (), "on disk": ("--on-disk",)}
HEAD = ("table", "whole training [s]", "second epoch [s]", "peak anonymous memory [MB]")
EPOCHS = 2
FIT = "--model real_nvp --depth 4 --hidden 32 --batch-size 4096 --quiet"
EVERY_S = 0.05


def on_disk(*, rows: int = 2_000_000, features: int = 10, repetitions: int = 3) -> None:
    """Train on a parquet file in memory and on disk, in turn, and print times and memory.

    It runs on one thread. Memory is that of the process without mapped files, with libraries.

    Parameters
    ----------
    rows
        Number of rows of the table.
    features
        Number of columns.
    repetitions
        Number of repetitions; medians are printed.
    """
    with tempfile.TemporaryDirectory() as place:
        data = Path(place) / "rows.parquet"
        write_rows(data, rows, features)
        found: dict[str, list[tuple[float, float, float]]] = {kind: [] for kind in KINDS}
        for number in range(repetitions):
            for kind, more in KINDS.items():
                found[kind].append(_trained(data, Path(place) / "run", more))
                console.print(f"{number + 1} of {repetitions}, {kind}: {found[kind][-1]}")
    middle = {
        kind: [median(all_) for all_ in zip(*one, strict=True)] for kind, one in found.items()
    }
    table = [[kind, *(f"{value:.1f}" for value in one)] for kind, one in middle.items()]
    ratios = [disk / memory for memory, disk in zip(*middle.values(), strict=True)]
    table.append(["on disk / in memory", *(f"{ratio:.2f}" for ratio in ratios)])
    print(f"{rows:,} rows of {features} columns\n\n{markdown(HEAD, table)}")


def _trained(data: Path, out: Path, more: tuple[str, ...]) -> tuple[float, float, float]:
    """Returns the total seconds, the seconds of the second epoch, and the peak anonymous MB."""
    shutil.rmtree(out, ignore_errors=True)
    words = ["fit", str(data), "--out", str(out), "--max-epochs", str(EPOCHS), *FIT.split(), *more]
    begun, most = time.perf_counter(), 0
    process = subprocess.Popen(
        [sys.executable, "-m", "kappaflow", *words],
        env={**os.environ, "OMP_NUM_THREADS": "1", "POLARS_MAX_THREADS": "1"},
        stdout=subprocess.DEVNULL,
    )
    while process.poll() is None:
        most = max(most, _anonymous_bytes(process.pid))
        time.sleep(EVERY_S)
    whole = time.perf_counter() - begun
    if process.returncode:
        raise SystemExit(f"the training failed with status {process.returncode}")
    lines = (out / "metrics.jsonl").read_text().splitlines()
    first, second = (json.loads(line)["time_s"] for line in lines)
    return whole, second - first, most / 1e6


def _anonymous_bytes(pid: int) -> int:
    """Returns the anonymous memory of a process, which no file backs; Linux only."""
    try:
        text = Path(f"/proc/{pid}/status").read_text()
    except OSError:  # the process has ended
        return 0
    found = re.search(r"^RssAnon:\s+(\d+) kB", text, re.MULTILINE)
    return 0 if found is None else int(found[1]) * 1024
