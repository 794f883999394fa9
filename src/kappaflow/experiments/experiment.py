"""What an experiment is, and what comes out of one."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from kappaflow.report.content import Part


@dataclass(frozen=True)
class Reproduced:
    """What an experiment came to.

    Attributes:
        report: Its numbers.
        page: The page of them.
        found: What was found, a sentence or two each.
    """

    report: Part
    page: Path
    found: tuple[str, ...]


@dataclass(frozen=True)
class Experiment:
    """An experiment that can be repeated.

    Attributes:
        name: What it is called on the command line.
        about: What is compared, in one line.
        run: Takes the folder, and as keywords preset, seed, progress and say.
    """

    name: str
    about: str
    run: Callable[..., Reproduced]
