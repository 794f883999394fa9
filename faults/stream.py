"""The part "stream": rows are scored in bounded memory, and a kill leaves no half-written file."""

import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.score_rows import OURS, fit_ours, write_rows

from faults.outcome import Outcome
from faults.processes import held_by
from faults.trainings import ended, started

FEATURES, DEPTH, WIDTH = 8, 2, 8
MOST_BYTES = 2**30  # limit of memory, libraries included, for any number of rows
PROGRAM = """
import sys
from kappaflow.cli.app import main
from kappaflow.data import chunks
chunks.CHUNK_ROWS = int(sys.argv[1])
sys.exit(main(sys.argv[2:]))
"""


def stream(*, long: bool, seed: int, folder: Path) -> Iterator[Outcome]:
    """Yields the results of scoring many rows."""
    rows, chunk = (10_000_000, 262_144) if long else (200_000, 16_384)
    data, run = folder / f"{rows}.parquet", folder / "real_nvp"
    if not data.exists():
        write_rows(data, rows, FEATURES)
    fit_ours(OURS[0], folder, DEPTH, WIDTH)
    whole, out = folder / f"whole-{rows}.parquet", folder / f"killed-{rows}.parquet"
    peak = 0 if whole.exists() else _scored(run, data, whole, chunk)
    yield Outcome(
        f"rows scored within {MOST_BYTES // 2**20} MB",
        "rows",
        tried=rows,
        survived=rows if whole.exists() and peak < MOST_BYTES else 0,
    )
    out.unlink(missing_ok=True)
    _scored(run, data, out, chunk, parts=rows // chunk // 2)
    nothing, begun = not out.exists(), time.perf_counter()
    _scored(run, data, out, chunk)
    same = nothing and out.exists() and out.read_bytes() == whole.read_bytes()
    same = same and not list(folder.glob(".*.parts"))
    yield Outcome(
        "rows scored by a process that was killed in the middle",
        "rows",
        tried=rows,
        survived=rows if same else 0,
        recovery_s=time.perf_counter() - begun,
    )


def _scored(run: Path, data: Path, out: Path, chunk: int, *, parts: int | None = None) -> int:
    """Returns the peak memory of a scoring process, which is killed after `parts` parts."""
    words = ["score", str(run), str(data), "--out", str(out)]
    process, peak = started(words, ["-c", PROGRAM, str(chunk)]), 0
    folder = out.with_name(f".{out.name}.parts")
    while process.poll() is None:
        found = held_by(process.pid)
        peak = peak if found is None else max(peak, found.peak_bytes)
        if parts is not None and len(list(folder.glob(".0*.tmp"))) >= parts:
            process.kill()
            break
        time.sleep(0.01)
    ended(process)
    return peak
