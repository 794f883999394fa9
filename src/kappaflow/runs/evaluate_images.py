"""A trained flow of images on held-out ones: the numbers and the pictures of its report."""

import math
from typing import Any

import numpy as np

from kappaflow.conditioning import layers_of, profile
from kappaflow.diagnosis import Diagnosis, diagnose_flow, with_findings
from kappaflow.flows import Flow, Padding, padding_in
from kappaflow.report import About, FindingView, ImageLikelihood, ImageReport, ProfileView
from kappaflow.runs.image_job import ImageParts
from kappaflow.runs.image_pictures import (
    held_out_picture,
    interpolation_picture,
    neighbours_of,
    reconstruction_picture,
    sample_pictures,
)
from kappaflow.runs.independent_pixels import independent_bits
from kappaflow.runs.judged import PERCENTILES, judged_alone
from kappaflow.runs.stored_findings import image_run_findings
from kappaflow.training import FitResult, log_prob_of, quantile
from kappaflow.training.image_rows import ImageRows
from kappaflow.training.measure import bits_per_dimension, has_bits

MOST_POINTS = 32
# What a profile of 28 x 28 pixels and 50 layers at 2 points costs, in layers^2 x pixels: half a
# minute to a minute on one core. A singular value of all layers up to one is asked for at each.
WORK = 2 * 784 * 50**2
CURVES = (
    "epoch",
    "train_nll",
    "validation_nll",
    "validation_bits_per_dimension",
    "condition_number_median",
    "condition_number_p95",
    "round_trip_data",
    "round_trip_latent",
    "learning_rate",
    "skipped_steps",
    "time_s",
    "memory_bytes",
)


def evaluate_images(
    result: FitResult, parts: ImageParts, about: About
) -> tuple[ImageReport, Diagnosis]:
    """Returns the report on a trained flow of images, and the doctor's diagnosis that is in it.

    Args:
        result: What training came to.
        parts: The images of the run.
        about: What was trained on what.

    Returns:
        Both, from the test images.
    """
    flow = result.flow
    test = ImageRows(parts.test, flow)
    few = test.at(slice(0, points_of(flow)))
    likelihood = _likelihood(flow, parts)
    diagnosis = diagnose_flow(flow, few.x, few.context)
    depth = diagnosis.profile or profile(flow, few.x, context=few.context)
    diagnosis = with_findings(
        diagnosis,
        *image_run_findings(
            likelihood.bits_per_dimension,
            likelihood.independent_standard_error,
            likelihood.independent_bits,
            history=result.history,
            stopped_because=result.stopped_because,
        ),
    )
    report = ImageReport(
        about=about,
        curves=[_curve(flow, line) for line in result.history],
        best_epoch=result.best_epoch,
        likelihood=likelihood,
        held_out=held_out_picture(flow, parts),
        samples=sample_pictures(flow, parts.classes),
        reconstructions=reconstruction_picture(flow, parts),
        interpolations=interpolation_picture(flow, parts),
        neighbours=neighbours_of(flow, parts, parts.classes),
        profile=ProfileView.model_validate(depth.to_dict()),
        verdict=diagnosis.verdict,
        ok=diagnosis.ok,
        findings=[FindingView(**vars(finding)) for finding in diagnosis.findings],
    )
    return report, diagnosis


def judged_images(result: FitResult, report: ImageReport, parts: ImageParts) -> dict[str, Any]:
    """Returns what result.json says beyond the training, also the training images' scores."""
    whole, flow = report.likelihood, result.flow
    scores = log_prob_of(flow, ImageRows(parts.train, flow))
    with np.errstate(invalid="ignore"):  # between infinities there is no number
        quantiles = np.quantile(scores.numpy(), np.linspace(0, 1, PERCENTILES + 1))
    return {
        "test_bits_per_dimension": whole.bits_per_dimension,
        "test_bits_per_dimension_standard_error": whole.bits_standard_error,
        "independent_bits_per_dimension": whole.independent_bits,
        "independent_bits_standard_error": whole.independent_standard_error,
        "test_nll": whole.nll,
        "test_nll_standard_error": whole.standard_error,
        "test_images": whole.images,
        "likelihood": flow.likelihood,
        **judged_alone(report),
        "train_log_prob_quantiles": quantiles.tolist(),
    }


def points_of(flow: Flow) -> int:
    """Returns at how many images the conditioning of a flow is profiled: 1 to 32."""
    layers = len(layers_of(flow.core))
    return max(1, min(MOST_POINTS, round(WORK / (layers**2 * math.prod(flow.joint_shape)))))


def _likelihood(flow: Flow, parts: ImageParts) -> ImageLikelihood:
    nll = -log_prob_of(flow, ImageRows(parts.test, flow))
    mean, error = nll.mean().item(), nll.std(correction=0).item() / math.sqrt(len(nll))
    counted = has_bits(flow)
    scale = bits_per_dimension(flow, 1.0) if counted else 1.0
    levels = {"median": 0.5, "p95": 0.95, "max": 1.0}
    padding = padding_in(flow.augment)
    independent, paired_error = _independent(parts, (nll * scale).numpy() if counted else None)
    return ImageLikelihood(
        images=len(nll),
        **({} if padding is None else _of_padding(padding)),
        bits_per_dimension=mean * scale if counted else None,
        bits_standard_error=error * scale if counted else None,
        nll=mean,
        standard_error=error,
        quantiles={name: quantile(nll * scale, level) for name, level in levels.items()},
        independent_bits=independent,
        independent_standard_error=paired_error,
    )


def _independent(parts: ImageParts, bits: np.ndarray | None) -> tuple[float | None, float | None]:
    """Returns the bits of independent pixels, and the error of the difference to the flow's."""
    if bits is None:
        return None, None
    alone = independent_bits(parts.train, parts.validation, parts.test)
    with np.errstate(invalid="ignore"):
        error = (bits - alone).std() / math.sqrt(len(bits))
    return float(alone.mean()), float(error)


def _of_padding(padding: Padding) -> dict[str, Any]:
    """Returns what the report says of the channels beside those of the image."""
    return {
        "padding": padding.features,
        "padding_in_words": padding.in_words,
        "is_joint": not padding.has_density,
    }


def _curve(flow: Flow, line: dict[str, Any]) -> dict[str, Any]:
    """Returns the figures of an epoch that the report draws."""
    found = {key: line.get(key) for key in CURVES}
    train = found["train_nll"]
    bits = None if train is None or not has_bits(flow) else bits_per_dimension(flow, train)
    return {**found, "train_bits_per_dimension": bits}
