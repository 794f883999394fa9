"""A fault that is done so often: what is done is kept, and what came of all is one row."""

import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.lines import append_line, read_lines

from faults.outcome import Outcome


@dataclass(frozen=True)
class Ended:
    """What came of a fault that ends a training by several ranks.

    Attributes:
        survived: Whether all was as it should be.
        lost: Epochs lost beyond what is promised: those of a second, and one.
        ended_s: From the fault until those who are to end had ended, or had said why they do.
        said: What went wrong, or what the ranks said.
    """

    survived: bool
    lost: int
    ended_s: float
    said: str


def repeated(
    fault: str,
    unit: str,
    strike: Callable[[Path, str], Ended],
    times: int,
    *,
    seed: int,
    file: Path,
) -> Outcome:
    """Returns what came of a fault that is done until it has been done so often.

    Args:
        fault: What is done, in words.
        unit: What is counted.
        strike: Does it once, with a folder of its own and a seed.
        times: How often.
        seed: Decides the others.
        file: What has been done already, a line for each time; the folders are beside it.

    Returns:
        The row of the table.
    """
    key = {"fault": fault, "seed": seed}
    done = [line for line in read_lines(file)[0] if key.items() <= line.items()]
    for number in range(len(done), times):
        place = file.parent / f"{fault.replace(' ', '-')}-{seed}-{number}"
        shutil.rmtree(place, ignore_errors=True)  # of a call that was interrupted
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
