"""The part "ranks": one of two ranks of a training is killed, and the run resumes."""

import os
import random
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np

import kappaflow as kf
from faults.outcome import Outcome
from faults.repeated import Ended, repeated
from faults.trainings import MOST_S, checkpoint_epoch, ended, metrics, started, write_rows
from kappaflow.training.run_folder import SECONDS_BETWEEN_CHECKPOINTS

ROWS, EPOCHS = 1500, 30
ENDS_WITHIN_S = 60.0
ROUNDING = 1e-5  # relative difference of float32 losses: 2 ranks and 1 sum in a different order
DONE = "ranks.jsonl"
FAULT = "SIGKILL of one of two ranks at a random moment"


def ranks(*, long: bool, seed: int, folder: Path) -> Iterator[Outcome]:
    """Yields the results of kills of a rank."""
    data = write_rows(folder / "rows.csv", ROWS)
    finish(data, folder / "whole", count=2)
    strike = partial(kill, data=data, whole=folder / "whole")
    yield repeated(FAULT, "ranks", strike, 20 if long else 2, seed=seed, file=folder / DONE)


def kill(run: Path, seed: str, *, data: Path, whole: Path) -> Ended:
    """Returns the result of killing a rank at a random moment."""
    draws = random.Random(seed)
    chosen, epoch, delay_s = draws.randrange(2), draws.randrange(EPOCHS - 8), draws.random() / 4
    process = started_by(2, words(data, run))
    victim = pid_of(process, chosen, epoch=epoch, run=run)
    time.sleep(delay_s)
    os.kill(victim, signal.SIGKILL)
    begun = time.perf_counter()
    status, message = ended(process)
    took_s = time.perf_counter() - begun
    lost = lost_epochs(run)
    if (run / "config.json").exists():
        kf.load(run)
    finish(data, run, count=draws.choice([1, 2]))
    clear = "another rank of this training has ended" in message or "SIGKILL" in message
    ok = (
        bool(status)
        and clear
        and took_s < ENDS_WITHIN_S
        and same(both_losses(run), both_losses(whole))
    )
    return Ended(ok, lost, round(took_s, 2), "" if ok else message[-2000:])


def words(data: Path, run: Path, epochs: int = EPOCHS) -> list[str]:
    """Returns the command of a short training whose random numbers do not depend on ranks."""
    shape = "--depth 2 --hidden 8 --dropout 0"
    lasts = f"--max-epochs {epochs} --patience {epochs} --batch-size 64"
    return ["fit", str(data), "--out", str(run), *shape.split(), *lasts.split()]


def started_by(count: int, words: list[str]) -> "subprocess.Popen[str]":
    """Returns a process of the command, by torchrun if there is more than one rank."""
    program = ["-m", "kappaflow"]
    return started(
        words, [*by_torchrun(count), *program] if count > 1 else program, output=subprocess.PIPE
    )


def by_torchrun(count: int) -> list[str]:
    """Returns the words that start a program, or a module by -m, as several ranks."""
    return ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={count}"]


def finish(data: Path, run: Path, *, count: int, epochs: int = EPOCHS) -> str:
    """Returns the output of a run after completing it."""
    status, message = ended(started_by(count, words(data, run, epochs)))
    if status:
        raise SystemExit(f"a training that was left in peace failed: {message}")
    return message


def pid_of(process: "subprocess.Popen[str]", chosen: int, *, epoch: int, run: Path) -> int:
    """Returns the process ID of a rank, when all ranks run and a number of epochs is over."""
    begun = time.perf_counter()
    while time.perf_counter() - begun < MOST_S:
        found = pids(process)
        if chosen in found and len(metrics(run)) >= epoch:
            return found[chosen]
        if process.poll() is not None:
            break
        time.sleep(0.005)
    process.kill()
    raise SystemExit(f"a training of two ranks did not begin: {ended(process)[1]}")


def pids(process: "subprocess.Popen[str]") -> dict[int, int]:
    """Returns the process IDs of the ranks of a torchrun, by rank (Linux only)."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    found = {}
    for pid in children:
        for entry in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
            if entry.startswith(b"RANK="):
                found[int(entry.removeprefix(b"RANK="))] = int(pid)
    return found


def both_losses(run: Path) -> list[tuple[float, float]]:
    """Returns the losses of all epochs, on training and on held-out rows."""
    return [(line["train_nll"], line["validation_nll"]) for line in metrics(run)]


def same(one: Sequence[tuple[float, float]], other: Sequence[tuple[float, float]]) -> bool:
    """Returns whether losses are equal up to rounding."""
    return len(one) == len(other) and bool(np.allclose(one, other, rtol=ROUNDING, atol=0))


def lost_epochs(run: Path) -> int:
    """Returns the number of lost epochs, beyond the last second and one epoch."""
    lines, epoch = metrics(run), checkpoint_epoch(run)
    times = [0.0, *(line["time_s"] for line in lines)]
    return sum(t - times[epoch] > SECONDS_BETWEEN_CHECKPOINTS for t in times[epoch:-1])
