"""What is measured of a run on one kind of data, and the findings on it beyond its flow."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kappaflow.diagnosis import (
    Diagnosis,
    Finding,
    comparison_findings,
    image_likelihood_findings,
    training_findings,
    warning_findings,
)
from kappaflow.errors import KappaflowError
from kappaflow.report.result import IMAGES, HeldOut
from kappaflow.results import Part
from kappaflow.runs.stored import read_finished
from kappaflow.training import Batch, read_result

History = Sequence[dict[str, Any]]  # the figures of each epoch, as in metrics.jsonl
# Findings, and the names of the checks that they come from.
CollectedFindings = tuple[list[Finding], list[str]]


@dataclass(frozen=True)
class Content:
    """What one kind of data adds to the report on a flow.

    Attributes:
        held_out: Its likelihood, and the references that it is compared with.
        charts: What only the page draws.
        diagnosis: The diagnosis of the flow at held-out rows or images.
        points: Where its conditioning is profiled, if the diagnosis has no profile.
        condition: Figures of `Conditioning` that were measured at more rows than a profile.
    """

    held_out: HeldOut
    charts: Part
    diagnosis: Diagnosis
    points: Batch
    condition: Mapping[str, float] = field(default_factory=dict)


def run_findings(
    held_out: HeldOut, history: History, stopped_because: str, warnings: Sequence[str] = ()
) -> CollectedFindings:
    """Returns the findings on likelihood, training and data of a run."""
    if held_out.kind == IMAGES:
        return _image_findings(held_out, history, stopped_because)
    findings, checked, test = [], [], held_out.test
    if not held_out.is_joint:
        findings += comparison_findings(held_out.references, test.standard_error, test.rows)
        checked += [
            f"the likelihood of {one.name} on {one.rows:,} rows" for one in held_out.references
        ]
    findings += training_findings(history, stopped_because, held_out=test.rows)
    findings += warning_findings(warnings)
    course = ["the course of the training"] if history else []
    return findings, [*checked, *course, "warnings about the data"]


def _image_findings(
    held_out: HeldOut, history: History, stopped_because: str
) -> CollectedFindings:
    """Returns the findings on likelihood and training of a run on images."""
    findings, pixels = training_findings(history, stopped_because, of_images=True), []
    for one in held_out.references:
        bits = held_out.test.bits_per_dimension
        findings = [*image_likelihood_findings(bits, one.standard_error, one.nll), *findings]
        pixels = [f"the likelihood of {one.name}"]
    return [*findings], [*pixels, "the course of the training"]


def stored_findings(folder: Path, warnings: Sequence[str] = ()) -> CollectedFindings:
    """Returns the findings on a finished run from its stored result, as at the end of the run.

    A saved model without a run has none. `warnings` come from reading the data of the run.
    """
    try:
        result = read_finished(folder)
    except KappaflowError:  # not a run, or not finished
        return [], []
    return run_findings(result, _history(folder), result.stopped_because, warnings)


def _history(folder: Path) -> History:
    """Returns the figures of each epoch; empty if the stored value is malformed."""
    history = read_result(folder).get("history")
    if not isinstance(history, list) or not all(isinstance(line, dict) for line in history):
        return []
    return history
