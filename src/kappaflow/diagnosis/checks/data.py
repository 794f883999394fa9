"""KF601 to KF608: data without a density, or with one that a flow cannot follow.

`data_findings` examines a table; KF607 repeats the warnings of loading.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from kappaflow.conditioning.round_trip import latent_points
from kappaflow.data import Examination, Table, load_table
from kappaflow.data.batches import domains_in
from kappaflow.data.domains import Domains
from kappaflow.data.examine import examine_table
from kappaflow.data.raw import quoted
from kappaflow.diagnosis.check import CHECKS, Symptom, check
from kappaflow.finding import Finding
from kappaflow.flows import Flow
from kappaflow.flows.eval_mode import evaluation_mode

ROWS, SAMPLES = 32, 4096  # fewest rows to examine as data; samples compared with an edge
GRAVE = {  # problems of KF603 that are warnings, and what to do
    "two-values": "Leave the column out, or use it as context.",
    "sentinel": "Say whether the number means a missing value (kappaflow fit --missing).",
}
OF_KINDS = GRAVE | {  # what to do in a table of mixed columns
    "edge": "Name the kind of the column (kappaflow fit --kinds): positive or circular.",
    "integer-valued": "Name the kind of the column: integer (kappaflow fit --kinds).",
    "two-values": "Name the kind of the column: category (kappaflow fit --kinds).",
}


def data_findings(
    data: Tensor | Table,
    columns: Sequence[str] = (),
    source: object = None,
    flow: Flow | None = None,
) -> Iterator[Finding]:
    """Runs the checks of data, KF601 to KF608, on a table or rows (B, n), at least 32 of them.

    `columns` are the names of the columns of rows; x0, x1, ... by default. `source`, if it is a
    table, has the names of the rows. An edge that no sample of `flow` crosses is not reported.

    Yields:
        The findings, one for all columns with the same problem.
    """
    if len(data) < ROWS or (isinstance(data, Tensor) and data.dim() != 2):
        return
    table = _named(data, columns) if isinstance(data, Tensor) else data
    if isinstance(source, Table):
        kept = ("rows", "lines", "labels", "grids", "kinds")
        table = replace(table, **{name: getattr(source, name) for name in kept})
    known = {} if flow is None else domains_in(flow, table)
    examined = examine_table(table, known)
    if flow is not None and (kept := _edges_kept(flow, table, examined.edges)):
        examined = examine_table(table, {**known, **kept})
    for rule in sorted(CHECKS.values(), key=lambda rule: rule.code):
        if rule.subject == "data":
            yield from rule(examined)


@torch.no_grad()
def _edges_kept(flow: Flow, table: Table, edges: Domains) -> Domains:
    """Returns the edges that no sample of a flow crosses, by a layer or a base of its own."""
    context = table.context
    if not edges or bool(flow.context_features) != (context is not None):
        return {}
    if context is not None:
        context = torch.from_numpy(context[:SAMPLES]).to(flow.device, flow.dtype)
    try:
        with evaluation_mode(flow):
            z = latent_points(flow, SAMPLES if context is None else len(context), context)
            x = flow.bijection.inverse(z, context)[0].double().cpu().numpy()
    except Exception:  # the flow of another library cannot decode
        return {}
    columns = zip(table.columns, x.T, strict=False)  # padding follows
    return {
        n: edges[n] for n, column in columns if n in edges and not edges[n].outside(column).any()
    }


def _symptoms(examined: Examination, *codes: str) -> Iterator[Symptom]:
    """Yields one symptom for all columns with a kind of problem; some kinds are warnings."""
    for code in codes:
        problems = [problem for problem in examined if problem.code == code]
        if problems:
            columns = list(dict.fromkeys(name for problem in problems for name in problem.columns))
            first, *_ = problems
            others = [name for name in columns if name not in first.columns]
            also = f"; the same holds for {quoted(others)}" if others else ""
            message = f"{first.message[0].upper()}{first.message[1:]}{also}."
            rows, severity = len(examined.table), "warning" if code in GRAVE else None
            evidence = {"columns": ", ".join(columns), "rows": rows, **first.evidence}
            fix = GRAVE.get(code) if examined.table.kinds is None else OF_KINDS.get(code)
            yield Symptom(message, evidence, severity=severity, fix=fix)


def _named(rows: Tensor, columns: Sequence[str]) -> Table:
    """Returns rows of a tensor, counted from 0 as in all findings on tensors, as a table."""
    table = load_table(rows.detach().cpu().double().numpy())
    table = replace(table, rows=table.rows - 1)
    if len(columns) != len(table.columns):
        return table
    names = dict(zip(table.columns, columns, strict=True))
    integers = tuple(names[name] for name in table.integer_columns)
    return replace(table, columns=tuple(columns), integer_columns=integers)


@check(
    "KF601",
    "columns of the data depend on each other",
    subject="data",
    severity="warning",
    cause="The data lies in a subspace and has no density: the likelihood can grow without bound.",
    fix="Drop the column, or add noise to it (kappaflow fit --repair).",
)
def columns_depend(data: Examination) -> Iterator[Symptom]:
    """The finding names the column and its relation to others. This and the next checks
    examine all given rows, from 32 on.

    Example:
        flow = kf.Flow(kf.StandardNormal(3), kf.bijections.ElementwiseAffine(3))
        x = torch.randn(64, 3)
        x[:, 2] = x[:, 0] - 2 * x[:, 1]
    """
    yield from _symptoms(data, "dependent-columns")


@check(
    "KF602",
    "a column of the data is constant",
    subject="data",
    severity="warning",
    cause="A column without spread has no density.",
    fix="Drop it.",
)
def column_constant(data: Examination) -> Iterator[Symptom]:
    """The column has one value only.

    Example:
        flow = kf.Flow(kf.StandardNormal(3), kf.bijections.ElementwiseAffine(3))
        x = torch.randn(64, 3)
        x[:, 1] = 7.5
    """
    yield from _symptoms(data, "constant")


@check(
    "KF603",
    "a column of the data is discrete or repeats values",
    subject="data",
    severity="note",
    cause="Discrete values have no density: a flow can put spikes of any height on them.",
    fix="Add noise of the width of a step (kappaflow fit --repair dequantize), or use the column "
    "as context.",
)
def column_discrete(data: Examination) -> Iterator[Symptom]:
    """The column has whole numbers, values rounded to steps of more than 0.5 % of the standard
    deviation, or a point mass: a value in more rows than the resolution of the column and the
    density around it predict. Two values only, and a number such as -999 that most likely stands
    for a missing value, are warnings.

    Example:
        flow = kf.Flow(kf.StandardNormal(3), kf.bijections.ElementwiseAffine(3))
        x = torch.randn(64, 3)
        x[:, 0] = (3 * x[:, 0]).round()
    """
    yield from _symptoms(data, "integer-valued", "rounded", "counts-rows", "atom", *GRAVE)


@check(
    "KF604",
    "the data repeats rows",
    subject="data",
    severity="note",
    cause="More rows are repeated than rounding explains: held-out rows may be training rows.",
    fix="Find out where they come from, and keep copies in one part of a split "
    "(kappaflow.data.split).",
)
def rows_repeated(data: Examination) -> Iterator[Symptom]:
    """The message says how many rows repeat earlier ones, though two columns or more have a
    value for nearly each different row, so that rounding explains no repeat.

    Example:
        flow = kf.Flow(kf.StandardNormal(3), kf.bijections.ElementwiseAffine(3))
        x = torch.randn(64, 3)
        x[32:] = x[:32]
    """
    yield from _symptoms(data, "duplicate-rows")


@check(
    "KF605",
    "float32 cannot hold a column of the data",
    subject="data",
    severity="warning",
    cause="float32 keeps too few digits of values that vary little around a large one.",
    fix="Subtract the mean first, in float64.",
)
def column_exceeds_float32(data: Examination) -> Iterator[Symptom]:
    """The column varies little around a large value, or its squares overflow.

    Example:
        flow = kf.Flow(kf.StandardNormal(3), kf.bijections.ElementwiseAffine(3))
        x = torch.randn(64, 3)
        x[:, 0] = 1e7 + x[:, 0]
    """
    yield from _symptoms(data, "large-offset", "extreme-scale")


@check(
    "KF606",
    "a column of the data has heavy tails",
    subject="data",
    severity="note",
    cause="A map with bounded slopes turns a Gaussian into a distribution with Gaussian tails.",
    fix="Take logarithms or ranks of the column, or use a base with heavier tails.",
)
def column_heavy_tailed(data: Examination) -> Iterator[Symptom]:
    """In 1,000 rows or more, the outermost 5 % fall like a power of the distance: the
    extreme-value index (after Dekkers, Einmahl and de Haan) exceeds 0.1 by three standard errors.

    Example:
        flow = kf.Flow(kf.StandardNormal(2), kf.bijections.ElementwiseAffine(2))
        x = torch.distributions.StudentT(1.5).sample((4000, 2))
    """
    yield from _symptoms(data, "heavy-tails")


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


@check(
    "KF608",
    "a column of the data ends at a hard edge or is circular",
    subject="data",
    severity="note",
    cause="A flow without bounds is smooth across the edge: it generates rows beyond it, and its "
    "density is too low next to it.",
    fix="Give the column its bounds (bounds= of the recipe, kappaflow fit --bounds).",
)
def column_has_edge(data: Examination) -> Iterator[Symptom]:
    """In 500 rows or more, the density next to the least or the greatest value does not fall to
    zero, and the flow has no bound there. The message has the simplest number near this value, or
    a circle. Positive columns that pile up near 0 count too, but no whole numbers or point masses.

    Example:
        flow = kf.Flow(kf.StandardNormal(2), kf.bijections.ElementwiseAffine(2))
        x = torch.randn(1000, 2)
        x[:, 1] = 1 + 5 * torch.rand(1000)
    """
    yield from _symptoms(data, "edge")
