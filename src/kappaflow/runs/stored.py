"""What is stored of a run, read back and checked: what was asked for, and what came out."""

from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from kappaflow.errors import FileError
from kappaflow.files import CONFIG, read_config
from kappaflow.runs.job import Source, Tables, tables_of
from kappaflow.training import read_result

M = TypeVar("M", bound=BaseModel)


class RunConfig(BaseModel):
    """What config.json says under `run`; `source` is missing where `kappaflow.fit` wrote it."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    source: Source | None = None
    columns: list[str]
    context_columns: list[str]
    fingerprints: dict[str, str]


class Result(BaseModel):
    """What result.json says of a run that the command finished; None is a number not finite."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    epochs: int
    stopped_because: str
    time_s: float
    skipped_steps: int
    test_nll: float | None
    test_nll_standardised: float | None
    test_nll_standard_error: float | None
    test_nll_standardised_by_part: dict[str, float | None]
    gaussian_nll_standardised: float | None
    condition_number_median: float | None
    condition_number_p95: float | None
    worst_layer: str
    round_trip_data: float | None
    round_trip_latent: float | None
    auc: float | None
    auc_standard_error: float | None
    verdict: str
    train_log_prob_quantiles: list[float | None]


def read_run(folder: Path) -> RunConfig:
    """Returns what was asked of a run, or says that the folder holds none."""
    run = read_config(folder / CONFIG).run
    if run is None:
        raise FileError(
            f"{folder} holds a model but no run: it was saved, not fitted by a command."
        )
    return _validated(RunConfig, run, folder / CONFIG)


def read_finished(folder: Path) -> Result:
    """Returns what came out of a finished run, or says what is missing."""
    run = read_run(folder)
    if not (folder / "result.json").exists():
        raise FileError(
            f"{folder} is not finished: give the same fit again, and it goes on where it stopped."
        )
    stored = read_result(folder)
    if run.source is None:
        raise FileError(
            f"{folder} was made by kappaflow.fit, which stores no scores of the training rows; "
            "a run of the command does."
        )
    if "test_nll" not in stored:
        raise FileError(
            f"{folder} is not finished: give the same fit again, and it goes on where it stopped."
        )
    return _validated(Result, stored, folder / "result.json")


def tables_again(run: RunConfig) -> Tables:
    """Returns the rows of a run, where its data is still what it was."""
    if run.source is None or run.source.data == "-":
        raise FileError("the data of the run cannot be read again.")
    tables = tables_of(run.source)
    if tables.train.fingerprint() != run.fingerprints.get("train"):
        raise FileError("the data of the run has changed.")
    return tables


def is_unfinished_run(folder: Path) -> bool:
    """Returns whether a folder holds a run that has not come to its end."""
    return read_config(folder / CONFIG).run is not None and not (folder / "result.json").exists()


def _validated(model: type[M], content: object, path: Path) -> M:
    try:
        return model.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        raise FileError(f"{path}: {key!r} is wrong: {first['msg']}.") from None
