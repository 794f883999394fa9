"""What an experiment is, and what comes out of one."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from kappaflow.report.charts import Chart
from kappaflow.report.content import Part
from kappaflow.report.figures import Figure


@dataclass(frozen=True)
class Reproduced:
    """What an experiment came to.

    Attributes:
        report: Its numbers.
        page: The page of them.
        found: What was found, a sentence or two each.
        differs: Where that differs from the source.
        chart: The most telling one, where it is a chart.
        figures: What is drawn of it.
    """

    report: Part
    page: Path
    found: tuple[str, ...]
    differs: tuple[str, ...] = ()
    chart: Chart | None = None
    figures: tuple[Figure, ...] = ()


@dataclass(frozen=True)
class Experiment:
    """An experiment that can be repeated.

    Attributes:
        name: What it is called on the command line.
        title: A few words.
        about: What is compared, in one line.
        claim: The claim of the source that it is about, in our own words.
        run: Takes the folder, and as keywords preset, config, seed, processes, progress and say.
    """

    name: str
    title: str
    about: str
    claim: str
    run: Callable[..., Reproduced]
