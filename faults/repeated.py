"""Repeats a fault: each result is kept, and all results make one row."""

import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.lines import append_line, read_lines

from faults.outcome import Outcome


@dataclass(frozen=True)
class Ended:
    """The result of a fault that ends a training by several ranks.

    Attributes:
        survived: Whether everything was correct.
        lost: Number of lost epochs beyond the promise: the epochs of one second, and one more.
        ended_s: Time from the fault until the affected ranks had ended or reported why.
        message: The error, or the output of the ranks.
    """

    survived: bool
    lost: int
    ended_s: float
    message: str


def repeated(
    fault: str,
    unit: str,
    strike: Callable[[Path, str], Ended],
    times: int,
    *,
    seed: int,
    file: Path,
) -> Outcome:
    """Returns the result of a fault that is repeated a number of times."""
    key = {"fault": fault, "seed": seed}
    done = [line for line in read_lines(file)[0] if key.items() <= line.items()]
    for number in range(len(done), times):
        place = file.parent / f"{fault.replace(' ', '-')}-{seed}-{number}"
        shutil.rmtree(place, ignore_errors=True)  # left by an interrupted call
        done.append(key | asdict(strike(place, f"{seed} {number}")))
        append_line(file, done[-1])
    done = done[:times]
    return Outcome(
        fault=fault,
        unit=unit,
        tried=times,
        survived=sum(line["survived"] for line in done),
        lost=sum(line["lost"] for line in done),
        recovery_s=max(line["ended_s"] for line in done),
    )
