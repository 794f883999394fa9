"""The settings of a study: their fields, from a preset or from a file of the user."""

import json
import tomllib
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Annotated, TypeVar

from pydantic import AfterValidator, Field, ValidationError

from kappaflow.data import shipped_names, toy_names
from kappaflow.errors import ArgumentError, FileError
from kappaflow.images import image_sets
from kappaflow.reading import parse_json, read_small
from kappaflow_studies.data import banana_features
from kappaflow_studies.engine.study import Case, Study, StudySettings
from kappaflow_studies.ensembles import ENSEMBLES

Count = Annotated[int, Field(ge=1)]
Many = Annotated[int, Field(ge=2)]
Even = Annotated[int, Field(ge=2, multiple_of=2)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotEmpty = Field(min_length=1)
Counts = Annotated[tuple[Count, ...], NotEmpty]


def checked(read: Callable[[str], object]) -> Callable[[str], str]:
    """Returns a pydantic check from a function that raises `ArgumentError`."""

    def check(name: str) -> str:
        try:
            read(name)
        except ArgumentError as error:
            raise ValueError(str(error).rstrip(".")) from None
        return name

    return check


def one_of(what: str, known: Callable[[], Collection[str]]) -> AfterValidator:
    """Returns a validator that accepts the known names, for `Annotated[str, ...]`."""

    def check(name: str) -> str:
        if name not in known():
            raise ValueError(f"there is no {what} {name!r}, choose from {', '.join(known())}")
        return name

    return AfterValidator(check)


def _table(name: str) -> None:
    known = (*shipped_names(), "bananas-N of N features")
    if banana_features(name) is None and name not in known and not Path(name).is_file():
        listed = ", ".join(known)
        raise ArgumentError(f"there is no table {name!r}, choose from {listed}, or name a file.")


def _images(name: str) -> None:
    known = [image_set.name for image_set in image_sets()]
    if name not in known and not Path(name).exists():
        listed = f"{', '.join(known)}, or name a file or a folder"
        raise ArgumentError(f"there are no images {name!r}, choose from {listed}.")


Ensemble = Annotated[str, one_of("ensemble", lambda: ENSEMBLES)]
PlanarSet = Annotated[str, one_of("planar set", toy_names)]
TableName = Annotated[str, AfterValidator(checked(_table))]
ImagesName = Annotated[str, AfterValidator(checked(_images))]


S = TypeVar("S", bound=StudySettings)
PRESETS = ("minutes", "full")


def settings_of(study: Study[S], preset: str, config: str | Path | None) -> S:
    """Returns the settings of a preset, or of a file: TOML, or config.json of an earlier run."""
    if config is not None:
        return _checked(study, _read(Path(config), study.name), str(config))
    if preset not in PRESETS:
        raise ArgumentError(f"'preset' should be one of {', '.join(PRESETS)}, got {preset!r}.")
    return _checked(study, tomllib.loads(study.presets.read_text("utf-8"))[preset], preset)


def _read(path: Path, name: str) -> dict:
    try:
        text = read_small(path).decode()
        content = parse_json(text) if path.suffix == ".json" else tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise FileError(f"{path} is neither TOML nor JSON: {error}.") from None
    if isinstance(content, dict) and "experiment" in content:
        if content["experiment"] != name:
            raise ArgumentError(
                f"'config' should hold settings of {name}, but {path} holds those of "
                f"{content['experiment']}."
            )
        content = content.get("settings")
    if not isinstance(content, dict):
        raise FileError(f"{path} should hold the fields of the settings, but it does not.")
    return content


def _checked(study: Study[S], values: dict, source: str) -> S:
    try:
        # Validating JSON turns lists into tuples and converts nothing else.
        return study.settings.model_validate_json(json.dumps(values))
    except (ValidationError, TypeError) as error:
        if isinstance(error, TypeError):
            raise ArgumentError(f"{source} should hold plain values: {error}.") from None
        first = error.errors()[0]
        name = ".".join(map(str, first["loc"])) or "the whole"
        reason = first["msg"].removeprefix("Value error, ")
        raise ArgumentError(
            f"{source}: '{name}' is wrong ({reason[0].lower()}{reason[1:]}); the settings of "
            f"{study.name} are {', '.join(study.settings.model_fields)}."
        ) from None


class TrainingSettings(StudySettings):
    """Settings for training and measuring flows of tables and of images."""

    hidden: Count  # width of the two hidden layers, for tables
    channels: Count  # channels of the networks, for images
    rows: Count  # training rows of a table
    epochs: Count
    image_epochs: Count
    batch_size: Count
    image_batch_size: Count
    learning_rate: Positive  # the largest one, of a schedule
    image_learning_rate: Positive
    seeds: Count  # how many times each flow is trained
    points: Count  # number of rows at which the conditioning is measured
    image_points: Count

    def of_tables(self) -> Case:
        """Returns the settings that all cases on tables share."""
        shared = {"hidden", "rows", "epochs", "batch_size", "learning_rate", "points"}
        return {"what": "table", **self.model_dump(include=shared)}

    def of_images(self) -> Case:
        """Returns the settings that all cases on images share."""
        shared = ("epochs", "batch_size", "learning_rate", "points")
        values = {name: getattr(self, f"image_{name}") for name in shared}
        return {"what": "image", "hidden": self.channels, **values}
