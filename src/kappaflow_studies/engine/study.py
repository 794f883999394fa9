"""What a study is: settings, cases, measurements, findings; and what comes out of one."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import polars as pl
from pydantic import BaseModel, ConfigDict

from kappaflow.report.charts import Chart
from kappaflow.report.content import Part
from kappaflow.report.figures import Figure
from kappaflow.runs.pool import Case, Row
from kappaflow_studies.engine.report import Findings


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


class StudySettings(BaseModel):
    """What a preset of an experiment says; a subclass names the fields."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


S = TypeVar("S", bound=StudySettings)


@dataclass(frozen=True)
class Study(Generic[S]):
    """An experiment that is made of cases.

    A case is a dictionary of plain values that holds all that its measurement depends on: its
    seed, sizes, numbers of steps. What was measured once is never measured again, whatever else
    the settings ask for.

    Attributes:
        name: On the command line, and of its folder.
        title: A few words.
        about: What is compared, in one line.
        claim: The claim of the source, in our own words.
        settings: Their fields.
        presets: A TOML file with the tables [minutes] and [full].
        cases: Takes settings and a seed, and returns the cases; slow ones first.
        measure: Takes a case and returns its rows, dictionaries of numbers, words and lists of
            numbers. Runs on one thread, in another process: a function of a module. Failures that
            are part of the experiment are rows too; what it raises stops the experiment.
        findings: Takes all rows, each with the columns of its case, and the settings.
    """

    name: str
    title: str
    about: str
    claim: str
    settings: type[S]
    presets: Path
    cases: Callable[[S, int], Sequence[Case]]
    measure: Callable[[Case], Sequence[Row]]
    findings: Callable[[pl.DataFrame, S], Findings]


def frame_of(measured: Sequence[tuple[Case, Sequence[Row], float]]) -> pl.DataFrame:
    """Returns a row for each measurement, with the columns of its case and the time it took.

    Args:
        measured: Each case with its rows and its seconds.

    Returns:
        The table; null where a row has no such column.

    Example:
        >>> frame_of([({"depth": 1}, [{"loss": 0.5}, {"loss": 0.25}], 2.0)]).columns
        ['depth', 'loss', 'case_time_s']
    """
    lines: list[Mapping[str, Any]] = [
        {**case, **row, "case_time_s": time_s} for case, rows, time_s in measured for row in rows
    ]
    return pl.DataFrame(lines, infer_schema_length=None)
