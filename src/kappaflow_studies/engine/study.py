"""The classes of a study: settings, cases, measurements, findings and results."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import polars as pl
from pydantic import BaseModel, ConfigDict

from kappaflow.report.charts import Chart
from kappaflow.report.content import Part
from kappaflow.runs.pool import Case, Row
from kappaflow_studies.engine.report import Findings


@dataclass(frozen=True)
class Reproduced:
    """The result of a study.

    Attributes:
        report: The numbers.
        page: Path of the HTML page.
        found: What was found, in sentences.
        differs: Where the result or the method differs from the source, in sentences.
        charts: The most informative charts.
    """

    report: Part
    page: Path
    found: tuple[str, ...]
    differs: tuple[str, ...] = ()
    charts: tuple[Chart, ...] = ()


@dataclass(frozen=True)
class Experiment:
    """A study as the command line sees it.

    Attributes:
        name: Its name on the command line.
        title: A short title.
        about: What is compared, in one line.
        claim: The claim of the source paper, paraphrased.
        run: Function that runs the study in a folder, with the keywords preset, config, seed,
            processes, progress and say.
    """

    name: str
    title: str
    about: str
    claim: str
    run: Callable[..., Reproduced]


class StudySettings(BaseModel):
    """Base class of the settings of a study; a subclass declares the fields."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


S = TypeVar("S", bound=StudySettings)


@dataclass(frozen=True)
class Study(Generic[S]):
    """A study: a list of cases, a function that measures a case, and one that interprets all.

    A case is a dictionary of plain values with everything that its measurement depends on: seed,
    sizes, numbers of steps. A measured case is not measured again, even when other settings
    change.

    Attributes:
        name: Its name on the command line, and the name of its folder.
        title: A short title.
        about: What is compared, in one line.
        claim: The claim of the source paper, paraphrased.
        settings: The class of the settings.
        presets: A TOML file with the tables [minutes] and [full].
        cases: Returns the cases for settings and a seed, slow ones first.
        measure: Returns the rows of a case: dictionaries of numbers, strings and lists of
            numbers. It runs on one thread in another process, so it must be a function of a
            module. Return expected failures as rows; an exception stops the study.
        findings: Returns the findings for all rows, each with the columns of its case, and the
            settings.
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
    """Returns a table with a row for each measurement: its case, its values and its time.

    Args:
        measured: For each case its rows and its time in seconds.

    Returns:
        The table, with null for each missing value.

    Example:
        >>> frame_of([({"depth": 1}, [{"loss": 0.5}, {"loss": 0.25}], 2.0)]).columns
        ['depth', 'loss', 'case_time_s']
    """
    lines: list[Mapping[str, Any]] = [
        {**case, **row, "case_time_s": time_s} for case, rows, time_s in measured for row in rows
    ]
    return pl.DataFrame(lines, infer_schema_length=None)
