"""The part of kills: trainings are struck by faults, each goes on, and ends as one in peace."""

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
    told,
)
from faults.trainings import Job, ended, is_finished, losses, started, trained_whole, write_rows

MISSES = 20  # in a row; something else is wrong then
DONE = "kills.jsonl"  # what has been done already, a line for each training


def kills(*, long: bool, seed: int, folder: Path) -> Iterator[Outcome]:
    """Yields what came of kills, signals, second processes, full disks and read-only ones.

    Args:
        long: 200 kills instead of 6, and more of the others.
        seed: Decides the moments.
        folder: What is done is kept here, so that the same call goes on after an interruption.

    Yields:
        A row for each kind of fault.
    """
    data = write_rows(folder / "rows.csv")
    whole = trained_whole(data, folder / "whole")
    for fault, unit, strike, times in (
        ("SIGKILL at a random moment of a training", "kills", killed, 150 if long else 4),
        ("SIGKILL inside a write of a training", "kills", killed_in_a_write, 50 if long else 2),
        ("SIGTERM during a training", "signals", partial(told, signal.SIGTERM), 20 if long else 1),
        ("Ctrl-C during a training", "signals", partial(told, signal.SIGINT), 20 if long else 1),
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
    """Returns what came of a fault that is done to trainings until it has been done so often.

    A training that is struck is begun again, until it comes to its end, and is compared with the
    one that was left in peace; then it is another's turn.

    Args:
        fault: What is done, in words.
        unit: What is counted.
        strike: Does it once.
        times: How often.
        job: The training.
        seed: Decides the moments.
        file: What has been done already, a line for each training.

    Returns:
        The row of the table.
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
    """Returns what came of one training that is struck until it ends, so often at most."""
    shutil.rmtree(job.run, ignore_errors=True)
    struck = []
    while len(struck) < most and (one := strike(job, moments)) != MISSED:
        struck.append(one)
    ended(started(job.words))  # also where it is finished: what was left behind is removed
    alike = is_finished(job.run) and losses(job.run) == job.whole
    clean = not list(job.run.rglob(".*"))
    return {
        "tried": len(struck),
        "survived": sum(one.good for one in struck) if alike and clean else 0,
        "lost": sum(one.lost for one in struck),
        "recovery_s": max((one.recovery_s for one in struck), default=0.0),
    }
