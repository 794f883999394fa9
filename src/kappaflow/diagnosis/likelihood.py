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
