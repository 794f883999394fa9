"""What the columns of a table hold, and what may be wrong with it: `examine`."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np

from kappaflow.data.domains import Domains
from kappaflow.data.duplicates import repeated_rows
from kappaflow.data.edges import bound_text, edges_of
from kappaflow.data.load import read_source, table_of
from kappaflow.data.naming import FloatArray
from kappaflow.data.problems import Problem, notes_of, problems_of
from kappaflow.data.raw import DATES, RawTable, Reading
from kappaflow.data.rounding import resolution
from kappaflow.data.table import Table, whole_columns
from kappaflow.errors import ArgumentError
from kappaflow.options import option
from kappaflow.summary import Facts, Summary

CENTRAL = (0.16, 0.5, 0.84)
KINDS = {  # of columns of numbers, by their problem
    "constant": "constant",
    "two-values": "two values",
    "counts-rows": "identifier",
    "integer-valued": "whole numbers",
    "rounded": "rounded",
}
Role = Literal["modeled", "context", "left out"]


@dataclass(frozen=True)
class ColumnSummary:
    """What a column of a table holds. Without a number, the fields from `least` on are None.

    Attributes:
        name: Its name.
        role: Whether it is modeled, a context, or left out.
        kind: "continuous", "rounded", "whole numbers", "two values", "identifier", "constant",
            "empty", "true and false", "dates or times" or "text".
        missing: Number of rows without a finite value.
        distinct: Number of different values.
        least: The least value.
        median: The median.
        greatest: The greatest value.
        spread: Half the range of the central 68 % of the values: the standard deviation, if they
            are normal.
        step: The step of the grid on which all values lie; None if there is none.
        bounds: The edges or the circle that the values show, such as "1,"; None without.
    """

    name: str
    role: Role
    kind: str
    missing: int
    distinct: int
    least: float | None = None
    median: float | None = None
    greatest: float | None = None
    spread: float | None = None
    step: float | None = None
    bounds: str | None = None


def describe_columns(table: Table, edges: Domains) -> tuple[ColumnSummary, ...]:
    """Returns what the modeled columns hold, which have some edges, and those of the context."""
    columns = zip(table.all_columns, table.all_values.T, strict=True)
    return tuple(
        _of_numbers(name, "modeled" if name in table.columns else "context", column, edges)
        for name, column in columns
    )


def describe_left_out(raw: RawTable, table: Table) -> tuple[ColumnSummary, ...]:
    """Returns what the columns of a source hold that a table does not have, in its rows."""
    results = []
    for column in (raw.columns[name] for name in table.left_out):
        if column.is_number and not column.is_truth:
            numbers = column.numbers()[table.rows - 1]
            results.append(_of_numbers(column.name, "left out", numbers, {}))
            continue
        texts = column.texts()
        present = [text for row in table.rows if (text := texts[row - 1]) is not None]
        kind = "true and false" if column.is_truth else DATES if column.holds_dates else "text"
        counts = len(table) - len(present), len(set(present))
        kind = kind if present else "empty"
        results.append(ColumnSummary(column.name, "left out", kind, *counts))
    return tuple(results)


def _of_numbers(name: str, role: Role, column: FloatArray, edges: Domains) -> ColumnSummary:
    finite = column[np.isfinite(column)]
    counts = len(column) - len(finite), len(np.unique(finite))
    if not len(finite):
        return ColumnSummary(name, role, "empty", *counts)
    values, rows = finite[:, None], np.arange(len(finite))
    table = Table(values, (name,), rows, name, integer_columns=whole_columns(values, (name,)))
    codes = {problem.code for problem in problems_of(table, with_repeats=False)}
    kind = next((kind for code, kind in KINDS.items() if code in codes), "continuous")
    low, median, high = (float(value) for value in np.quantile(finite, CENTRAL))
    numbers = float(finite.min()), median, float(finite.max()), (high - low) / 2
    bounds = bound_text(edges[name]) if name in edges else None
    return ColumnSummary(name, role, kind, *counts, *numbers, resolution(finite), bounds)


# The repairs that problems suggest, from the one that does least.
REPAIRS = {
    "missing": "drop",
    "infinite": "drop",
    "sentinel": "drop",
    "rounded": "dequantize",
    "integer-valued": "dequantize",
}


@dataclass(frozen=True, eq=False, repr=False)
class Examination(Summary, Sequence[Problem]):
    """The problems of a table, as a sequence, and what its columns hold.

    Attributes:
        problems: The errors, which stop a fit, then the warnings, then the notes.
        table: The table.
        edges: The domains that columns show and do not have yet, by column.
        left_out: What the columns of the source hold that the table does not have.
    """

    problems: tuple[Problem, ...]
    table: Table
    edges: Domains
    left_out: tuple[ColumnSummary, ...] = ()

    def __len__(self) -> int:
        return len(self.problems)

    def __iter__(self) -> Iterator[Problem]:
        return iter(self.problems)

    def __getitem__(self, index: Any) -> Any:
        return self.problems[index]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and self.problems == tuple(other)

    @cached_property
    def columns(self) -> tuple[ColumnSummary, ...]:
        """What each column holds: the modeled ones, the context, then those left out."""
        return describe_columns(self.table, self.edges) + self.left_out

    @cached_property
    def repeated_rows(self) -> int:
        """Number of rows that repeat earlier ones."""
        return int(repeated_rows(self.table).sum())

    @cached_property
    def suggestions(self) -> dict[str, Any]:
        """Arguments of `kappaflow.fit_auto` that the problems suggest, such as `bounds`."""
        enough = len(self.table) > len(self.table.columns)  # else any column follows from others
        exclude = [name for problem in self if enough for name in problem.drop]
        exclude += [name for p in self if p.code == "counts-rows" for name in p.columns]
        context = [
            n for p in self if p.code == "two-values" for n in p.columns if n not in exclude
        ]
        if set(self.table.columns) <= {*exclude, *context}:
            context = []
        codes = [f"{p.evidence['value']:g}" for p in self if p.code == "sentinel"]
        by_default = [problem for problem in self if "step" in problem.evidence]
        repairs = {REPAIRS.get(problem.code) for problem in self if problem not in by_default}
        if any(d.at_an_end(self.table.by_column[n]).any() for n, d in self.edges.items()):
            repairs.add("jitter")
        if repairs - {None} and by_default:  # the noise that no repair adds
            repairs.add("dequantize")
        repair = next((name for name in ("dequantize", "jitter", "drop") if name in repairs), None)
        options = {
            "exclude": list(dict.fromkeys(exclude)),
            "context": context and [*self.table.context_columns, *context],
            "missing": list(dict.fromkeys(codes)),
            "repair": repair,
            "bounds": {n: bound_text(d) for n, d in self.edges.items() if n not in exclude},
        }
        return {name: value for name, value in options.items() if value}

    def _facts(self) -> Facts:
        modeled = f"{len(self.table.columns)} to model, {len(self.left_out)} left out"
        repeats = f", {self.repeated_rows:,} repeat earlier rows" if self.repeated_rows else ""
        suggested = ", ".join(option(name, value) for name, value in self.suggestions.items())
        return [
            ("rows", f"{len(self.table):,}{repeats}"),
            ("columns", modeled),
            ("problems", ", ".join(f"{p.severity} {p.code}" for p in self) or "none"),
            ("suggestions", suggested or "none"),
        ]

    def _details(self) -> Facts:
        return [(problem.severity, problem.message) for problem in self]

    def to_dict(self) -> dict[str, Any]:
        """Returns rows, columns, problems and suggestions as plain values for JSON."""
        return {
            "source": self.table.source,
            "rows": len(self.table),
            "repeated_rows": self.repeated_rows,
            "columns": [asdict(column) for column in self.columns],
            "problems": [asdict(problem) for problem in self],
            "suggestions": self.suggestions,
            "notes": list(self.table.notes),
        }


def examine(data: object, *, weights: object = None, **reading: Any) -> Examination:
    """Returns the problems of a table, what its columns hold, and options that help.

    Missing or infinite values, constant or linearly dependent columns (copies among them), fewer
    than two rows and no column at all are errors, which stop a fit. Whole numbers, coarse
    rounding, more repeated rows and values than rounding predicts, few rows and offsets that
    float32 cannot hold are warnings. Hard edges, circles and heavy tails are notes. Columns are
    compared on the rows that are complete.

    Args:
        data: A `Table`, or any source that `load_table` takes; it is not changed.
        weights: Weights of the rows, or the name of their column, which is not modeled.
        **reading: The other arguments of `load_table`, such as `context`; none for a `Table`.

    Returns:
        The problems, as a sequence that is empty if a flow can be fitted to the table as it is,
        with the attributes `columns` and `suggestions`.

    Raises:
        ArgumentError: An argument does not fit the data.
        DataError: The source has no numeric column or no row, or cannot be read as numbers.
        FileError: The file is missing or damaged.

    Example:
        >>> import numpy as np
        >>> x = np.array([[0.5, 7.5], [1.25, 7.5], [2.125, np.nan]])
        >>> result = examine(x)
        >>> for problem in result:
        ...     print(problem.severity, problem.message)
        error column 'x1' has a missing value (NaN) at row 3
        error column 'x1' is constant: every row holds 7.5
        warning 2 rows are few for 2 columns: a flow will learn them by heart, so give 20 at least
        >>> result.columns[1].kind, result.suggestions
        ('constant', {'exclude': ['x1'], 'repair': 'drop'})
    """
    if isinstance(data, Table):
        for name in (*reading, *(() if weights is None else ("weights",))):
            raise ArgumentError(f"'{name}' should be left out for a Table: give it to load_table.")
        return examine_table(data)
    request = Reading.of(**reading)
    raw = read_source(data, request)
    table = table_of(raw, request, weights)
    return examine_table(table, left_out=describe_left_out(raw, table))


def examine_table(
    table: Table, domains: Domains | None = None, left_out: tuple[ColumnSummary, ...] = ()
) -> Examination:
    """Returns what `examine` does, without edges of the columns that have domains already."""
    problems = problems_of(table, with_repeats=True)
    known = {} if domains is None else domains
    edges = edges_of(table, known)
    return Examination((*problems, *notes_of(table, edges, known)), table, edges, left_out)
