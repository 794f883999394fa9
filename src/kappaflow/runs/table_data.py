"""`TableConfig` and `TableData`: which rows a run uses, and these rows, split."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from kappaflow.data import Dataset, MappedTable, Table, TableOnDisk, split
from kappaflow.data.domains import clip_to_domain, domains_of
from kappaflow.data.duplicates import drop_duplicate_rows, repeated_rows, weigh_duplicate_rows
from kappaflow.data.edges import edges_of
from kappaflow.data.load import read_table
from kappaflow.data.naming import listed, require_finite
from kappaflow.data.on_disk import SplitRequest, SplitTable
from kappaflow.data.prepare import FEW_ROWS, few_to_train_on, noisy, prepare_table
from kappaflow.data.problems import messages_of, notes_of, problems_of
from kappaflow.data.raw import NO_MISSING, Reading
from kappaflow.domains import Interval
from kappaflow.errors import ArgumentError, DataError
from kappaflow.flows import Flow
from kappaflow.options import kinds_option, option
from kappaflow.report.result import TABLE
from kappaflow.runs.candidate import ModelSearch
from kappaflow.runs.content import Content
from kappaflow.runs.kinds import DataConfig, RunData
from kappaflow.runs.model_search import search_model
from kappaflow.runs.race import ModelChoice
from kappaflow.runs.ranges import Ranges, training_ranges
from kappaflow.runs.recipes import (
    COUPLINGS,
    ModelConfig,
    all_arguments,
    build_flow,
    is_one_feature,
    with_bounds,
)
from kappaflow.runs.table_content import table_content
from kappaflow.table_options import TableOptions
from kappaflow.training import FitResult, Settings, correlation_note
from kappaflow.training.on_disk import examine_sample, rows_kept_until, split_for, split_shown
from kappaflow.training.session import TrainingState

FRACTIONS = (0.8, 0.1, 0.1)  # of the data: for training, validation and test
HANDLED = {"keep": "kept", "drop": "dropped", "weigh": "counted by weights"}


@dataclass(frozen=True)
class TableConfig(TableOptions, DataConfig):
    """Which rows a run uses. `load` and `opened` return them."""

    kind: ClassVar[str] = TABLE

    split_seed: int = 0  # decides which rows train (80 %), validate (10 %) and test (10 %)

    def reading(self) -> Reading:
        """Returns which rows and columns are read, and how."""
        exclude = self.exclude if self.weights is None else [*self.exclude, self.weights]
        return Reading.of(
            self.columns,
            exclude,
            self.context,
            self.where,
            self.decimal,
            self.missing,
            self.separator,
            self.comment,
        )

    def load(self) -> "TableData":
        """Returns the rows: loaded, examined, repaired and split; equal rows are in one part.

        A table on disk is read, but its training rows are not written.
        """
        if self.on_disk:
            return _from_disk(self, split_shown(_split_request(self), None, progress=False))
        return _in_memory(self)

    @contextmanager
    def opened(
        self, out: Path, device: str | None, progress: bool | None
    ) -> Iterator["TableData"]:
        """Yields the rows for a training, with the run folder `out` locked by this process.

        The file of a table on disk exists until the context ends.

        Yields:
            The rows.
        """
        if not self.on_disk:
            yield self.load()
            return
        request = _split_request(self)
        with rows_kept_until(out):
            result = split_for(request, out=out, device=device, progress=progress)
            yield _from_disk(self, result)


@dataclass(frozen=True)
class TableData(RunData):
    """The rows of a run, split, and notes on them, one sentence each."""

    config: TableConfig
    train: Table  # a sample for a table on disk
    validation: Table
    test: Table
    against: Table | None  # rows that should score lower
    loaded: int  # number of rows before any were dropped
    repeats: int  # number of rows that repeat earlier ones
    domains: dict[str, Interval] = field(default_factory=dict)
    in_file: MappedTable | None = None  # the training rows in a file; None if they are in memory

    @property
    def trained_on(self) -> Dataset:
        """All training rows, in memory or in a file, weighted if copies count by a weight."""
        if self.in_file is not None:
            return self.in_file
        weighs = self.config.duplicates == "weigh"
        return weigh_duplicate_rows(self.train)[0] if weighs else self.train

    def build_flow(self, model: ModelConfig, seed: int) -> Flow:
        """Returns a new flow for the rows, with the domains of their columns."""
        return build_flow(with_bounds(model, self.domains, self.train), self.train, seed)

    def model_notes(self, model: ModelConfig, budget: float | None) -> tuple[str, ...]:
        """Returns remarks on a model for these rows, one sentence each."""
        note = None if budget is None else correlation_note(self.train, budget)
        notes = () if note is None else (note,)
        couples = model.recipe in COUPLINGS and is_one_feature(model, self.train)
        couples = couples and "gaussianize" not in model.arguments.get("start", "identity")
        if couples and not self.train.context_columns and not notes:
            notes = ("one column leaves a coupling nothing to read: the flow is a Gaussian",)
        return notes

    def search(
        self, search: ModelSearch, settings: Settings, **options: Any
    ) -> tuple[ModelChoice, TrainingState | None]:
        """Returns the choice of a model search and the state of its winner."""
        rows = self.trained_on
        return search_model(
            rows if isinstance(rows, Table) else self.train,
            self.validation,
            search,
            settings,
            domains=self.domains,
            **options,
        )

    def content(self, result: FitResult, budget: float | None) -> Content:
        """Returns what is measured of a flow on the test rows."""
        return table_content(result, self, budget)

    def ranges(self) -> Ranges:
        """Returns the least and the greatest training value of each column."""
        return training_ranges(self)

    def form(self) -> list[tuple[str, str]]:
        """Returns the names of the columns."""
        context = self.test.context_columns
        columns = [("columns", ", ".join(self.test.columns))]
        return [*columns, ("given", ", ".join(context))] if context else columns

    def model_facts(self, model: ModelConfig) -> dict[str, Any]:
        """Returns the arguments of a model for a report; the domains are facts of the data."""
        return {name: value for name, value in all_arguments(model).items() if name != "bounds"}

    def facts(self) -> list[tuple[str, str]]:
        """Returns the facts about the rows for a report, as labels and values."""
        config, train = self.config, self.train
        parts = (self.trained_on, self.validation, self.test)
        handled = HANDLED[config.duplicates]
        facts = [
            ("source", config.data),
            ("rows read", f"{self.loaded:,}"),
            (
                "rows that repeat earlier ones",
                f"{self.repeats:,}, {handled}" if self.repeats else "none",
            ),
            ("rows to train / validate / test", " / ".join(f"{len(part):,}" for part in parts)),
            ("columns", ", ".join(train.columns)),
            ("columns left out", ", ".join(train.left_out) or "none"),
        ]
        if config.where:
            facts.insert(1, ("rows where", ", ".join(config.where)))
        if train.weights is not None and config.weights is not None:
            effective = train.weights.sum() ** 2 / (train.weights**2).sum()
            worth = f"the training rows count like {effective:,.0f} equal ones"
            facts.append(("weights", f"{config.weights}: {worth}"))
        if self.domains:
            named = (f"{name} {domain.description}" for name, domain in self.domains.items())
            facts.append(("domains", "; ".join(named)))
        if train.context_columns:
            facts.append(("given", ", ".join(train.context_columns)))
        return facts


def _in_memory(config: TableConfig) -> TableData:
    """Returns rows in memory: loaded, examined, repaired and split."""
    if config.kinds is not None:
        raise ArgumentError("'kinds' should be given to a MixedConfig, got a TableConfig.")
    if config.against is not None and config.data == "-":
        raise ArgumentError("'against' needs data that can be read twice, not standard input.")
    loaded = read_table(config.data, config.reading(), config.weights)
    fingerprint = loaded.fingerprint()
    against, notes = _against(config, loaded)
    if against is not None:
        loaded = loaded.select(~np.isin(loaded.rows, against.rows))
    _refuse_few_different(loaded)
    _refuse_sentinels(loaded)
    prepared = prepare_table(
        loaded,
        bounds=config.bounds,
        repair=config.repair,
        jitter=config.jitter or (),
        duplicates=config.duplicates,
    )
    table, domains = prepared.table, prepared.domains
    train, validation, test = split(table, fractions=FRACTIONS, seed=config.split_seed)
    if against is not None:
        if config.duplicates != "keep":
            against, _ = drop_duplicate_rows(against)
        against = against.without_columns(set(against.columns) - set(table.columns))
        require_finite(against, config.data)
        against, _ = clip_to_domain(
            against, domains, repair=config.repair, rounded=tuple(table.grids)
        )
        against = noisy(against, table.grids, domains)
    few = few_to_train_on(len(train))
    return TableData(
        config,
        train,
        validation,
        test,
        against,
        loaded=len(loaded),
        repeats=prepared.repeats.total,
        notes=notes + prepared.notes + prepared.warnings + few,
        domains=domains,
        warnings=train.warnings + few,
        fingerprint=fingerprint,
    )


def _refuse_few_different(table: Table) -> None:
    """Raises an error for rows that are nearly all the same, before their number is checked."""
    for rows in (table.select(slice(0, FEW_ROWS)), table):  # the first few nearly always do
        different = len(rows) - int(repeated_rows(rows).sum())
        if different >= min(len(FRACTIONS), len(table)) or not np.isfinite(rows.values).all():
            return
    raise DataError(
        f"'{table.source}' holds only {different} different row{'s' if different > 1 else ''} "
        f"among {len(table):,}: give at least {len(FRACTIONS)} different ones, to train on, to "
        "stop by and to test with."
    )


def _refuse_sentinels(table: Table) -> None:
    """Raises an error for numbers that most likely mean "missing"."""
    problems = problems_of(table, with_repeats=False)
    problems = [problem for problem in problems if problem.code == "sentinel"]
    if problems:
        kinds = kinds_option()
        model = f"{kinds} models missing values, and " if kinds else ""
        drop = f"{option('repair', 'drop')} leaves out the rows of a missing one"
        raise DataError(f"{listed(problems)}; {model}{drop}.")


def _split_request(config: TableConfig) -> SplitRequest:
    """Returns how to split a table on disk; an error for options that need it in memory."""
    copies, repair = config.duplicates != "keep", config.repair not in {None, "keep"}
    needs = {"where": config.where, "against": config.against, "repair": repair}
    needs |= {"weights": config.weights}
    for name, value in (needs | {"jitter": config.jitter, "duplicates": copies}).items():
        if value:
            raise ArgumentError(
                f"'{name}' should be left out with 'on_disk', which reads each row once: write a "
                "file of the rows to train on first."
            )
    columns = None if config.columns is None else tuple(config.columns)
    table = TableOnDisk(
        config.data,
        columns,
        tuple(config.exclude),
        tuple(config.context),
        decimal=config.decimal,
        missing=tuple(config.missing),
        separator=config.separator,
        comment=config.comment,
    )
    dtype = str(torch.get_default_dtype()).removeprefix("torch.")  # of all recipes
    return SplitRequest(table, FRACTIONS, config.split_seed, dtype)


def _from_disk(config: TableConfig, split_table: SplitTable) -> TableData:
    """Returns the rows of a table on disk, if a density can be fitted to them."""
    sample, notes, warned = examine_sample(split_table)
    if NO_MISSING not in config.missing:
        _refuse_sentinels(sample)
    domains = domains_of(config.bounds, sample)
    few = few_to_train_on(len(split_table.train))
    parts = "".join(part.fingerprint() for part in (split_table.train, *split_table.held_out))
    shapes = messages_of(notes_of(sample, edges_of(sample, domains), domains))
    for part in (sample, *split_table.held_out):
        clip_to_domain(part, domains, offered=())
    return TableData(
        config,
        sample,
        *split_table.held_out,
        against=None,
        loaded=split_table.rows,
        repeats=split_table.repeats,
        notes=(*notes, *shapes, *warned, *few),
        domains=domains,
        in_file=split_table.train,
        warnings=sample.warnings + few,
        fingerprint=hashlib.sha256(parts.encode()).hexdigest(),
    )


def _against(config: TableConfig, loaded: Table) -> tuple[Table | None, tuple[str, ...]]:
    """Returns the rows to compare with, and a note if some would be trained on otherwise."""
    if config.against is None:
        return None, ()
    where = {"columns": loaded.columns, "exclude": (), "where": (config.against,)}
    against = read_table(config.data, replace(config.reading(), **where))
    both = int(np.isin(loaded.rows, against.rows).sum())
    notes = (f"{both} rows that meet {config.against!r} are compared with, and not trained on",)
    return against, notes if both else ()
