"""`DataConfig` and `RunData`: which data a run uses, and this data, split."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from kappaflow.data import Dataset
from kappaflow.errors import ArgumentError
from kappaflow.flows import Flow
from kappaflow.runs.recipes import ModelConfig, all_arguments
from kappaflow.training import Callback, Settings


@dataclass(frozen=True)
class DataConfig(ABC):
    """Which data a run uses, as plain values.

    `data` is the source as a user names it. `training_defaults` are settings of the training.
    """

    training_defaults: ClassVar[dict[str, Any]] = {}

    data: str

    @abstractmethod
    def load(self) -> "RunData":
        """Returns the data, split."""

    @contextmanager
    def opened(
        self,
        out: Path,  # noqa: ARG002
        device: str | None,  # noqa: ARG002
        progress: bool | None,  # noqa: ARG002
    ) -> Iterator["RunData"]:
        """Yields the data for a training in the run folder `out`, locked by this process."""
        yield self.load()


@dataclass(frozen=True)
class RunData(ABC):
    """The data of a run, split, with notes on it, one sentence each.

    `fingerprint` is a SHA-256 of all data, in hex, and `warnings` are the notes that keep the
    verdict on a run from being green.
    """

    config: DataConfig
    train: Any
    validation: Any
    test: Any
    fingerprint: str = field(default="", kw_only=True)
    notes: tuple[str, ...] = field(default=(), kw_only=True)
    warnings: tuple[str, ...] = field(default=(), kw_only=True)

    @property
    def trained_on(self) -> Dataset:
        """The training data as the training reads it."""
        return self.train

    @property
    def to_store(self) -> dict[str, Any]:
        """Entries of config.json that the configuration does not contain."""
        return {}

    @abstractmethod
    def build_flow(self, model: ModelConfig, seed: int) -> Flow:
        """Returns a new flow for the data, initialized from the seed alone."""

    def check_files(self) -> None:  # noqa: B027 - nothing to check by default
        """Raises FileError for a damaged file, before training starts."""

    def callbacks(self, folder: Path, settings: Settings) -> Sequence[Callback]:  # noqa: ARG002
        """Returns callbacks that write to the run folder during training."""
        return ()

    def model_notes(self, model: ModelConfig, budget: float | None) -> tuple[str, ...]:  # noqa: ARG002
        """Returns remarks on a model for this data, one sentence each."""
        return ()

    def model_facts(self, model: ModelConfig) -> dict[str, Any]:
        """Returns the arguments of a model for a report."""
        return all_arguments(model)

    def search(self, search: Any, settings: Settings, **options: Any) -> Any:  # noqa: ANN401, ARG002
        """Returns the choice of a model search and the state of its winner."""
        raise ArgumentError("'model' should be a recipe for this data, not a search.")

    @abstractmethod
    def facts(self) -> list[tuple[str, str]]:
        """Returns the facts about the data for a report, as labels and values."""
