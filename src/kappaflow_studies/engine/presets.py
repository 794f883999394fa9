"""The settings of an experiment: from its presets, or from a file of the reader's own."""

import json
import tomllib
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from kappaflow.errors import ArgumentError, FileError
from kappaflow.reading import parse_json, read_small
from kappaflow_studies.engine.study import Study, StudySettings

S = TypeVar("S", bound=StudySettings)
PRESETS = ("minutes", "full")


def settings_of(study: Study[S], preset: str, config: str | Path | None) -> S:
    """Returns the settings of a preset, or of a file.

    Args:
        study: The experiment.
        preset: "minutes" or "full".
        config: A file instead: TOML with the fields, or the config.json of an earlier run.

    Returns:
        The settings.

    Raises:
        ArgumentError: There is no such preset, or a field is wrong or missing.
        FileError: The file cannot be read.
    """
    if config is not None:
        return _checked(study, _read(Path(config), study.name), str(config))
    if preset not in PRESETS:
        raise ArgumentError(f"'preset' should be one of {', '.join(PRESETS)}, got {preset!r}.")
    return _checked(study, tomllib.loads(study.presets.read_text("utf-8"))[preset], preset)


def _read(path: Path, name: str) -> dict:
    try:
        text = read_small(path).decode()
        found = parse_json(text) if path.suffix == ".json" else tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # of JSON, of TOML, of UTF-8
        raise FileError(f"{path} is neither TOML nor JSON: {error}.") from None
    if isinstance(found, dict) and "experiment" in found:
        if found["experiment"] != name:
            raise ArgumentError(
                f"'config' should be of {name}, {path} is of {found['experiment']}."
            )
        found = found.get("settings")
    if not isinstance(found, dict):
        raise FileError(f"{path} should hold the fields of the settings, it does not.")
    return found


def _checked(study: Study[S], values: dict, source: str) -> S:
    try:
        # As JSON, in which a list may stand for a tuple and nothing else is converted.
        return study.settings.model_validate_json(json.dumps(values))
    except (ValidationError, TypeError) as error:
        if isinstance(error, TypeError):
            raise ArgumentError(f"{source} should hold plain values: {error}.") from None
        first = error.errors()[0]
        name = ".".join(map(str, first["loc"])) or "the whole"
        known = ", ".join(study.settings.model_fields)
        raise ArgumentError(
            f"{source}: '{name}' is wrong ({_said(first)}); the settings of {study.name} "
            f"are {known}."
        ) from None


def _said(error: ErrorDetails) -> str:
    """Returns what is wrong with a field, as part of a sentence."""
    said = error["msg"].removeprefix("Value error, ")
    return said[0].lower() + said[1:]
