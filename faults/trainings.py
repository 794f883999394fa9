"""Trainings by the command, each in its own process, as targets of faults."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kappaflow.training.checkpoint import read_checkpoint
from kappaflow.training.run_folder import SECONDS_BETWEEN_CHECKPOINTS

ROWS, BATCH, EPOCHS = 600, 64, 60
STEPS = -(-int(0.8 * ROWS) // BATCH)  # steps of an epoch; four of five rows are training rows
MOST_S = 600.0  # longest wait in seconds, on a busy machine
CLOCK = ("time_s", "memory_bytes")


def write_rows(path: Path, rows: int = ROWS) -> Path:
    """Returns the path of a small table after writing it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    x = np.random.default_rng(0).normal(size=(rows, 3))
    x[:, 1] += x[:, 0] ** 2
    np.savetxt(path, x, delimiter=",", header="a,b,c", comments="")
    return path


@dataclass(frozen=True)
class Job:
    """A training that takes a few seconds.

    Attributes:
        data: Path of its table.
        run: Its run folder.
        whole: Its losses without faults.
    """

    data: Path
    run: Path
    whole: list[dict[str, Any]]

    @property
    def words(self) -> list[str]:
        """The words of the command."""
        lasts = f"--max-epochs {EPOCHS} --patience {EPOCHS} --batch-size {BATCH} --quiet"
        shape = "--depth 2 --hidden 8"
        return ["fit", str(self.data), "--out", str(self.run), *shape.split(), *lasts.split()]


def started(
    words: list[str], program: list[str] | None = None, *, output: int = subprocess.DEVNULL
) -> "subprocess.Popen[str]":
    """Returns a process of the command, or of a program that gets its arguments."""
    return subprocess.Popen(
        [sys.executable, *(program or ["-m", "kappaflow"]), *words],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=output,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=_hears_control_c,
    )


def _hears_control_c() -> None:
    """Restores Ctrl-C, which shells disable for background jobs and their children."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def ended(process: "subprocess.Popen[str]") -> tuple[int, str]:
    """Returns the exit status and the output of a process, after waiting for its end."""
    message = process.communicate(timeout=MOST_S)
    return process.returncode, "".join(text or "" for text in message)


def trained_whole(data: Path, run: Path) -> list[dict[str, Any]]:
    """Returns the losses of a training without faults."""
    status, message = ended(started(Job(data, run, []).words))
    if status:
        raise SystemExit(f"a training that was left in peace failed: {message}")
    return losses(run)


def metrics(run: Path) -> list[dict[str, Any]]:
    """Returns the complete lines of metrics.jsonl, even while it is written."""
    path = run / "metrics.jsonl"
    whole = path.read_text().rpartition("\n")[0] if path.exists() else ""
    return [json.loads(line) for line in whole.splitlines()]


def losses(run: Path) -> list[dict[str, Any]]:
    """Returns the metrics of a run without times."""
    return [{k: v for k, v in line.items() if k not in CLOCK} for line in metrics(run)]


def is_finished(run: Path) -> bool:
    """Returns whether a run is finished and evaluated."""
    path = run / "result.json"
    return path.exists() and "test" in json.loads(path.read_bytes())


def wait_for_epoch(process: "subprocess.Popen[str]", run: Path) -> float:
    """Returns the seconds until a process has finished an epoch or has ended, after waiting."""
    begun, epoch = time.perf_counter(), checkpoint_epoch(run)
    expected, before = epoch + 1, _written_at(run)
    while process.poll() is None and time.perf_counter() - begun < MOST_S:
        if _written_at(run) != before and len(metrics(run)) >= expected:
            break
        time.sleep(0.005)
    return time.perf_counter() - begun


def _written_at(run: Path) -> int:
    path = run / "metrics.jsonl"
    return path.stat().st_mtime_ns if path.exists() else 0


def checkpoint_epoch(run: Path) -> int:
    """Returns the epoch of the checkpoint of a run; 0 if there is none."""
    found = read_checkpoint(run)
    return 0 if found is None else found[1]["epoch"]


def steps_beyond_promise(run: Path) -> int:
    """Returns the number of lost steps of a killed run, beyond the promise.

    The promise allows the loss of the second after the last checkpoint, and of one epoch.
    """
    times = [0.0, *(line["time_s"] for line in metrics(run))]
    later = times[checkpoint_epoch(run) :]
    late = [t for t in later[:-1] if t - later[0] > SECONDS_BETWEEN_CHECKPOINTS]
    return STEPS * len(late)
