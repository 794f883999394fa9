"""What a run folder stores about its data, its model and its result, read back and checked."""

from collections.abc import Sequence
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any, TypeVar

import torch
from pydantic import BaseModel, ValidationError

from kappaflow.data.dataset import kinds, runs_of
from kappaflow.diagnosis import Finding
from kappaflow.errors import FileError, KappaflowError
from kappaflow.files import CONFIG, load, read_config
from kappaflow.flows import Flow
from kappaflow.report.result import Result
from kappaflow.runs.kinds import Calibration, OpenRun, RunConfig, RunData, RunKind
from kappaflow.runs.tables import TABLES
from kappaflow.training import read_result
from kappaflow.training.distributed import existing_device

RESULT = "result.json"
EVALUATED = "test"  # an entry of result.json only after the evaluation
M = TypeVar("M", bound=BaseModel)


def runs_on(kind: str) -> RunKind:
    """Returns what runs do with a kind of data; of one that is not registered, with tables."""
    return next((runs_of(other) for other in kinds() if other.name == kind), TABLES)


def run_kind(folder: Path) -> RunKind:
    """Returns the kind of a run; that of tables for a saved model without a run."""
    run = read_config(folder / CONFIG).run or {}
    others = (runs for kind in kinds() if (runs := kind.runs()) is not None)
    return next((runs for runs in others if runs.entry in run), TABLES)


def load_on(folder: Path, device: str | torch.device | None) -> Flow:
    """Returns the flow of a folder on a device, by default the CPU."""
    return load(folder).to(existing_device(device))


def read_run(folder: Path) -> RunConfig[Any]:
    """Returns the configuration of a run, or raises an error if the folder holds none."""
    run = read_config(folder / CONFIG).run
    if run is None:
        raise FileError(
            f"{folder} holds a model but no run: it was saved, not fitted by a command."
        )
    return _validated(run_kind(folder).run, run, folder / CONFIG)


def open_run(folder: Path, device: str | None, *, finished: bool = False) -> OpenRun:
    """Returns a run with its flow on a device; an error if it should be finished and is not."""
    calibration = {}
    with nullcontext() if finished else suppress(KappaflowError):
        calibration = {"calibration": read_calibration(folder)}
    return OpenRun(read_run(folder), load_on(folder, device), **calibration, folder=folder)


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
    if EVALUATED not in stored:
        raise unfinished
    return stored


def reload_data(run: RunConfig[Any]) -> RunData:
    """Returns the data of a run, or raises an error if it is missing or has changed."""
    if run.source is None or run.source.data == "-":
        raise FileError("the data of the run cannot be read again.")
    data = run.read_again(run.source)
    if data.trained_on.fingerprint() != run.fingerprints.get("train"):
        raise FileError("the data of the run has changed.")
    return data


def stored_findings(folder: Path, warnings: Sequence[str] = ()) -> list[Finding]:
    """Returns the findings on a finished run as at its end; none for a saved model."""
    try:
        result = read_finished(folder)
    except KappaflowError:  # not a run, or not finished
        return []
    history = read_result(folder).get("history")
    if not isinstance(history, list) or not all(isinstance(line, dict) for line in history):
        history = []  # malformed
    kind = run_kind(folder)
    return kind.findings(result, history, result.stopped_because, warnings)


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
