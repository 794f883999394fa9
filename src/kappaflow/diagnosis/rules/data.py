"""What points themselves say: data on which no density exists, or on which it can grow at will."""

from collections.abc import Iterator

import numpy as np
from torch import Tensor

from kappaflow.data import Problem, Table, examine, load_table
from kappaflow.data.heavy_tails import tail_of
from kappaflow.data.raw import quoted
from kappaflow.diagnosis.finding import Finding, Severity

ROWS = 32  # fewer are points to measure at, and no data
# Code, severity, and what follows, by the code of what `kappaflow.data.examine` finds.
KINDS: dict[str, tuple[str, Severity, str, str]] = {
    "dependent-columns": (
        "KF601",
        "warning",
        "The data lies in a subspace, so that it has no density: a likelihood can grow at will, "
        "and some direction be squeezed without end.",
        "Leave the column out, or add noise to it (kappaflow fit --repair).",
    ),
    "duplicated-column": (
        "KF601",
        "warning",
        "Two columns are one: the data has no density.",
        "Leave one of them out.",
    ),
    "constant": (
        "KF602",
        "warning",
        "A column without any spread has no density.",
        "Leave it out.",
    ),
    "integer-valued": (
        "KF603",
        "note",
        "Discrete values have no density: a flow can put spikes of any height on them.",
        "Add noise of the width of a step (--repair dequantize), or use the column as context.",
    ),
    "rounded": (
        "KF603",
        "note",
        "Rounded values have no density: a flow that resolves their steps can put spikes on them.",
        "Add noise of the width of a step (--repair dequantize).",
    ),
    "atom": (
        "KF603",
        "note",
        "A value that holds a point mass has no density.",
        "Add noise to them, leave these rows out, or use the column as context.",
    ),
    "large-offset": (
        "KF605",
        "warning",
        "Float32 keeps too few digits of values that vary little around a large one.",
        "Subtract the mean first, in float64.",
    ),
    "extreme-scale": (
        "KF605",
        "warning",
        "Squares of such values overflow or vanish in float32.",
        "Measure the column in another unit.",
    ),
    "duplicate-rows": (
        "KF604",
        "note",
        "More rows are repeated than rounding explains: held-out rows may be rows that were "
        "trained on, and rows pasted twice count twice.",
        "Find out where they come from, and keep copies in one part of a split, as "
        "kappaflow.data.split does.",
    ),
}


def data_findings(data: Tensor | Table) -> Iterator[Finding]:
    """KF601 to KF606: data without a density, or with one that a flow cannot follow.

    Args:
        data: Points, (B, n), or a table, of at least 32 rows; of others nothing is said.

    Yields:
        The findings, one for all columns of which the same can be said.
    """
    if len(data) < ROWS or (isinstance(data, Tensor) and data.dim() != 2):
        return
    table = load_table(data.detach().cpu().double().numpy()) if isinstance(data, Tensor) else data
    found: dict[str, list[Problem]] = {}
    for problem in examine(table):
        if problem.code in KINDS:
            found.setdefault(problem.code, []).append(problem)
    for kind, problems in found.items():
        code, severity, cause, cure = KINDS[kind]
        columns = list(dict.fromkeys(name for one in problems for name in one.columns))
        first = problems[0].message
        others = [one for one in columns if one not in problems[0].columns]
        also = f"; so it is with {quoted(others)}" if others else ""
        yield Finding(
            code=code,
            severity=severity,
            layer=None,
            message=f"{first[0].upper()}{first[1:]}{also}.",
            cause=cause,
            cure=cure,
            evidence={"columns": ", ".join(columns), "rows": len(table)},
        )
    yield from _heavy_tails(table)


def _heavy_tails(table: Table) -> Iterator[Finding]:
    """KF606: columns whose tails fall like a power of the distance."""
    whole = table.values[np.isfinite(table.values).all(axis=1)]
    tails = {
        name: tail
        for name, column in zip(table.columns, whole.T, strict=True)
        if (tail := tail_of(column)) is not None and tail.is_heavy
    }
    if not tails:
        return
    heaviest = max(tails, key=lambda name: tails[name].index)
    tail = tails[heaviest]
    others = [name for name in tails if name != heaviest]
    also = f"; so do those of {quoted(others)}" if others else ""
    yield Finding(
        code="KF606",
        severity="note",
        layer=None,
        message=(
            f"The tails of column '{heaviest}' fall like a power of the distance, with an index "
            f"of {tail.index:.2f} ± {tail.standard_error:.2f}{also}."
        ),
        cause=(
            "A map with bounded slopes makes tails of a Gaussian that are Gaussian again: such "
            "points are further out than any sample, or some slope grows without bound."
        ),
        cure="Take logarithms or ranks of the column, or a base with heavier tails.",
        evidence={
            "columns": ", ".join(tails),
            "index": tail.index,
            "standard_error": tail.standard_error,
        },
    )
