"""The part "kills": trainings are hit by faults, resume, and must end like an undisturbed one."""

import random
import shutil
import signal
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.lines import append_line, read_lines

from faults.disks import can_mount, disk
from faults.outcome import Outcome
from faults.strikes import (
    MISSED,
    Strike,
    killed,
    killed_in_a_write,
    left_without_room,
    made_read_only,
    shut_out,
    signaled,
)
from faults.trainings import Job, ended, is_finished, losses, started, trained_whole, write_rows

MISSES = 20  # trainings in a row that end before the fault; then something else is wrong
DONE = "kills.jsonl"  # results so far, one line for each training


def kills(*, long: bool, seed: int, folder: Path) -> Iterator[Outcome]:
    """Yields the results of kills, signals, second processes, full disks and read-only disks."""
    data = write_rows(folder / "rows.csv")
    whole = trained_whole(data, folder / "whole")
    for fault, unit, strike, times in (
        ("SIGKILL at a random moment of a training", "kills", killed, 150 if long else 4),
        ("SIGKILL inside a write of a training", "kills", killed_in_a_write, 50 if long else 2),
        (
            "SIGTERM during a training",
            "signals",
            partial(signaled, signal.SIGTERM),
            20 if long else 1,
        ),
        (
            "Ctrl-C during a training",
            "signals",
            partial(signaled, signal.SIGINT),
            20 if long else 1,
        ),
        ("a second process on a run in use", "processes", shut_out, 10 if long else 1),
    ):
        job = Job(data, folder / "run", whole)
        yield repeated(fault, unit, strike, times, job=job, seed=seed, file=folder / DONE)
    if not can_mount(folder):
        return
    for fault, strike, times in (
        ("a disk that becomes full", left_without_room, 20 if long else 1),
        ("a disk that becomes read-only", made_read_only, 10 if long else 1),
    ):
        with disk(folder / "disk") as place:
            job = Job(data, place / "run", whole)
            yield repeated(fault, "disks", strike, times, job=job, seed=seed, file=folder / DONE)


def repeated(
    fault: str,
    unit: str,
    strike: Strike,
    times: int,
    *,
    job: Job,
    seed: int,
    file: Path,
) -> Outcome:
    """Returns the result of a fault that is applied to trainings a number of times.

    A training that is hit is started again until it finishes, and is then compared with an
    undisturbed one. Then the next training follows.
    """
    chains: list[dict[str, Any]] = []
    key = {"fault": fault, "seed": seed}
    while True:
        chains = [line for line in read_lines(file)[0] if key.items() <= line.items()]
        tried = sum(line["tried"] for line in chains)
        if tried >= times:
            break
        if len(chains) >= MISSES and not sum(line["tried"] for line in chains[-MISSES:]):
            raise SystemExit(f"{fault}: {MISSES} trainings came to their end before it was done.")
        moments = random.Random(f"{seed} {fault} {len(chains)}")
        append_line(file, {**key, **_chain(strike, times - tried, job, moments)})
    return Outcome(
        fault,
        unit,
        tried=tried,
        survived=sum(line["survived"] for line in chains),
        lost=sum(line["lost"] for line in chains),
        recovery_s=max(line["recovery_s"] for line in chains) or None,
    )


def _chain(strike: Strike, most: int, job: Job, moments: random.Random) -> dict[str, Any]:
    """Returns the result of one training that is hit until it finishes, at most `most` times."""
    shutil.rmtree(job.run, ignore_errors=True)
    struck = []
    while len(struck) < most and (one := strike(job, moments)) != MISSED:
        struck.append(one)
    ended(started(job.words))  # also if it is finished, to remove files that were left
    alike = is_finished(job.run) and losses(job.run) == job.whole
    clean = not list(job.run.rglob(".*"))
    return {
        "tried": len(struck),
        "survived": sum(one.good for one in struck) if alike and clean else 0,
        "lost": sum(one.lost for one in struck),
        "recovery_s": max((one.recovery_s for one in struck), default=0.0),
    }
