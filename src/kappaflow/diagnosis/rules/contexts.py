"""Rules on contexts."""

from collections.abc import Iterator

import torch

from kappaflow.conditioning import TRUSTED
from kappaflow.diagnosis.finding import Finding
from kappaflow.diagnosis.measured import Measured

TIMES = 100.0  # the median, for one context to be far worse than the others


def context_ignored(m: Measured) -> Iterator[Finding]:
    """KF210: the density of a point is the same under each context."""
    if m.contexts is None or m.contexts.matters or not m.contexts.differ:
        return
    yield Finding(
        code="KF210",
        severity="note",
        layer=None,
        message="log_prob does not change with the context at any of the points.",
        cause="The flow has not been trained, or the context does not reach its networks.",
        cure="Look whether each layer is given the context, and train.",
        evidence={"rows": len(m.contexts.rows)},
    )


def context_ill_conditioned(m: Measured) -> Iterator[Finding]:
    """KF306: under some contexts the conditioning is far worse than under the others."""
    if m.contexts is None or not m.contexts.matters:
        return
    kappa = m.contexts.condition_number
    finite = kappa[torch.isfinite(kappa)]
    if not len(finite) or not finite.max() > TIMES * finite.median():
        return
    row = int(m.contexts.rows.to(kappa.device)[int(kappa.nan_to_num(0, posinf=0).argmax())])
    worst, middle = finite.max().item(), finite.median().item()
    yield Finding(
        code="KF306",
        severity="warning" if worst * m.profile.eps > TRUSTED / 10 else "note",
        layer=None,
        message=(
            f"Under the context of {m.name_row(row)} the condition number is {worst:.1e}, where "
            f"it is {middle:.1e} under the median one."
        ),
        cause="The context is far from those that were trained on, or scales follow it unbounded.",
        cure="Standardise contexts, bound the log-scales, and look at the rows of this context.",
        evidence={"row": row, "condition_number": worst, "median": middle},
    )
