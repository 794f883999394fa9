"""The folder of a run: its configuration, checkpoints, metrics and result."""

import json
import math
import time
from pathlib import Path
from typing import Any

from kappaflow.data.on_disk import holds_only_rows
from kappaflow.errors import ArgumentError, FileError
from kappaflow.files import (
    CONFIG,
    DESCRIBES,
    WEIGHTS,
    ModelFile,
    load_tensors,
    read_config,
    read_weights,
    write_config,
    write_weights,
)
from kappaflow.flows import Flow
from kappaflow.locking import LOCK
from kappaflow.reading import parse_json, read_json_lines, read_small
from kappaflow.storage import (
    append_bytes,
    is_unfinished,
    make_directory,
    plain,
    read_tensors,
    sync_file,
    write_bytes,
)
from kappaflow.training.checkpoint import Groups, read_checkpoint, write_checkpoint
from kappaflow.training.loop import Training, copied

SECONDS_BETWEEN_CHECKPOINTS = 1.0  # writing takes long
METRICS, RESULT = "metrics.jsonl", "result.json"
ROWS = "rows"  # training rows of a table on disk, during the training


class RunFolder:
    """A directory with config.json, model.safetensors, checkpoint/, metrics.jsonl and result.json.

    It is created if it is missing. If it holds another run, with another config.json, an error
    names the difference.
    """

    def __init__(self, path: str | Path, config: ModelFile) -> None:
        self.path, self.config = Path(path), config
        self.epoch = 0  # of the last checkpoint
        self._epoch_of_weights = -1  # of the best weights that are written
        self._written_s = -math.inf  # so the first epoch is written at once
        self._copied: tuple[Groups, dict[str, Any]] | None = None
        if (self.path / CONFIG).exists():
            _check_same_run(self.path, read_config(self.path / CONFIG), config)
        else:
            refuse_other_files(self.path)

    def start(self, flow: Flow) -> None:
        """Writes the configuration and the first weights, so that the folder can be loaded."""
        make_directory(self.path)
        if not ((self.path / CONFIG).exists() and (self.path / WEIGHTS).exists()):
            write_weights(self.path / WEIGHTS, flow.state_dict(), self.config)
            write_config(self.path / CONFIG, self.config)

    def resume(self, training: Training) -> None:
        """Restores the training from the last checkpoint, and cuts the metrics to its epoch."""
        result, history = read_checkpoint(self.path), []
        if result is not None:
            try:
                history = _epochs_until(self.path, result[1].get("epoch"))
                training.restore(*result, history)
            except FileError:
                raise
            except Exception as error:  # the state of another training fails in many ways
                raise FileError(
                    f"the checkpoint in {self.path} is not of this training ({error}): give "
                    "another 'out'."
                ) from None
            self.epoch = training.progress.epoch
        write_bytes(self.path / METRICS, "".join(map(_line, history)).encode())

    def log(self, figures: dict[str, Any]) -> None:
        """Appends a line of metrics; to be called before the checkpoint of its epoch."""
        append_bytes(self.path / METRICS, _line(figures).encode())

    def checkpoint(self, training: Training) -> None:
        """Writes the state of the training, at the end of an epoch, and the best weights."""
        self._write(training.state(), training.plain_progress())
        self.write_best(training)

    def end_epoch(self, training: Training, figures: dict[str, Any]) -> None:
        """Appends the metrics of an epoch, and writes a checkpoint, or copies it for `leave`."""
        self.log(figures)
        if time.perf_counter() - self._written_s >= SECONDS_BETWEEN_CHECKPOINTS:
            self.checkpoint(training)
            self._written_s = time.perf_counter()
        else:
            state = {name: copied(tensors) for name, tensors in training.state().items()}
            self._copied = state, training.plain_progress()

    def leave(self, training: Training, stopped: BaseException) -> None:
        """Writes the last copy and the best weights of a training that was stopped."""
        if self._copied is not None:
            self._write(*self._copied)
        self.write_best(training)
        if isinstance(stopped, KeyboardInterrupt):
            stopped.add_note(
                f"interrupted in epoch {self.epoch + 1}: run the same command again to resume."
            )

    def _write(self, groups: Groups, progress: dict[str, Any]) -> None:
        """Writes a checkpoint after the metrics of all its epochs are on the disk."""
        sync_file(self.path / METRICS)
        write_checkpoint(self.path, groups, progress)
        self.epoch, self._copied = progress["epoch"], None

    def write_best(self, training: Training) -> None:
        """Writes the best weights so far if they have changed."""
        if training.progress.best_epoch != self._epoch_of_weights:
            write_weights(self.path / WEIGHTS, training.best, self.config)
            self._epoch_of_weights = training.progress.best_epoch

    def finish(self, result: dict[str, Any]) -> None:
        """Writes the result; a folder with a result is finished."""
        write_result(self.path, result)

    def finished(self, flow: Flow) -> dict[str, Any] | None:
        """Returns the result of a finished run, its weights loaded into the flow, else None."""
        if not (self.path / RESULT).exists():
            return None
        source = self.path / WEIGHTS
        load_tensors(flow, read_weights(source, read_config(self.path / CONFIG)), source)
        stored = read_result(self.path)
        lacking = {"history", "validation_nll", "best_epoch", "stopped_because"} - set(stored)
        if lacking:
            raise FileError(f"{self.path / RESULT} lacks {min(lacking)!r}: it was changed.")
        if not isinstance(stored["history"], list):
            raise FileError(f"{self.path / RESULT} holds no list under 'history'.")
        return stored


def refuse_other_files(folder: Path) -> None:
    """Raises an error for an existing folder that does not hold a run."""
    if (folder / CONFIG).exists() or not folder.is_dir():
        return
    if not all(map(_is_of_started_run, folder.iterdir())):
        raise ArgumentError(
            f"'out' should be a new folder or one of a run, {folder} holds other files."
        )


def read_result(folder: Path) -> dict[str, Any]:
    """Returns the content of result.json of a finished run."""
    path = folder / RESULT
    try:
        content = parse_json(read_small(path))
    except ValueError as error:
        raise FileError(f"{path} cannot be read ({error}).") from None
    if not isinstance(content, dict):
        raise FileError(f"{path} should hold a JSON object.")
    return content


def write_result(folder: Path, result: dict[str, Any]) -> None:
    """Writes result.json; a number that is not finite is written as null."""
    write_bytes(folder / RESULT, (json.dumps(plain(result), indent=2) + "\n").encode())


def read_metrics(folder: Path, epochs: int | None = None) -> list[dict[str, Any]]:
    """Returns the lines of metrics.jsonl, or the lines of the first epochs."""
    return read_json_lines(folder / METRICS, epochs)


def _epochs_until(folder: Path, epoch: object) -> list[dict[str, Any]]:
    """Returns the metrics up to a checkpoint; later epochs will be trained again."""
    if type(epoch) is not int or epoch < 1:
        raise ValueError("it has no epoch")
    lines = plain(read_metrics(folder, epoch))
    results = [line.get("epoch") if isinstance(line, dict) else None for line in lines]
    if len(results) != epoch or results != list(range(1, len(results) + 1)):
        raise FileError(
            f"{folder / METRICS} lacks epochs of the checkpoint: it was changed. "
            "Give another 'out'."
        )
    return lines


def _line(figures: dict[str, Any]) -> str:
    return json.dumps(figures, allow_nan=False) + "\n"


def _is_of_started_run(path: Path) -> bool:
    """Returns whether a file belongs to a run that was killed before it had a config.json."""
    if path.name == ROWS:
        return holds_only_rows(path)
    if path.name != WEIGHTS:
        return is_unfinished(path) or path.name == LOCK
    try:
        return DESCRIBES in read_tensors(path)[1]
    except FileError:
        return False


def _check_same_run(folder: Path, stored: ModelFile, config: ModelFile) -> None:
    """Raises an error for a folder made with another model, other data or other settings."""
    old, new = _flat(stored.model_dump()), _flat(json.loads(config.model_dump_json()))
    # Fingerprints come last: they only show that rows differ, and settings can explain why.
    keys = sorted(set(old) | set(new), key=lambda key: ("fingerprints" in key, key))
    for key in keys:
        if old.get(key) != new.get(key):
            difference = (
                f"{_short_key(key)} {_short_value(old.get(key))}, not {_short_value(new.get(key))}"
            )
            if "fingerprints" in key:
                difference = f"other {key.rsplit('.', 1)[-1]} rows"
            raise ArgumentError(
                f"'out' should be a new folder: {folder} was made with {difference}."
            )


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    if isinstance(value, dict):
        parts = (_flat(item, f"{prefix}.{key}") for key, item in value.items())
        return {key: item for part in parts for key, item in part.items()}
    return {prefix.removeprefix("."): value}


def _short_key(key: str) -> str:
    for prefix in ("run.", "source.", "training.", "model.arguments."):
        key = key.removeprefix(prefix)
    return key.replace(".", " ")


def _short_value(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
