"""Runs on tables of mixed columns: their data, and what scores, samples and completions are."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Unpack

import numpy as np
import torch

from kappaflow.data.columns import find_column
from kappaflow.data.load import read_source
from kappaflow.data.prepare import few_to_train_on
from kappaflow.data.raw import RawTable, no_rows
from kappaflow.data.write import TableWriter
from kappaflow.errors import ArgumentError, FileError
from kappaflow.flows import Flow
from kappaflow.mixed import MixedParts, TableModel, chosen_rows, prepared
from kappaflow.mixed.match import worst_match
from kappaflow.mixed.saved import COLUMNS
from kappaflow.mixed.table_model import RowScores
from kappaflow.report.result import MixedLikelihood
from kappaflow.runs.content import Content
from kappaflow.runs.ranges import Ranges, rows_outside
from kappaflow.runs.table_data import FRACTIONS, TableConfig, TableData
from kappaflow.runs.written import Chunked, Written
from kappaflow.runs.written import Columns as Values
from kappaflow.table_options import TextFormat
from kappaflow.training import FitResult
from kappaflow.training.measure import mean, standard_error

if TYPE_CHECKING:
    import polars as pl

    from kappaflow.mixed.rows import IncompleteRows
    from kappaflow.runs.kinds import OpenRun
    from kappaflow.runs.tables import TableRunConfig

AUTO = "auto"
LABEL_SAMPLES = 20_000  # which the labels of test rows are compared with
AT_ONCE = 10_000  # rows that are scored before the progress bar moves
NOT_MIXED = ("against", "jitter", "on_disk", "repair", "bounds")


@dataclass(frozen=True)
class MixedData(TableData):
    """The rows of a run on a table of mixed columns.

    `train`, `validation` and `test` have their gaps filled once, and labels as context.
    """

    parts: MixedParts | None = None

    @property
    def mixed(self) -> MixedParts:
        """The parts of the table."""
        if self.parts is None:
            raise ArgumentError("'parts' should be the parts of a mixed table.")
        return self.parts

    @property
    def trained_on(self) -> "IncompleteRows":
        """All training rows, whose gaps are filled again for each batch."""
        return self.mixed.train

    def model(self, flow: Flow) -> TableModel:
        """Returns the model of the table with a flow of its numbers."""
        parts = self.mixed
        return TableModel(parts.encoding, parts.labels, parts.proposals, flow)

    def content(self, result: FitResult, budget: float | None) -> Content:
        """Returns what is measured on the test rows."""
        content = super().content(result, budget)
        likelihood = self._likelihood(self.model(result.flow))
        held_out = content.held_out.model_copy(update={"mixed": likelihood})
        return replace(content, held_out=held_out)

    def _likelihood(self, model: TableModel) -> MixedLikelihood:
        """Returns the likelihood of all columns of all test rows, and that of the labels."""
        test, weights = self.mixed.sources[-1], self.mixed.weights[-1]
        scores = model.log_prob(test)
        share = torch.ones(len(scores.log_prob)) if weights is None else torch.from_numpy(weights)
        nll, labels = torch.from_numpy(-scores.log_prob), -model.labels_log_prob(test)
        error = torch.from_numpy(scores.standard_error) * share / share.sum()
        p_value, worst = (None, ()) if weights is not None else self._labels_match(model)
        return MixedLikelihood(
            rows=len(nll),
            nll=mean(nll, share),
            standard_error=standard_error(nll, share),
            monte_carlo_error=error.norm().item(),
            labels_nll=mean(torch.from_numpy(labels), share),
            labels_p_value=p_value,
            labels_worst=[model.encoding.label_columns[i] for i in worst],
            has_labels=bool(model.encoding.coded),
            given=[column.name for column in model.encoding.context],
        )

    def _labels_match(self, model: TableModel) -> tuple[float | None, tuple[int, ...]]:
        """Returns the p-value of sampled labels against those of test rows that miss none."""
        rows = model.encoding.encode(self.mixed.sources[-1], completes=True)
        complete = (rows.codes >= 0).all(1)
        if not complete.any() or not model.encoding.coded:
            return None, ()
        context = torch.from_numpy(rows.context[complete])
        context = context.repeat(-(-LABEL_SAMPLES // len(context)), 1)
        empty = torch.full((len(context), rows.codes.shape[1]), -1)
        samples, _ = model.labels.filled(empty, torch.Generator().manual_seed(0), context)
        return worst_match(rows.codes[complete], samples.numpy())

    def ranges(self) -> Ranges:
        """Returns the least and the greatest training value of each column of numbers."""
        columns = self.mixed.encoding.numbers_in(self.mixed.sources[0])
        found = {name: values[np.isfinite(values)] for name, values in columns.items()}
        return {n: (v.min().item(), v.max().item()) for n, v in found.items() if len(v)}

    def held_out_scores(self, flow: Flow) -> np.ndarray:
        """Returns log_prob of the validation and test rows, of all columns."""
        model = self.model(flow)
        return np.concatenate([model.log_prob(rows).log_prob for rows in self.mixed.sources[1:]])

    def facts(self) -> list[tuple[str, str]]:
        """Returns the facts about the rows for a report, as labels and values."""
        facts = [fact for fact in super().facts() if fact[0] not in {"columns", "given"}]
        encoding = self.mixed.encoding
        columns = (*encoding.columns, *encoding.context)
        return facts + [(f"column {c.name}", c.about.removeprefix(f"{c.name}: ")) for c in columns]

    def write_files(self, flow: Flow, folder: Path) -> None:
        """Writes how columns become numbers and labels, and the distribution of the labels."""
        self.model(flow).write_columns(folder)


def parsed_kinds(texts: Sequence[str]) -> dict[str, str]:
    """Returns kinds by column from texts such as "region=category"; "auto" names none.

    Example:
        >>> parsed_kinds(["auto", "region=category"])
        {'region': 'category'}
    """
    pairs = [text.rpartition("=") for text in texts if text != AUTO]
    wrong = [kind for name, _, kind in pairs if not name]
    if wrong:
        raise ArgumentError(
            "'kinds' should be auto, or kinds of columns such as region=category, got "
            f"{wrong[0]!r}."
        )
    return {name: kind for name, _, kind in pairs}


@dataclass(frozen=True)
class MixedConfig(TableConfig):
    """Which rows and columns a run on a table of mixed columns uses."""

    def load(self) -> MixedData:
        """Returns the rows: encoded, split and completed; equal rows are in one part."""
        return mixed_data(self)


def mixed_data(config: TableConfig) -> MixedData:
    """Returns the rows of a table of mixed columns, split."""
    for name in NOT_MIXED:
        if getattr(config, name):
            raise ArgumentError(f"'{name}' should be left out with 'kinds'.")
    if config.duplicates != "keep":
        raise ArgumentError("'duplicates' should be keep with 'kinds'.")
    reading = config.reading()
    rows = replace(reading, exclude=tuple(config.exclude))
    raw, weights = chosen_rows(read_source(config.data, reading), rows, config.weights)
    kinds, context = parsed_kinds(config.kinds or ()), reading.context
    parts = prepared(raw, kinds, FRACTIONS, config.split_seed, weights, context)
    train, validation, test = parts.tables
    if not train.columns:
        raise ArgumentError(
            "'data' should have a column of numbers besides labels, to train a flow on: "
            "kappaflow.fit_table models labels alone."
        )
    return MixedData(
        config,
        train,
        validation,
        test,
        against=None,
        loaded=raw.row_count,
        repeats=0,
        domains=parts.domains,
        notes=(*parts.notes, *parts.warnings),
        warnings=few_to_train_on(len(train)),  # the others are findings on the rows
        fingerprint=parts.train.fingerprint(),
        parts=parts,
    )


class MixedScores(Chunked):
    """The scores of the rows of a table of mixed columns."""

    def __init__(
        self,
        run: "OpenRun",
        data: str,
        *,
        identifier: str | None = None,
        scratch: Path | None = None,  # noqa: ARG002
        **text: Any,  # noqa: ANN401
    ) -> None:
        self._run, self._model = run, table_model(run)
        self._raw = read_some(run.config, data, "score", **text)
        self._names: Values = {}
        if identifier is not None:
            texts = find_column(self._raw, identifier, "id").texts()
            self._names = {identifier: np.array([text or "" for text in texts], dtype=np.str_)}
        self.rows = self.counted = self._raw.row_count

    def __iter__(self) -> Iterator[Values]:
        rows = np.arange(self.rows)
        for start in range(0, self.rows, AT_ONCE):
            part = slice(start, start + AT_ONCE)
            some = self._raw.select((rows >= part.start) & (rows < part.stop))
            columns = self._model.encoding.numbers_in(some)
            self.outside += rows_outside(columns, self._run.calibration.ranges)
            scores = self._model.log_prob(some)
            names = {name: values[part] for name, values in self._names.items()}
            yield self._columns({"row": rows[part] + 1, **names}, scores)

    def _columns(self, names: Values, scores: RowScores) -> Values:
        columns = self._run.columns(names, scores.log_prob)
        percentile = columns.pop("percentile")
        error = {"standard_error": scores.standard_error}
        return {**columns, **error, "percentile": percentile}


def read_some(
    run: "TableRunConfig", data: str, purpose: str, **text: Unpack[TextFormat]
) -> RawTable:
    """Returns other rows for a run, or raises an error if there are none."""
    raw = read_source(data, run.reading(purpose, **text))
    if raw.row_count == 0:
        raise no_rows(raw.subject, purpose)
    return raw


def table_model(run: "OpenRun") -> TableModel:
    """Returns the model of a run on a table of mixed columns."""
    if run.folder is None or not (run.folder / COLUMNS).exists():
        raise FileError(f"{run.folder} is not finished: run the same fit again to resume it.")
    return TableModel.load(run.folder)


class MixedSamples(Chunked):
    """Sampled rows of a table of mixed columns, all or those with given values."""

    title, kind = "sampling", "context rows"

    def __init__(
        self,
        run: "OpenRun",
        n: int,
        *,
        given: Sequence[str] | None = None,
        context: str | None = None,
        class_name: str | None = None,
        temperature: float = 1.0,
        seed: int = 0,
        **text: Any,  # noqa: ANN401
    ) -> None:
        if class_name is not None:
            raise ArgumentError("'class' should be left out: this run is not on images.")
        if temperature != 1:
            raise ArgumentError("'temperature' should be 1 for a run with kinds of columns.")
        self._model, self._given, self._n = table_model(run), given_values(given or ()), n
        self._options: dict[str, Any] = {"context": None, "seed": seed}
        self.counted = 1
        if context is not None:
            self._options["context"] = raw = read_some(run.config, context, "sample", **text)
            self.counted = raw.row_count
            columns = self._model.encoding.numbers_in(raw)
            self.outside = rows_outside(columns, run.calibration.ranges)
        self.rows = n * self.counted

    def frame(self) -> "pl.DataFrame":
        """Returns all rows."""
        if self._given:
            return self._model.sample_given(self._given, self._n, **self._options)
        return self._model.sample(self._n, **self._options)

    def __iter__(self) -> Iterator[Values]:
        yield {series.name: series.to_numpy() for series in self.frame()}

    def write(self, writer: TableWriter, repair: Literal["drop"] | None = None) -> Written:  # noqa: ARG002
        """Returns a summary of the rows, which are appended to a file."""
        frame = self.frame()
        writer.append(frame)
        return Written(self.rows, tuple(frame.columns), 0, outside=self.outside)


def given_values(texts: Sequence[str]) -> dict[str, str | float]:
    """Returns values by column from texts such as "age=40".

    Example:
        >>> given_values(["age=40", "region=north"])
        {'age': 40.0, 'region': 'north'}
    """
    pairs = [text.partition("=") for text in texts]
    wrong = [name for name, sign, value in pairs if not (sign and name and value)]
    if wrong:
        raise ArgumentError(f"'given' should be values such as age=40, got {wrong[0]!r}.")
    return {name: _number_or_text(value) for name, _, value in pairs}


def _number_or_text(text: str) -> str | float:
    try:
        return float(text)
    except ValueError:
        return text


def is_mixed(config: Any) -> bool:  # noqa: ANN401
    """Returns whether the configuration of a run has kinds of columns."""
    source = None if config is None else config.source
    return isinstance(source, TableConfig) and source.kinds is not None
