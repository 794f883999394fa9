"""Findings on a run as a whole: held-out likelihood, the course of the training, the data."""

import math
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
from kappaflow.runs.stored import Result, is_image_run, read_finished, read_finished_images
from kappaflow.training import read_result

Found = tuple[list[Finding], list[str]]  # findings, and the names of the checks they come from


def run_findings(
    compared: Sequence[Comparison] | None,
    *,
    standard_error: float | None,
    test_rows: int,
    history: Sequence[dict[str, Any]],
    stopped_because: str,
    warnings: Sequence[str],
) -> Found:
    """Returns what likelihood, training and data say of the flow of a run on a table.

    Args:
        compared: The comparisons on the test rows; None for a flow without a likelihood.
        standard_error: Of the mean NLL of the test rows.
        test_rows: How many test rows there are.
        history: The figures of each epoch.
        stopped_because: What ended the training.
        warnings: What reading the data has warned of.

    Returns:
        Findings and checks.
    """
    findings, checked = [], []
    if compared is not None:
        findings += comparison_findings(compared, standard_error, test_rows)
        checked += [f"the likelihood of {one.name} on {one.rows:,} rows" for one in compared]
    findings += [*training_findings(history, stopped_because), *warning_findings(warnings)]
    return findings, [*checked, "the course of the training", "warnings about the data"]


def image_run_findings(
    bits: float | None,
    standard_error: float | None,
    independent: float | None,
    *,
    history: Sequence[dict[str, Any]],
    stopped_because: str,
) -> Found:
    """Returns what likelihood and training say of the flow of a run on images.

    Args:
        bits: Mean bits per dimension of the test images; None where there are none.
        standard_error: Of the difference of the two over the images.
        independent: The same with each pixel on its own.
        history: The figures of each epoch.
        stopped_because: What ended the training.

    Returns:
        Findings and checks.
    """
    likelihood = list(image_likelihood_findings(bits, standard_error, independent))
    training = training_findings(history, stopped_because, of_images=True)
    pixels = [] if independent is None else ["the likelihood of independent pixels"]
    return [*likelihood, *training], [*pixels, "the course of the training"]


def stored_findings(folder: Path, warnings: Sequence[str] = ()) -> Found:
    """Returns the findings on a finished run as a whole, from what it has stored.

    Args:
        folder: A run folder, or any saved model, of which nothing is stored.
        warnings: What reading its data has warned of.

    Returns:
        Findings and checks, the same as when the run was finished.
    """
    try:
        return _of_images(folder) if is_image_run(folder) else _of_rows(folder, warnings)
    except KappaflowError:  # no run, or one that is not finished
        return [], []


def _of_rows(folder: Path, warnings: Sequence[str]) -> Found:
    result = read_finished(folder)
    return run_findings(
        None if result.likelihood == "joint" else _comparisons(result),
        standard_error=result.test_nll_standard_error,
        test_rows=result.test_rows,
        history=_history(folder),
        stopped_because=result.stopped_because,
        warnings=warnings,
    )


def _comparisons(result: Result) -> list[Comparison]:
    """Returns the stored comparisons; a difference that is not finite was written as none."""
    return [
        Comparison(
            kind=one.kind,
            components=one.components,
            conditional=one.conditional,
            rows=one.rows,
            nll=math.nan if one.nll is None else one.nll,
            difference=math.inf if one.difference is None else one.difference,
            standard_error=math.inf if one.standard_error is None else one.standard_error,
        )
        for one in result.references
    ]


def _of_images(folder: Path) -> Found:
    result = read_finished_images(folder)
    return image_run_findings(
        result.test_bits_per_dimension,
        result.independent_bits_standard_error or result.test_bits_per_dimension_standard_error,
        result.independent_bits_per_dimension,
        history=_history(folder),
        stopped_because=result.stopped_because,
    )


def _history(folder: Path) -> list[dict[str, Any]]:
    """Returns the figures of each epoch; none where what is stored is no list of them."""
    history = read_result(folder).get("history")
    if not isinstance(history, list) or not all(isinstance(line, dict) for line in history):
        return []
    return history
