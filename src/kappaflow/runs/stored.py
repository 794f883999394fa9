"""What a run folder stores about its data, its model and its result, read back and checked."""

from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar, overload

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from kappaflow.data.raw import Decimal, Reading
from kappaflow.errors import FileError
from kappaflow.files import CONFIG, load, read_config
from kappaflow.flows import Flow
from kappaflow.report.result import Result
from kappaflow.results import Part
from kappaflow.runs.image_data import ImageConfig, ImageData
from kappaflow.runs.table_data import TableConfig, TableData
from kappaflow.training import read_result
from kappaflow.training.distributed import existing_device

RESULT = "result.json"
EVALUATED, EARLIER = "test", "test_nll"  # entries of result.json only after the evaluation
M = TypeVar("M", bound=BaseModel)

DataConfig = TableConfig | ImageConfig
RunData = TableData | ImageData


class TableRunConfig(BaseModel):
    """The entry `run` of config.json, for a run on a table.

    `source` is None if `kappaflow.fit` wrote the folder. The fingerprints are those of the
    training and the validation rows. `widths` are those of the noise that was added to rounded
    columns.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)

    source: TableConfig | None = None
    columns: list[str]
    context_columns: list[str]
    fingerprints: dict[str, str]
    widths: dict[str, float] = Field(default_factory=dict)

    def reading(self, decimal: Decimal | None = None) -> Reading:
        """Returns how other data for the run is read; `decimal` replaces its decimal sign."""
        options = Reading() if self.source is None else self.source.reading()
        return options if decimal is None else replace(options, decimal=decimal)


class ImageRunConfig(BaseModel):
    """The entry `run` of config.json, for a run on images.

    `source` is None if `kappaflow.fit` wrote the folder. `classes` are those that the flow reads,
    or all if `kappaflow.fit` wrote it. The fingerprints are those of the training and the
    validation images.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)

    source: ImageConfig | None = None
    classes: tuple[str, ...]
    fingerprints: dict[str, str]

    def classes_of(self, flow: Flow) -> tuple[str, ...]:
        """Returns the names of the classes that a flow reads; () if it reads none."""
        width = flow.context_features
        if width not in (0, len(self.classes)):
            raise FileError(f"the run has {len(self.classes)} classes, its flow reads {width}.")
        return self.classes if width else ()


RunConfig = TableRunConfig | ImageRunConfig


class Calibration(Part):
    """What scores of other rows are compared with; the entry `calibration` of result.json.

    Attributes:
        log_prob_quantiles: Quantiles of log_prob of the training rows, at equal steps.
        ranges: The least and the greatest training value of each column.
    """

    log_prob_quantiles: list[float]
    ranges: dict[str, tuple[float, float]] = {}


def load_on(folder: Path, device: str | torch.device | None) -> Flow:
    """Returns the flow of a folder on a device, by default the CPU.

    Raises:
        ArgumentError: The device does not exist.
    """
    place = existing_device(device)
    return load(folder).to(place)


def device_entry(flow: Flow) -> dict[str, str]:
    """Returns the device for what identifies resumed work; nothing for the CPU."""
    return {} if flow.device.type == "cpu" else {"device": flow.device.type}


def is_image_run(folder: Path) -> bool:
    """Returns whether a folder holds a run on images; False for a saved model without a run."""
    run = read_config(folder / CONFIG).run
    return run is not None and "columns" not in run


def read_run(folder: Path) -> RunConfig:
    """Returns the configuration of a run, or raises an error if the folder holds none."""
    run = read_config(folder / CONFIG).run
    if run is None:
        raise FileError(
            f"{folder} holds a model but no run: it was saved, not fitted by a command."
        )
    kind = TableRunConfig if "columns" in run else ImageRunConfig
    return _validated(kind, run, folder / CONFIG)


def read_table_run(folder: Path) -> TableRunConfig:
    """Returns the configuration of a run on a table, or raises an error for other folders."""
    run = read_run(folder)
    if isinstance(run, ImageRunConfig):
        raise FileError(f"{folder} should hold a run on a table, it holds one on images.")
    return run


def read_image_run(folder: Path) -> ImageRunConfig:
    """Returns the configuration of a run on images, or raises an error for other folders."""
    run = read_run(folder)
    if isinstance(run, TableRunConfig):
        raise FileError(f"{folder} should hold a run on images, it holds one on a table.")
    return run


def read_finished(folder: Path) -> Result:
    """Returns the result of a finished run, or raises an error if it is not finished."""
    stored = _finished(folder)
    known = {name: stored[name] for name in Result.model_fields if name in stored}
    return _validated(Result, known, folder / RESULT)


def read_calibration(folder: Path) -> Calibration:
    """Returns what scores of other rows are compared with, of a finished run."""
    read_finished(folder)  # a damaged result is an error
    return _validated(Calibration, _finished(folder).get("calibration"), folder / RESULT)


def _finished(folder: Path) -> dict[str, Any]:
    """Returns the content of result.json of a finished run."""
    run = read_run(folder)
    unfinished = FileError(f"{folder} is not finished: run the same fit again to resume it.")
    if not (folder / RESULT).exists():
        raise unfinished
    stored = read_result(folder)
    if run.source is None:
        raise FileError(
            f"{folder} was made by kappaflow.fit, which stores no scores of the training data; "
            "kappaflow fit on the command line does."
        )
    if EARLIER in stored and EVALUATED not in stored:
        raise FileError(
            f"{folder} was finished by an earlier version: run the same fit again, which measures "
            "its flow and writes its result again."
        )
    if EVALUATED not in stored:
        raise unfinished
    return stored


@overload
def reload_data(run: TableRunConfig) -> TableData: ...
@overload
def reload_data(run: ImageRunConfig) -> ImageData: ...
def reload_data(run: RunConfig) -> RunData:
    """Returns the data of a run, or raises an error if it is missing or has changed."""
    if run.source is None or run.source.data == "-":
        raise FileError("the data of the run cannot be read again.")
    data = run.source.load()
    if data.trained_on.fingerprint() != run.fingerprints.get("train"):
        raise FileError("the data of the run has changed.")
    return data


def is_unfinished_run(folder: Path) -> bool:
    """Returns whether a folder holds a run whose training has not ended."""
    return read_config(folder / CONFIG).run is not None and not (folder / RESULT).exists()


def _validated(model: type[M], content: object, path: Path) -> M:
    try:
        return model.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        raise FileError(f"{path}: {key!r} is wrong: {first['msg']}.") from None
