"""What the held-out likelihood of a run says of its flow, from what the run has stored."""

from collections.abc import Iterator
from pathlib import Path

from kappaflow.diagnosis import Finding, image_likelihood_findings, likelihood_findings
from kappaflow.errors import KappaflowError
from kappaflow.runs.stored import is_image_run, read_finished, read_finished_images


def stored_findings(folder: Path) -> Iterator[Finding]:
    """Yields KF501 or KF502 where a finished run has a likelihood that asks for it.

    Args:
        folder: A run folder, or any saved model, of which nothing is said.

    Yields:
        The finding.
    """
    try:
        yield from _of_images(folder) if is_image_run(folder) else _of_rows(folder)
    except KappaflowError:  # no run, or one that is not finished
        return


def _of_rows(folder: Path) -> Iterator[Finding]:
    result = read_finished(folder)
    weighted, gaussian = result.weighted_nll_standardised, result.gaussian_nll_standardised
    plain, standardised = result.test_nll, result.test_nll_standardised
    if result.likelihood == "joint" or plain is None or standardised is None or gaussian is None:
        return
    units = standardised - plain  # the report says it in the units of the data
    nll = plain if weighted is None else weighted - units
    yield from likelihood_findings(nll, result.test_nll_standard_error or 0.0, gaussian - units)


def _of_images(folder: Path) -> Iterator[Finding]:
    result = read_finished_images(folder)
    yield from image_likelihood_findings(
        result.test_bits_per_dimension,
        result.test_bits_per_dimension_standard_error,
        result.independent_bits_per_dimension,
    )
