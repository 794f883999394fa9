"""What a held-out likelihood says about a flow, which no measurement at points can see."""

import math
from collections.abc import Iterator

from kappaflow.diagnosis.finding import Finding


def likelihood_findings(nll: float, standard_error: float, gaussian: float) -> Iterator[Finding]:
    """KF501: the flow is no better than a Gaussian on rows that it was not trained on.

    Args:
        nll: Mean negative log-likelihood of held-out rows, in nats.
        standard_error: Of that mean; 0 where it is not known.
        gaussian: The same rows under a Gaussian fitted to the training rows; nan for none.

    Yields:
        The finding, where the flow is worse by more than twice the standard error.
    """
    worse = nll - gaussian
    if math.isnan(gaussian) or worse <= 2 * standard_error:
        return
    yield Finding(
        code="KF501",
        severity="warning",
        layer=None,
        message=f"On held-out rows the flow is {worse:.2f} nats a row worse than a Gaussian.",
        cause="Too little training, or so few rows that they were learnt by heart.",
        cure="Train longer, give more rows, or take fewer and smaller layers (depth, hidden).",
        evidence={"nll": nll, "gaussian_nll": gaussian, "standard_error": standard_error},
    )


def image_likelihood_findings(
    bits: float | None, standard_error: float | None, independent: float | None
) -> Iterator[Finding]:
    """KF502: the flow is no better than the histograms of single pixels on held-out images.

    Args:
        bits: Mean bits per dimension of held-out images; None where there are none.
        standard_error: Of that mean.
        independent: The same images with each pixel on its own.

    Yields:
        The finding, where the flow is worse by more than twice the standard error.
    """
    if bits is None or independent is None or not math.isfinite(bits):
        return
    worse = bits - independent
    if worse <= 2 * (standard_error or 0.0):
        return
    yield Finding(
        code="KF502",
        severity="warning",
        layer=None,
        message=(
            f"On held-out images the flow needs {worse:.2f} bits per dimension more than the "
            "histograms of single pixels, which know nothing of images."
        ),
        cause="Too little training, or so few images that they were learnt by heart.",
        cure="Train longer, give more images, or take a smaller model (steps, hidden).",
        evidence={
            "bits_per_dimension": bits,
            "independent_bits_per_dimension": independent,
            "standard_error": standard_error,
        },
    )
