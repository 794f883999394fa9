"""What commands do with runs on tables."""

from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Unpack, get_type_hints

from kappaflow.data import Dataset, Table
from kappaflow.data.batches import Batch, domains_in
from kappaflow.data.naming import describe_values
from kappaflow.data.prepare import noisy
from kappaflow.data.raw import Reading
from kappaflow.data.table import Grid
from kappaflow.diagnosis import Diagnosis, Finding, data_findings
from kappaflow.errors import ArgumentError
from kappaflow.flows import Flow
from kappaflow.mixed.saved import COLUMNS, LABELS
from kappaflow.options import option
from kappaflow.report.content import TableCharts
from kappaflow.report.page import Page
from kappaflow.report.result import TABLE
from kappaflow.report.tables import table_page
from kappaflow.results import Part
from kappaflow.runs.kinds import Examine, OpenRun, RunConfig, RunKind
from kappaflow.runs.mixed_data import MixedSamples, MixedScores, is_mixed, mixed_data
from kappaflow.runs.samples import Samples, finite_table
from kappaflow.runs.scores import Scores
from kappaflow.runs.table_content import table_matcher
from kappaflow.runs.table_data import TableConfig, TableData
from kappaflow.runs.written import Chunked
from kappaflow.storage import write_bytes
from kappaflow.table_options import TextFormat


class TableRunConfig(RunConfig[TableConfig]):
    """The entry `run` of config.json, for a run on a table."""

    columns: list[str]
    context_columns: list[str]
    grids: dict[str, Grid] = {}  # the values of rounded columns that noise was added to

    def reading(self, purpose: str, **text: Unpack[TextFormat]) -> Reading:
        """Returns how other data for the run is read; `text` replaces how its text is written."""
        source = self.source
        if source is None:
            return Reading(purpose=purpose, **text)
        names = get_type_hints(TextFormat)
        text = TextFormat(**{name: text.get(name) or getattr(source, name) for name in names})
        return Reading(missing=tuple(source.missing), purpose=purpose, **text)

    def read_again(self, source: TableConfig) -> TableData:
        return source.load() if source.kinds is None else mixed_data(source)

    def names(self, flow: Flow) -> tuple[list[str], list[str]]:
        return self.columns, self.context_columns


class TableRuns(RunKind):
    """Runs on tables, whose scores and samples are written a chunk at a time."""

    name = TABLE
    plural = "rows"
    example = "row"
    entry = "columns"
    config = TableConfig
    run = TableRunConfig
    charts: ClassVar[type[Part]] = TableCharts
    page: ClassVar[Callable[..., Page]] = staticmethod(table_page)

    def read(
        self, run: TableRunConfig, flow: Flow, source: str, **text: Unpack[TextFormat]
    ) -> Table:
        if is_mixed(run):
            raise ArgumentError(
                "'data' should be left out for a run with kinds of columns, which is examined at "
                "its own test rows."
            )
        table = finite_table(
            source, run.columns, run.context_columns, run.reading("diagnose", **text)
        )
        return noisy(table, run.grids, domains_in(flow, table))

    def split_data(self, flow: Flow, train: Table, validation: Table, test: Table) -> TableData:
        config = TableConfig(test.source)
        return TableData(
            config,
            train,
            validation,
            test,
            None,
            loaded=len(test),
            repeats=0,
            warnings=train.warnings,
        )

    def diagnose(
        self,
        flow: Flow,
        data: Table,
        examine: Examine,
        *,
        thorough: bool,
        train: Table | None = None,
    ) -> Diagnosis:
        """Returns the diagnosis at all rows of a table. Findings show the values of rows."""
        rows, match = data.batches(flow), table_matcher(flow, data, train)
        names = partial(describe_values, data)
        return examine(rows.x, rows.context, names=names, match=match, weights=data.weights)

    def data_findings(self, flow: Flow, data: Table) -> Iterable[Finding]:
        return data_findings(data, flow=flow)

    def compared(self, flow: Flow, data: Dataset) -> Batch:
        return data.batches(flow).at(slice(None))

    def scores(self, run: OpenRun, source: str, **options: Any) -> Chunked:
        scores = MixedScores if is_mixed(run.config) else Scores
        return scores(run, source, **options)

    def samples(self, run: OpenRun, n: int, **options: Any) -> Chunked:
        given = options.pop("given", None)
        if is_mixed(run.config):
            return MixedSamples(run, n, given=given, **options)
        if given:
            raise ArgumentError(
                "'given' should be left out: it is for runs with kinds of columns "
                f"({option('kinds', 'auto')}); a conditional flow takes 'context'."
            )
        return Samples(run, n, **options)

    def copy_files(
        self, config: TableRunConfig, flow: Flow, old: Path, new: Path, *, finished: bool
    ) -> None:
        """Copies how columns become numbers and labels, of a run with kinds of columns."""
        if is_mixed(config):
            for name in (COLUMNS, LABELS):
                write_bytes(new / name, (old / name).read_bytes())

    def refuse(self, options: dict[str, Any]) -> None:
        """Raises no error: all options are for tables."""


TABLES = TableRuns()
