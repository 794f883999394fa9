"""Collects the findings on a run beyond its flow: held-out likelihood, training and data."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kappaflow.diagnosis import (
    Comparison,
    Finding,
    comparison_findings,
    image_likelihood_findings,
    training_findings,
    warning_findings,
)
from kappaflow.errors import KappaflowError
from kappaflow.runs.stored import ImageResult, read_finished
from kappaflow.training import read_result

# Findings, and the names of the checks that they come from.
CollectedFindings = tuple[list[Finding], list[str]]


def table_findings(
    compared: Sequence[Comparison] | None,
    *,
    standard_error: float | None,
    test_rows: int,
    history: Sequence[dict[str, Any]],
    stopped_because: str,
    warnings: Sequence[str],
) -> CollectedFindings:
    """Returns the findings on likelihood, training and data of a run on a table.

    `compared` is None for a flow without a likelihood. The history has the figures of each epoch,
    as in metrics.jsonl.
    """
    findings, checked = [], []
    if compared is not None:
        findings += comparison_findings(compared, standard_error, test_rows)
        checked += [f"the likelihood of {one.name} on {one.rows:,} rows" for one in compared]
    findings += training_findings(history, stopped_because, held_out=test_rows)
    findings += warning_findings(warnings)
    course = ["the course of the training"] if history else []
    return findings, [*checked, *course, "warnings about the data"]


def image_findings(
    bits: float | None,
    standard_error: float | None,
    independent: float | None,
    *,
    history: Sequence[dict[str, Any]],
    stopped_because: str,
) -> CollectedFindings:
    """Returns the findings on likelihood and training of a run on images.

    `bits` is the mean of bits per dimension of the test images (None for a flow without a
    likelihood), `independent` that of a model with independent pixels, and `standard_error` that
    of their difference.
    """
    likelihood = list(image_likelihood_findings(bits, standard_error, independent))
    training = training_findings(history, stopped_because, of_images=True)
    pixels = [] if independent is None else ["the likelihood of independent pixels"]
    return [*likelihood, *training], [*pixels, "the course of the training"]


def stored_findings(folder: Path, warnings: Sequence[str] = ()) -> CollectedFindings:
    """Returns the findings on a finished run from its stored result, as at the end of the run.

    A saved model without a run has none. `warnings` come from reading the data of the run.
    """
    try:
        result = read_finished(folder)
    except KappaflowError:  # not a run, or not finished
        return [], []
    history, stopped_because = _history(folder), result.stopped_because
    if isinstance(result, ImageResult):
        return image_findings(
            result.test_bits_per_dimension,
            result.independent_bits_standard_error
            or result.test_bits_per_dimension_standard_error,
            result.independent_bits_per_dimension,
            history=history,
            stopped_because=stopped_because,
        )
    return table_findings(
        None if result.likelihood == "joint" else result.references,
        standard_error=result.test_nll_standard_error,
        test_rows=result.test_rows,
        history=history,
        stopped_because=stopped_because,
        warnings=warnings,
    )


def _history(folder: Path) -> list[dict[str, Any]]:
    """Returns the figures of each epoch; empty if the stored value is malformed."""
    history = read_result(folder).get("history")
    if not isinstance(history, list) or not all(isinstance(line, dict) for line in history):
        return []
    return history
