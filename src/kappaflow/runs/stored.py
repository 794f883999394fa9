"""What is stored of a run, read back and checked: what was asked for, and what came out."""

from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from kappaflow.data.raw import Decimal, ReadOptions
from kappaflow.errors import FileError
from kappaflow.files import CONFIG, read_config
from kappaflow.runs.image_job import ImageParts, ImageSource, image_parts
from kappaflow.runs.job import Source, Tables, tables_of
from kappaflow.training import read_result

M = TypeVar("M", bound=BaseModel)


class RunConfig(BaseModel):
    """What config.json says under `run`; `source` is missing where `kappaflow.fit` wrote it.

    `widths` are those of the noise that rounded columns of the rows were given.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)

    source: Source | None = None
    columns: list[str]
    context_columns: list[str]
    fingerprints: dict[str, str]
    widths: dict[str, float] = Field(default_factory=dict)

    @field_validator("source", mode="before")
    @classmethod
    def _of_runs_before(cls, source: object) -> object:
        """Returns a source with what runs did before there was a choice: drop, or keep on disk."""
        if isinstance(source, dict) and "duplicates" not in source:
            return source | {"duplicates": "keep" if source.get("on_disk") else "drop"}
        return source

    def reading(self, decimal: Decimal | None = None) -> ReadOptions:
        """Returns how other data for the run is read: as its own, or with this decimal sign."""
        options = ReadOptions() if self.source is None else self.source.reading()
        return options if decimal is None else replace(options, decimal=decimal)


class ImageRunConfig(BaseModel):
    """The same of a run on images; `kappaflow.fit` writes no source and no classes."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    source: ImageSource | None = None
    classes: tuple[str, ...] | None = None
    flip: bool
    fingerprints: dict[str, str]


class StoredReference(BaseModel):
    """A density fitted to the training rows, compared with the flow; see `Comparison`."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    kind: Literal["Gaussian", "Gaussian mixture"]
    components: int
    conditional: bool
    rows: int
    nll: float | None
    nll_standardised: float | None
    difference: float | None
    standard_error: float | None


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
    test_rows: int = 0
    likelihood: Literal["exact", "bound", "joint"] = "exact"
    weighted_nll_standardised: float | None = None
    weighted_monte_carlo_error: float | None = None
    gaussian_nll_standardised: float | None
    mixture_nll_standardised: float | None = None
    mixture_components: int | None = None
    references: tuple[StoredReference, ...] = ()
    condition_number_median: float | None
    condition_number_p95: float | None
    condition_budget: float | None = None
    condition_rows: int | None = None
    worst_layer: str
    round_trip_data: float | None
    round_trip_latent: float | None
    auc: float | None
    auc_standard_error: float | None
    verdict: str
    train_log_prob_quantiles: list[float | None]


class ImageResult(BaseModel):
    """What result.json says of a run on images; None is a number not finite, or not there."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    epochs: int
    stopped_because: str
    time_s: float
    skipped_steps: int
    test_bits_per_dimension: float | None
    test_bits_per_dimension_standard_error: float | None
    independent_bits_per_dimension: float | None
    independent_bits_standard_error: float | None = None
    test_nll: float | None
    test_nll_standard_error: float | None
    test_images: int
    likelihood: Literal["exact", "bound", "joint"] = "bound"
    condition_number_median: float | None
    condition_number_p95: float | None
    worst_layer: str
    round_trip_data: float | None
    round_trip_latent: float | None
    verdict: str
    train_log_prob_quantiles: list[float | None]


def is_image_run(folder: Path) -> bool:
    """Returns whether a folder holds a run on images: one that has no columns."""
    run = read_config(folder / CONFIG).run
    return run is not None and "columns" not in run


def read_run(folder: Path) -> RunConfig:
    """Returns what was asked of a run, or says that the folder holds none."""
    return _validated(RunConfig, _asked(folder), folder / CONFIG)


def read_image_run(folder: Path) -> ImageRunConfig:
    """Returns what was asked of a run on images, or says that the folder holds none."""
    return _validated(ImageRunConfig, _asked(folder), folder / CONFIG)


def read_finished(folder: Path) -> Result:
    """Returns what came out of a finished run, or says what is missing."""
    stored = _finished(folder, by_command=read_run(folder).source is not None)
    return _validated(Result, stored, folder / "result.json")


def read_finished_images(folder: Path) -> ImageResult:
    """Returns what came out of a finished run on images, or says what is missing."""
    stored = _finished(folder, by_command=read_image_run(folder).source is not None)
    return _validated(ImageResult, stored, folder / "result.json")


def _asked(folder: Path) -> dict[str, Any]:
    run = read_config(folder / CONFIG).run
    if run is None:
        raise FileError(
            f"{folder} holds a model but no run: it was saved, not fitted by a command."
        )
    return run


def _finished(folder: Path, *, by_command: bool) -> dict[str, Any]:
    """Returns what result.json says, where the command has written all of it."""
    unfinished = FileError(
        f"{folder} is not finished: give the same fit again, and it goes on where it stopped."
    )
    if not (folder / "result.json").exists():
        raise unfinished
    stored = read_result(folder)
    if not by_command:
        raise FileError(
            f"{folder} was made by kappaflow.fit, which stores no scores of what was trained on; "
            "a run of the command does."
        )
    if "test_nll" not in stored:
        raise unfinished
    return stored


def tables_again(run: RunConfig) -> Tables:
    """Returns the rows of a run, where its data is still what it was."""
    if run.source is None or run.source.data == "-":
        raise FileError("the data of the run cannot be read again.")
    tables = tables_of(run.source)
    if tables.trained_on.fingerprint() != run.fingerprints.get("train"):
        raise FileError("the data of the run has changed.")
    return tables


def images_again(run: ImageRunConfig) -> ImageParts:
    """Returns the images of a run, where they are still what they were."""
    if run.source is None:
        raise FileError("the images of the run cannot be read again.")
    parts = image_parts(run.source)
    if parts.train.fingerprint() != run.fingerprints.get("train"):
        raise FileError("the images of the run have changed.")
    return parts


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
