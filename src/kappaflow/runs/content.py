"""What is measured of a run on one kind of data, and the findings on it beyond its flow."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from kappaflow.diagnosis import (
    Diagnosis,
    Finding,
    comparison_findings,
    diagnose_flow,
    training_findings,
    warning_findings,
)
from kappaflow.flows import Flow
from kappaflow.report.general import GeneralCharts
from kappaflow.report.result import AddedPadding, HeldOut, Likelihood, MixedLikelihood
from kappaflow.results import Part
from kappaflow.training import Batch, quantile
from kappaflow.training.measure import standard_error

History = Sequence[dict[str, Any]]  # the figures of each epoch, as in metrics.jsonl
CHANCE = 0.001  # p-value below which a difference is no chance
LEVELS = {"median": 0.5, "p95": 0.95, "max": 1.0}


@dataclass(frozen=True)
class Content:
    """What one kind of data adds to the report on a flow."""

    held_out: HeldOut  # its likelihood, and the references that it is compared with
    charts: Part  # what only the page draws
    diagnosis: Diagnosis  # the diagnosis of the flow at held-out rows or images
    points: Batch  # where its conditioning is profiled, if the diagnosis has no profile
    # Figures of `Conditioning` that were measured at more rows than a profile
    condition: Mapping[str, float] = field(default_factory=dict)


def general_content(kind: str, flow: Flow, nll: Tensor, few: Batch) -> Content:
    """Returns what is measured on any test data, from the NLL of each example and some of them."""
    test = Likelihood(
        name="test",
        rows=len(nll),
        nll=nll.mean().item(),
        standard_error=standard_error(nll),
        quantiles={name: quantile(nll, level) for name, level in LEVELS.items()},
    )
    held_out = HeldOut(
        kind=kind, likelihood=flow.likelihood, test=test, padding=AddedPadding.of(flow)
    )
    diagnosis = diagnose_flow(flow, few.x, few.context)
    return Content(held_out, GeneralCharts(), diagnosis, few)


def run_findings(
    held_out: HeldOut, history: History, stopped_because: str, warnings: Sequence[str] = ()
) -> list[Finding]:
    """Returns the findings on likelihood, training and data of a run."""
    findings, test = [], held_out.test
    if not held_out.is_joint:
        findings += comparison_findings(held_out.references, test.standard_error, test.rows)
    findings += training_findings(history, stopped_because, held_out=test.rows)
    return [*findings, *warning_findings([*_of_labels(held_out.mixed), *warnings])]


def _of_labels(mixed: MixedLikelihood | None) -> list[str]:
    """Returns a sentence if sampled labels differ from those of held-out rows."""
    if mixed is None or mixed.labels_p_value is None or mixed.labels_p_value >= CHANCE:
        return []
    names = " and ".join(repr(name) for name in mixed.labels_worst)
    return [
        f"samples do not have the labels or counts of held-out rows: they differ most in {names} "
        f"(p = {mixed.labels_p_value:.1g})"
    ]
