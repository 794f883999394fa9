"""What runs need of a kind of data: configuration, parts, and what commands do with them."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar, Unpack

import numpy as np
from pydantic import BaseModel, ConfigDict

from kappaflow.conditioning import layers_of
from kappaflow.data import Dataset, check_writable
from kappaflow.data.batches import Batch
from kappaflow.data.write import table_writer
from kappaflow.diagnosis import Diagnosis, Finding
from kappaflow.errors import ArgumentError, FileError
from kappaflow.flows import Flow
from kappaflow.report.general import GeneralCharts, general_page
from kappaflow.report.page import Page
from kappaflow.report.result import HeldOut
from kappaflow.results import Part
from kappaflow.runs.content import Content, History, general_content, run_findings
from kappaflow.runs.ranges import Ranges
from kappaflow.runs.recipes import ModelConfig, all_arguments
from kappaflow.runs.written import Chunked, Columns, OneChunk, Written
from kappaflow.table_options import TextFormat
from kappaflow.training import Callback, FitResult, Settings, log_prob_of
from kappaflow.training.measure import bits_per_dimension, has_bits

Examine = Callable[..., Diagnosis]  # diagnose_flow, with the flow and the options
MOST_POINTS = 32
# Cost of a profile of 28 x 28 pixels and 50 layers at 2 points, in layers^2 x numbers: half a
# minute to a minute on one core. It computes a singular value of all layers up to each layer.
WORK = 2 * 784 * 50**2
MOST_EXAMINED = 4096  # with `thorough`
COMPARED = 256  # examples at which two flows are compared, at most


@dataclass(frozen=True)
class DataConfig(ABC):
    """Which data a run uses, as plain values."""

    kind: ClassVar[str]  # the name of the kind of data
    training_defaults: ClassVar[dict[str, Any]] = {}  # settings

    data: str  # the source as a user names it

    @abstractmethod
    def load(self) -> "RunData":
        """Returns the data, split."""

    @contextmanager
    def opened(self, out: Path, device: str | None, progress: bool | None) -> Iterator["RunData"]:
        """Yields the data for a training in the run folder `out`, locked by this process."""
        yield self.load()


@dataclass(frozen=True)
class RunData(ABC):
    """The data of a run, split, with notes on it, one sentence each."""

    config: DataConfig
    train: Any
    validation: Any
    test: Any
    fingerprint: str = field(default="", kw_only=True)  # SHA-256 of all data, in hex
    notes: tuple[str, ...] = field(default=(), kw_only=True)
    # The notes that keep the verdict on a run from being green
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

    def callbacks(self, folder: Path, settings: Settings) -> Sequence[Callback]:
        """Returns callbacks that write to the run folder during training."""
        return ()

    def model_notes(self, model: ModelConfig, budget: float | None) -> tuple[str, ...]:
        """Returns remarks on a model for this data, one sentence each."""
        return ()

    def model_facts(self, model: ModelConfig) -> dict[str, Any]:
        """Returns the arguments of a model for a report."""
        return all_arguments(model)

    def search(self, search: Any, settings: Settings, **options: Any) -> Any:
        """Returns the choice of a model search and the state of its winner."""
        raise ArgumentError("'model' should be a recipe for this data, not a search.")

    @abstractmethod
    def facts(self) -> list[tuple[str, str]]:
        """Returns the facts about the data for a report, as labels and values."""

    def form(self) -> list[tuple[str, str]]:
        """Returns the facts about the form of one example, such as its columns."""
        return []

    def content(self, result: FitResult, budget: float | None) -> Content:
        """Returns what is measured of a flow on the test data, for a report.

        `budget` is the condition budget of the training, if it had one.
        """
        flow = result.flow
        test = self.test.batches(flow)
        few = test.at(slice(0, points_of(flow)))
        return general_content(self.config.kind, flow, -log_prob_of(flow, test), few)

    def ranges(self) -> Ranges:
        """Returns the least and the greatest training value of each column; {} without columns."""
        return {}

    def held_out_scores(self, flow: Flow) -> np.ndarray:
        """Returns log_prob of all validation and test examples."""
        held_out = self.validation, self.test
        return np.concatenate([log_prob_of(flow, rows.batches(flow)).numpy() for rows in held_out])

    def write_files(self, flow: Flow, folder: Path) -> None:  # noqa: B027 - none by default
        """Writes more files to the folder of a finished run, such as samples."""


C = TypeVar("C", bound=DataConfig)


class RunConfig(BaseModel, Generic[C]):
    """The entry `run` of config.json, for one type of `DataConfig`."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    source: C | None = None  # None if `kappaflow.fit` wrote the folder
    fingerprints: dict[str, str]  # of the training and the validation data

    def names(self, flow: Flow) -> tuple[Sequence[str], Sequence[str]]:
        """Returns the names of the features and of the context; () if there are none."""
        return (), ()

    def read_again(self, source: C) -> "RunData":
        """Returns the data of the run from its source."""
        return source.load()


class Calibration(Part):
    """What scores of other rows are compared with; the entry `calibration` of result.json."""

    # Quantiles of log_prob of the validation and test rows, at equal steps
    log_prob_quantiles: list[float]
    # The least and the greatest training value of each column
    ranges: dict[str, tuple[float, float]] = {}

    def percentiles(self, scores: np.ndarray) -> np.ndarray:
        """Returns the percentiles of scores among the held-out rows, 0 to 100."""
        quantiles = np.array(self.log_prob_quantiles)
        if not np.isfinite(quantiles).all():
            raise FileError(
                "the run has held-out rows whose score is not finite: there is no percentile."
            )
        return np.interp(scores, quantiles, np.linspace(0, 100, len(quantiles)))


@dataclass(frozen=True)
class OpenRun:
    """A run: its configuration, its flow on a device, its calibration if known, and its folder."""

    config: Any  # the `RunConfig` of its kind
    flow: Flow
    calibration: Calibration = Calibration(log_prob_quantiles=[])
    folder: Path | None = None

    def columns(self, names: Columns, scores: np.ndarray) -> Columns:
        """Returns names of examples with their scores, bits and percentiles."""
        bits = {}
        if has_bits(self.flow):
            bits = {"bits_per_dimension": -scores * bits_per_dimension(self.flow, 1.0)}
        # a joint density is no log_prob of a row
        column = "joint_log_prob" if self.flow.likelihood == "joint" else "log_prob"
        percentiles = self.calibration.percentiles(scores)
        return {**names, **bits, column: scores, "percentile": percentiles}


class RunKind(ABC):
    """What the commands do with runs on a kind of data; `Kind.runs` returns it."""

    name: ClassVar[str]  # of the kind, also in result.json
    plural: ClassVar[str]  # several examples in messages, such as "rows"
    example: ClassVar[str]  # the column of scores that names an example
    # A key of `run` in config.json that only such runs have, by `describe` of the dataset
    entry: ClassVar[str]
    config: ClassVar[type[DataConfig]]
    run: ClassVar[type[RunConfig[Any]]]
    charts: ClassVar[type[Part]] = GeneralCharts  # what only the page of such data draws
    page: ClassVar[Callable[..., Page]] = staticmethod(general_page)  # of a report

    @abstractmethod
    def read(self, run: Any, flow: Flow, source: str, **text: Unpack[TextFormat]) -> Any:
        """Returns other data than that of a run, in the form of its flow."""

    @abstractmethod
    def split_data(self, flow: Flow, train: Any, validation: Any, test: Any) -> RunData:
        """Returns data that is split already as the data of a run."""

    def options(self, options: dict[str, Any]) -> dict[str, Any]:
        """Returns the options of a command as arguments of `config`."""
        return options

    def model(self, recipe: str, arguments: dict[str, Any]) -> ModelConfig:
        """Returns the model of a command."""
        return ModelConfig(recipe, arguments)

    def note(self, folder: Path) -> str:
        """Returns a line on more files of a run, or nothing."""
        return ""

    def findings(
        self,
        held_out: HeldOut,
        history: History,
        stopped_because: str,
        warnings: Sequence[str] = (),
    ) -> list[Finding]:
        """Returns the findings on likelihood, training and data of a run."""
        return run_findings(held_out, history, stopped_because, warnings)

    def data_findings(self, flow: Flow, data: Any) -> Iterable[Finding]:
        """Returns the findings on data as such, with what is known of it from the flow."""
        return ()

    def identifiers(self, data: Any) -> np.ndarray:
        """Returns what names each example next to its score; by default its number, from 0."""
        return np.arange(len(data))

    def diagnose(
        self, flow: Flow, data: Any, examine: Examine, *, thorough: bool, train: Any = None
    ) -> Diagnosis:
        """Returns the diagnosis at the first examples of some data.

        `train` are the training examples if they are known, with which samples are compared too.
        """
        batches = data.batches(flow)
        few = batches.at(slice(0, MOST_EXAMINED if thorough else points_of(flow)))
        return examine(few.x, few.context, rows=len(batches))

    def compared(self, flow: Flow, data: Dataset) -> Batch:
        """Returns the examples at which two flows are compared."""
        return data.batches(flow).at(slice(0, COMPARED))

    def sample_batch(self, flow: Flow, count: int) -> Batch | None:
        """Returns samples to measure a flow at where data is missing; None for a default."""
        return None

    def copy_files(self, config: Any, flow: Flow, old: Path, new: Path, *, finished: bool) -> None:  # noqa: B027
        """Writes the files of a run that was made from another, such as pictures."""

    def scores(
        self, run: OpenRun, source: str, *, scratch: Path | None = None, **options: Any
    ) -> Chunked:
        """Returns the scores of other data; `score_run` describes the options."""
        self.refuse(options)
        data = self.read(run.config, run.flow, source)
        scores = log_prob_of(run.flow, data.batches(run.flow)).numpy()
        return OneChunk(run.columns({self.example: self.identifiers(data)}, scores))

    def samples(self, run: OpenRun, n: int, **options: Any) -> Chunked:
        """Returns samples by column, as `sample_run` does."""
        raise ArgumentError(
            f"'run' should be one on a table, it is one on {self.plural}: call "
            "kappaflow.load(run).sample(n)."
        )

    def write_samples(self, run: OpenRun, n: int, out: str, **options: Any) -> Written:
        """Returns a summary of samples that are written to a file, as `write_samples` does."""
        check_writable(out, read=options.get("context"))
        samples = self.samples(run, n, **options)
        with table_writer(out) as writer:
            return samples.write(writer)

    def refuse(self, options: dict[str, Any]) -> None:
        """Raises an error for options that were given and are for tables only."""
        for name, value in options.items():
            if value is not None:
                shown = {"identifier": "id"}.get(name, name)
                raise ArgumentError(
                    f"'{shown}' should be left out for {self.plural}: it is for tables."
                )


def points_of(flow: Flow) -> int:
    """Returns at how many examples the conditioning of a flow is profiled: 1 to 32."""
    layers = len(layers_of(flow.core))
    return max(1, min(MOST_POINTS, round(WORK / (layers**2 * math.prod(flow.joint_shape)))))
