"""Single faults for a training: kills, signals, a second process, bad disks."""

import random
import re
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass

import kappaflow as kf
from faults.disks import filled, read_only
from faults.trainings import (
    STEPS,
    Job,
    checkpoint_epoch,
    ended,
    is_finished,
    metrics,
    started,
    steps_beyond_promise,
    wait_for_epoch,
)

DELAY_S = 2.5  # largest delay after the first epoch of a process
START_S = 3.0  # approximate time of a process until its first epoch
WRITES = 30  # approximate number of flushes to the disk in a training
ROOM = 150_000  # bytes; a training needs about twice that
PROGRAM = """
import os, signal, stat, sys
from kappaflow.cli.app import main
left, half, fsync = int(sys.argv[1]), sys.argv[2] == "half", os.fsync
def killing(file):
    global left
    left -= 1
    if not left:
        if half and stat.S_ISREG(os.fstat(file).st_mode):
            os.ftruncate(file, os.fstat(file).st_size // 2)
        os.kill(os.getpid(), signal.SIGKILL)
    fsync(file)
os.fsync = killing
sys.exit(main(sys.argv[3:]))
"""


@dataclass(frozen=True)
class Struck:
    """The result of one fault.

    Attributes:
        hit: Whether the training was still running.
        good: Whether everything was correct.
        lost: Number of lost steps beyond the promise.
        recovery_s: Time until the training resumed, or until the process ended.
    """

    hit: bool
    good: bool = True
    lost: int = 0
    recovery_s: float = 0.0


Strike = Callable[[Job, random.Random], Struck]
MISSED = Struck(hit=False)


def killed(job: Job, moments: random.Random) -> Struck:
    """Returns the result of a kill at a random moment: at the start, in training or evaluation."""
    process, waited = started(job.words), 0.0
    if moments.random() < 0.2:
        time.sleep(moments.uniform(0, START_S))
    else:
        waited = wait_for_epoch(process, job.run)
        time.sleep(moments.uniform(0, DELAY_S))
    process.kill()
    ended(process)
    return _after_a_kill(job, waited)


def killed_in_a_write(job: Job, moments: random.Random) -> Struck:
    """Returns the result of a process that kills itself in a write, half done or complete."""
    half = moments.choice(("half", "whole"))
    nth = str(moments.randint(1, WRITES))
    status, _ = ended(started(job.words, ["-c", PROGRAM, nth, half]))
    return _after_a_kill(job) if status == -signal.SIGKILL else MISSED


def signaled(number: signal.Signals, job: Job, moments: random.Random) -> Struck:
    """Returns the result of a signal that should end the process, with its last epoch saved."""
    process = started(job.words)
    wait_for_epoch(process, job.run)
    time.sleep(moments.uniform(0, DELAY_S))
    process.send_signal(number)
    begun = time.perf_counter()
    status, message = ended(process)
    took = time.perf_counter() - begun
    if is_finished(job.run):
        return MISSED
    kept, made = checkpoint_epoch(job.run), len(metrics(job.run))
    way_on = r"interrupted in epoch (\d+): run the same command again to resume\.\n"
    found = re.fullmatch(f"kappaflow: {way_on}", message)
    if (job.run / "result.json").exists():  # the training was over and its evaluation running
        in_words = "run the same command again to resume" in message and message.count("\n") == 1
    else:
        in_words = found is not None and int(found[1]) == kept + 1
    good = status == 128 + number and in_words and _loads(job)
    return Struck(True, good, STEPS * max(0, made - kept), took)


def shut_out(job: Job, moments: random.Random) -> Struck:
    """Returns the result of a second process on a run in use; the first is killed afterwards."""
    first = started(job.words)
    wait_for_epoch(first, job.run)
    time.sleep(moments.uniform(0, DELAY_S / 2))
    first.send_signal(signal.SIGSTOP)  # it keeps the run during the second process
    hit = first.poll() is None and not is_finished(job.run)
    begun = time.perf_counter()
    status, message = ended(started(job.words))
    took = time.perf_counter() - begun
    first.kill()
    ended(first)
    named = f"{job.run} is in use by process {first.pid} on " in message
    good = status == 1 and named and message.count("\n") == 1
    return Struck(True, good, 0, took) if hit else MISSED


def left_without_room(job: Job, moments: random.Random) -> Struck:
    """Returns the result of a training whose disk becomes full during the run."""
    with filled(job.run.parent, room=moments.randint(0, ROOM)):
        return _refused(job, "No space left on device")


def made_read_only(job: Job, moments: random.Random) -> Struck:
    """Returns the result of a training that resumes on a disk that has become read-only."""
    if not killed(job, moments).hit:
        return MISSED
    with read_only(job.run.parent):
        return _refused(job, "Read-only file system")


def _refused(job: Job, reason: str) -> Struck:
    """Returns whether a training that cannot write reports it in one sentence."""
    begun = time.perf_counter()
    status, message = ended(started(job.words))
    took = time.perf_counter() - begun
    if status == 0:
        return MISSED
    in_words = (
        re.fullmatch(rf"kappaflow: \S+ cannot be [a-z ]+: {reason}\.\n", message) is not None
    )
    return Struck(True, status == 1 and in_words and _loads(job), 0, took)


def _after_a_kill(job: Job, waited: float = 0.0) -> Struck:
    if is_finished(job.run):
        return MISSED
    return Struck(True, _loads(job), steps_beyond_promise(job.run), waited)


def _loads(job: Job) -> bool:
    """Returns whether the model of a run can be loaded, if there is one."""
    if not (job.run / "config.json").exists():
        return True
    try:
        kf.load(job.run)
    except kf.KappaflowError:
        return False
    return True
