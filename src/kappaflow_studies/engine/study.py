"""The classes of a study: settings, cases, measurements and findings."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import polars as pl
from pydantic import BaseModel, ConfigDict

from kappaflow_studies.engine.pool import Case, Measured, Row
from kappaflow_studies.engine.report import StudyFindings


class StudySettings(BaseModel):
    """Base class of the settings of a study; a subclass declares the fields."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


S = TypeVar("S", bound=StudySettings)


@dataclass(frozen=True)
class Study(Generic[S]):
    """A study: a list of cases, a function that measures a case, and one that interprets all.

    A case is a dictionary of plain values with everything that its measurement depends on: seed,
    sizes, numbers of steps. A measured case is not measured again, even when other settings
    change. `measure` returns the rows of a case: dictionaries of numbers, strings and lists of
    numbers. It runs on one thread in another process, so it must be a function of a module.
    Expected failures are rows; an exception stops the study. `findings` gets all rows, each with
    the columns of its case.
    """

    name: str  #: its name on the command line, and the name of its folder
    title: str  #: a short title
    about: str  #: what is compared, in one line
    claim: str  #: the claim of the source paper, in our words
    settings: type[S]  #: the class of the settings
    presets: Path  #: a TOML file with the tables [minutes] and [full]
    cases: Callable[[S, int], Sequence[Case]]  #: from settings and a seed, slow ones first
    measure: Callable[[Case], Sequence[Row]]
    findings: Callable[[pl.DataFrame, S], StudyFindings]


def frame_of(measured: Sequence[Measured]) -> pl.DataFrame:
    """Returns a table with a row for each measurement: its case, values (or null) and time."""
    lines: list[Mapping[str, Any]] = [
        {**case, **row, "case_time_s": time_s} for case, rows, time_s in measured for row in rows
    ]
    return pl.DataFrame(lines, infer_schema_length=None)
