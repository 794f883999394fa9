"""KF601 to KF607: data without a density, or with one that a flow cannot follow.

`data_findings` examines a table, KF601 to KF606; KF607 repeats the warnings of loading.
"""

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np
from torch import Tensor

from kappaflow.data import Table, examine, load_table
from kappaflow.data.raw import quoted
from kappaflow.data.statistics import tail_of
from kappaflow.diagnosis.check import CHECKS, Symptom, check
from kappaflow.finding import Finding

ROWS = 32  # least number of rows to examine as data


class ExaminedData:
    """A table and the problems that `kappaflow.data.examine` finds in it."""

    def __init__(self, table: Table) -> None:
        self.table, self.problems = table, examine(table)

    def symptoms(self, *codes: str) -> Iterator[Symptom]:
        """Yields one symptom for all columns with a kind of problem."""
        for code in codes:
            problems = [problem for problem in self.problems if problem.code == code]
            if problems:
                columns = list(
                    dict.fromkeys(name for problem in problems for name in problem.columns)
                )
                first, *_ = problems
                others = [name for name in columns if name not in first.columns]
                also = f"; the same holds for {quoted(others)}" if others else ""
                message = f"{first.message[0].upper()}{first.message[1:]}{also}."
                evidence = {"columns": ", ".join(columns), "rows": len(self.table)}
                yield Symptom(message, evidence)


def data_findings(
    data: Tensor | Table, columns: Sequence[str] = (), source: object = None
) -> Iterator[Finding]:
    """Runs the checks of data, KF601 to KF606, on a table or rows (B, n), at least 32 of them.

    `columns` are the names of the columns of rows; x0, x1, ... by default. `source`, if it is a
    table, has the names of the rows.

    Yields:
        The findings, one for all columns with the same problem.
    """
    if len(data) < ROWS or (isinstance(data, Tensor) and data.dim() != 2):
        return
    table = _named(data, columns) if isinstance(data, Tensor) else data
    if isinstance(source, Table):
        table = dataclasses.replace(
            table, rows=source.rows, lines=source.lines, labels=source.labels
        )
    examined = ExaminedData(table)
    for rule in sorted(CHECKS.values(), key=lambda rule: rule.code):
        if rule.subject == "data":
            yield from rule(examined)


def _named(rows: Tensor, columns: Sequence[str]) -> Table:
    """Returns rows of a tensor, counted from 0 as in all findings on tensors, as a table."""
    table = load_table(rows.detach().cpu().double().numpy())
    table = dataclasses.replace(table, rows=table.rows - 1)
    if len(columns) != len(table.columns):
        return table
    names = dict(zip(table.columns, columns, strict=True))
    integers = tuple(names[name] for name in table.integer_columns)
    return dataclasses.replace(table, columns=tuple(columns), integer_columns=integers)


@check(
    "KF601",
    "columns of the data depend on each other",
    subject="data",
    severity="warning",
    cause="The data lies in a subspace and has no density: the likelihood can grow without bound.",
    fix="Drop the column, or add noise to it (kappaflow fit --repair).",
)
def columns_depend(data: ExaminedData) -> Iterator[Symptom]:
    """The finding names the column and its relation to others. This and the next checks
    examine all given rows, from 32 on.

    Example:
        flow = kf.Flow(kf.StandardNormal(3), kf.bijections.ElementwiseAffine(3))
        x = torch.randn(64, 3)
        x[:, 2] = x[:, 0] - 2 * x[:, 1]
    """
    yield from data.symptoms("dependent-columns")


@check(
    "KF602",
    "a column of the data is constant",
    subject="data",
    severity="warning",
    cause="A column without spread has no density.",
    fix="Drop it.",
)
def column_constant(data: ExaminedData) -> Iterator[Symptom]:
    """The column has one value only.

    Example:
        flow = kf.Flow(kf.StandardNormal(3), kf.bijections.ElementwiseAffine(3))
        x = torch.randn(64, 3)
        x[:, 1] = 7.5
    """
    yield from data.symptoms("constant")


@check(
    "KF603",
    "a column of the data is discrete or repeats values",
    subject="data",
    severity="note",
    cause="Discrete values have no density: a flow can put spikes of any height on them.",
    fix="Add noise of the width of a step (kappaflow fit --repair dequantize), or use the column "
    "as context.",
)
def column_discrete(data: ExaminedData) -> Iterator[Symptom]:
    """The column has whole numbers, values rounded to steps of more than 0.5 % of the standard
    deviation, or a point mass: a value in more rows than the resolution of the column and the
    density around it predict.

    Example:
        flow = kf.Flow(kf.StandardNormal(3), kf.bijections.ElementwiseAffine(3))
        x = torch.randn(64, 3)
        x[:, 0] = (3 * x[:, 0]).round()
    """
    yield from data.symptoms("integer-valued", "rounded", "atom")


@check(
    "KF604",
    "the data repeats rows",
    subject="data",
    severity="note",
    cause="More rows are repeated than rounding explains: held-out rows may be training rows.",
    fix="Find out where they come from, and keep copies in one part of a split "
    "(kappaflow.data.split).",
)
def rows_repeated(data: ExaminedData) -> Iterator[Symptom]:
    """The message says how many rows repeat earlier ones, though two columns or more have a
    value for nearly each different row, so that rounding explains no repeat.

    Example:
        flow = kf.Flow(kf.StandardNormal(3), kf.bijections.ElementwiseAffine(3))
        x = torch.randn(64, 3)
        x[32:] = x[:32]
    """
    yield from data.symptoms("duplicate-rows")


@check(
    "KF605",
    "float32 cannot hold a column of the data",
    subject="data",
    severity="warning",
    cause="float32 keeps too few digits of values that vary little around a large one.",
    fix="Subtract the mean first, in float64.",
)
def column_exceeds_float32(data: ExaminedData) -> Iterator[Symptom]:
    """The column varies little around a large value, or its squares overflow.

    Example:
        flow = kf.Flow(kf.StandardNormal(3), kf.bijections.ElementwiseAffine(3))
        x = torch.randn(64, 3)
        x[:, 0] = 1e7 + x[:, 0]
    """
    yield from data.symptoms("large-offset", "extreme-scale")


@check(
    "KF606",
    "a column of the data has heavy tails",
    subject="data",
    severity="note",
    cause="A map with bounded slopes turns a Gaussian into a distribution with Gaussian tails.",
    fix="Take logarithms or ranks of the column, or use a base with heavier tails.",
)
def column_heavy_tailed(data: ExaminedData) -> Iterator[Symptom]:
    """In 1,000 rows or more, the outermost 5 % fall like a power of the distance: the
    extreme-value index (after Dekkers, Einmahl and de Haan) exceeds 0.1 by three standard errors.

    Example:
        flow = kf.Flow(kf.StandardNormal(2), kf.bijections.ElementwiseAffine(2))
        x = torch.distributions.StudentT(1.5).sample((4000, 2))
    """
    table = data.table
    finite_rows = table.values[np.isfinite(table.values).all(axis=1)]
    tails = {
        name: tail
        for name, column in zip(table.columns, finite_rows.T, strict=True)
        if (tail := tail_of(column)) is not None and tail.is_heavy
    }
    if not tails:
        return
    heaviest = max(tails, key=lambda name: tails[name].index)
    tail = tails[heaviest]
    others = [name for name in tails if name != heaviest]
    also = f"; so do those of {quoted(others)}" if others else ""
    yield Symptom(
        f"The tails of column '{heaviest}' fall like a power of the distance, with an index of "
        f"{tail.index:.2f} ± {tail.standard_error:.2f}{also}.",
        {
            "columns": ", ".join(tails),
            "index": tail.index,
            "standard_error": tail.standard_error,
        },
    )


@check(
    "KF607",
    "loading the data raised a warning",
    subject="run",
    severity="warning",
    cause="The data has a problem that can make its likelihood meaningless.",
    fix="Inspect the rows or columns named, and correct the data or drop them.",
)
def warning_findings(warnings: Sequence[str]) -> Iterator[Symptom]:
    """Loading found a problem that it did not repair, such as too few rows to train on."""
    for text in warnings:
        sentence = text.strip().rstrip(".")
        yield Symptom(f"{sentence[:1].upper()}{sentence[1:]}.")
