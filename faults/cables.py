"""The part of cables: two machines that train together no longer hear of each other."""

import random
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path

from benchmarks.lines import append_line, read_lines

import kappaflow as kf
from faults.machines import can_part, two_machines
from faults.outcome import Outcome
from faults.ranks import (
    ENDS_WITHIN_S,
    EPOCHS,
    ROWS,
    Killed,
    both_losses,
    finish,
    lost_epochs,
    same,
    words,
)
from faults.trainings import MOST_S, metrics, write_rows

DONE = "cables.jsonl"
SAID = "another rank of this training has ended, or does not answer"


def cables(*, long: bool, seed: int, folder: Path) -> Iterator[Outcome]:
    """Yields what came of pulling the cable between two machines.

    Args:
        long: 10 times; not at all in a short run, since each is a minute of waiting.
        seed: Decides the moments, the ends, and how many ranks go on.
        folder: What is done is kept here, so that the same call goes on after an interruption.

    Yields:
        A row, where this process may make machines; `recovery_s` is until both have said why.
    """
    if not long or not can_part(folder / "probe"):
        return
    data, times = write_rows(folder / "rows.csv", ROWS), 10
    finish(data, folder / "whole", count=2)
    done = [line for line in read_lines(folder / DONE)[0] if line["seed"] == seed]
    for number in range(len(done), times):
        found = pull(data, folder / f"{seed}-{number}", folder / "whole", f"{seed} {number}")
        done.append({"seed": seed, **asdict(found)})
        append_line(folder / DONE, done[-1])
    yield Outcome(
        fault="the cable between two machines pulled at a random moment",
        unit="cables",
        tried=times,
        survived=sum(line["survived"] for line in done[:times]),
        lost=sum(line["lost"] for line in done[:times]),
        recovery_s=max(line["ended_s"] for line in done[:times]),
    )


def pull(data: Path, run: Path, whole: Path, seed: str) -> Killed:
    """Returns what came of pulling a cable, at a moment that a seed decides."""
    draws = random.Random(seed)
    epoch, delay_s, end = draws.randrange(EPOCHS - 8), draws.random() / 4, draws.randrange(2)
    with two_machines(run.with_name(f"{run.name}-machines")) as machines, ExitStack() as kept:
        command = ["kappaflow", *words(data, run)]
        processes = [kept.enter_context(one.torchrun(command)) for one in machines]
        _wait_for(epoch, run, processes)
        time.sleep(delay_s)
        machines[end].pull()
        begun = time.perf_counter()
        with ThreadPoolExecutor(2) as pool:
            heard = [pool.submit(_said, process) for process in processes]
            wait(heard, MOST_S)
            took_s = time.perf_counter() - begun
            for process in processes:  # torchrun itself may wait for minutes
                process.kill()
    said = [one.result() for one in heard]
    lost = lost_epochs(run)
    if (run / "config.json").exists():
        kf.load(run)
    finish(data, run, count=draws.choice([1, 2]))
    alike = same(both_losses(run), both_losses(whole))
    ok = all(SAID in text for text in said) and took_s < ENDS_WITHIN_S and alike
    return Killed(ok, lost, round(took_s, 2), "" if ok else "\n".join(said)[-2000:])


def _wait_for(epoch: int, run: Path, processes: list["subprocess.Popen[str]"]) -> None:
    """Waits until a training by two machines has ended so many epochs."""
    begun = time.perf_counter()
    while not (run / "metrics.jsonl").exists() or len(metrics(run)) < epoch:
        if time.perf_counter() - begun > MOST_S or any(
            one.poll() is not None for one in processes
        ):
            raise SystemExit("a training by two machines did not begin.")
        time.sleep(0.005)


def _said(process: "subprocess.Popen[str]") -> str:
    """Returns what a process says until it has said why it ends."""
    said = ""
    for line in process.stdout or ():
        said += line
        if SAID in line:
            break
    return said
