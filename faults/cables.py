"""The part "cables": the network between two training machines is cut."""

import os
import random
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from selectors import EVENT_READ, DefaultSelector

import kappaflow as kf
from faults.machines import Machine, can_part, two_machines
from faults.outcome import Outcome
from faults.ranks import (
    ENDS_WITHIN_S,
    EPOCHS,
    ROWS,
    both_losses,
    finish,
    lost_epochs,
    same,
    words,
)
from faults.repeated import Ended, repeated
from faults.trainings import MOST_S, metrics, write_rows

DONE = "cables.jsonl"
MESSAGE, WAITS = "another rank of this training has ended or does not answer", "waits"


def cables(*, long: bool, seed: int, folder: Path) -> Iterator[Outcome]:
    """Yields the results of cutting the network between two machines."""
    if not long or not can_part(folder / "probe"):
        return
    data = write_rows(folder / "rows.csv", ROWS)
    finish(data, folder / "whole", count=2)
    whole = partial(pull, data=data, whole=folder / "whole")
    for fault, strike, times in (
        ("the cable between two machines pulled at a random moment", whole, 10),
        ("the cable pulled while a rank waits for the other", pull_while_one_waits, 3),
    ):
        yield repeated(fault, "cables", strike, times, seed=seed, file=folder / DONE)


def pull(run: Path, seed: str, *, data: Path, whole: Path) -> Ended:
    """Returns the result of cutting the network at a random moment."""
    draws = random.Random(seed)
    epoch, delay_s, end = draws.randrange(EPOCHS - 8), draws.random() / 4, draws.randrange(2)
    with two_machines(run.with_name(f"{run.name}-machines")) as machines, ExitStack() as kept:
        processes = _started(["kappaflow", *words(data, run)], machines, kept)
        _wait_for(epoch, run, processes)
        time.sleep(delay_s)
        machines[end].pull()
        message, took_s = _heard(processes, MESSAGE)
    lost = lost_epochs(run)
    if (run / "config.json").exists():
        kf.load(run)
    finish(data, run, count=draws.choice([1, 2]))
    alike = same(both_losses(run), both_losses(whole))
    ok = all(MESSAGE in text for text in message) and took_s < ENDS_WITHIN_S and alike
    return Ended(ok, lost, round(took_s, 2), "" if ok else "\n".join(message)[-2000:])


def pull_while_one_waits(place: Path, seed: str) -> Ended:
    """Returns the result of cutting the network while only the first rank works."""
    end = random.Random(seed).randrange(2)
    with two_machines(place) as machines, ExitStack() as kept:
        processes = _started(["faults.waiting"], machines, kept)
        _heard(processes, WAITS)
        machines[end].pull()
        message, took_s = _heard(processes, MESSAGE, enough=1)
    ok = any(MESSAGE in text for text in message) and took_s < ENDS_WITHIN_S
    return Ended(ok, 0, round(took_s, 2), "" if ok else "\n".join(message)[-2000:])


def _started(
    words: list[str], machines: Sequence[Machine], kept: ExitStack
) -> list["subprocess.Popen[str]"]:
    """Returns torchrun on each machine; it is killed at the end, since it may wait for minutes."""
    processes = []
    for machine in machines:
        processes.append(kept.enter_context(machine.torchrun(words)))
        kept.callback(processes[-1].kill)
    return processes


def _wait_for(epoch: int, run: Path, processes: list["subprocess.Popen[str]"]) -> None:
    """Waits until a training on two machines has finished a number of epochs."""
    begun = time.perf_counter()
    while not (run / "metrics.jsonl").exists() or len(metrics(run)) < epoch:
        if time.perf_counter() - begun > MOST_S or any(
            one.poll() is not None for one in processes
        ):
            raise SystemExit("a training by two machines did not begin.")
        time.sleep(0.005)


def _heard(
    processes: Sequence["subprocess.Popen[str]"], expected: str, enough: int = 2
) -> tuple[list[str], float]:
    """Returns the output of processes until enough of them contain a text, and the time."""
    begun, message = time.perf_counter(), [""] * len(processes)
    with DefaultSelector() as selector:
        for number, process in enumerate(processes):
            if process.stdout is not None:
                selector.register(process.stdout, EVENT_READ, number)
        while sum(expected in text for text in message) < enough and selector.get_map():
            left_s = MOST_S - (time.perf_counter() - begun)
            if left_s < 0:
                break
            for key, _ in selector.select(left_s):
                content = os.read(key.fd, 2**16)
                message[key.data] += content.decode(errors="replace")
                if not content:
                    selector.unregister(key.fileobj)
    return message, time.perf_counter() - begun
