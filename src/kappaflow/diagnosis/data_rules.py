"""What points themselves say: data on which no density exists, or on which it can grow at will."""

from collections.abc import Iterator

from torch import Tensor

from kappaflow.data import examine, load_table
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
        "Add noise of the width of a step (dequantize), or use the column as context.",
    ),
    "atom": (
        "KF603",
        "note",
        "Values that come again and again have no density.",
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
        "Rows are repeated: held-out rows may be rows that were trained on.",
        "Leave repeated rows out before splitting (kappaflow.data.drop_duplicate_rows).",
    ),
}


def data_findings(x: Tensor) -> Iterator[Finding]:
    """KF601 to KF605: data without a density, or with one that can grow at will.

    Args:
        x: Points, (B, n) of at least 32 rows; of others nothing is said.

    Yields:
        The findings.
    """
    if x.dim() != 2 or len(x) < ROWS:
        return
    for problem in examine(load_table(x.detach().cpu().numpy())):
        if problem.code not in KINDS:
            continue
        code, severity, cause, cure = KINDS[problem.code]
        yield Finding(
            code=code,
            severity=severity,
            layer=None,
            message=f"{problem.message[0].upper()}{problem.message[1:]}.",
            cause=cause,
            cure=cure,
            evidence={"columns": ", ".join(problem.columns), "rows": len(x)},
        )
