"""Importance weighting: the likelihood of points of a padded flow, with the error of the draws."""

import math

import torch
from torch import Tensor

from kappaflow._checks import positive_int
from kappaflow.errors import ArgumentError
from kappaflow.flows.flow import Flow


@torch.no_grad()
def importance_weighted_log_prob(
    flow: Flow,
    x: Tensor,
    samples: int,
    *,
    context: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> tuple[Tensor, Tensor]:
    r"""Returns an estimate of log p(x) for a flow with an augmentation, and its standard error.

    The estimate is the log of the mean of K weights w = p(x, e) / q(e | x), e drawn from q, as
    `Flow.log_prob` with K samples returns it; the error is that of the K draws, by the delta
    method: :math:`\mathrm{sd}(w) / (\bar w \sqrt K)`.

    Args:
        flow: With an augmentation that has a density; used in its own mode.
        x: Points, (*batch, *event).
        samples: K, how many e are drawn for each x, 2 or more.
        context: (*batch, C) for a conditional flow.
        generator: Draws them; torch's global one if left out.

    Returns:
        Both (*batch,), in nats, in float32 or wider.

    Raises:
        ArgumentError: There are fewer than 2 samples, the log_prob of the flow is exact or no
            likelihood, or an argument does not fit the flow.

    Note:
        The mean of the weights is right on average, its log is low by about half the square of
        the error. An error that is not far below 1 cannot be relied on: a few weights decide then.

    Source:
        Burda, Grosse, Salakhutdinov 2016, Importance weighted autoencoders.

    Example:
        >>> import kappaflow as kf
        >>> flow = kf.real_nvp(2, depth=2, hidden=(8,), padding=1)
        >>> estimate, error = importance_weighted_log_prob(flow, torch.zeros(1, 2), 16)
        >>> round(estimate.item(), 4), round(error.item(), 4)  # a new flow leaves e alone
        (-1.8379, 0.0)
    """
    if not isinstance(flow, Flow):
        raise ArgumentError(f"'flow' should be a Flow, got {type(flow).__name__}.")
    if flow.augment is None:
        raise ArgumentError(
            "'flow' should have an augmentation: the log_prob of this one is exact."
        )
    if positive_int("samples", samples) < 2:
        raise ArgumentError("'samples' should be at least 2: one has no spread, got 1.")
    flow._check_samples(samples)
    first = flow.log_prob(x, context, generator=generator)
    # Sums of w and of w^2 as logarithms, so that memory does not grow with the draws.
    once, twice = first.double(), 2 * first.double()
    for _ in range(samples - 1):
        log_weight = flow.log_prob(x, context, generator=generator).double()
        once = torch.logaddexp(once, log_weight)
        twice = torch.logaddexp(twice, 2 * log_weight)
    # K sum w^2 / (sum w)^2 - 1 is the variance of the weights over their squared mean.
    spread = (twice - 2 * once + math.log(samples)).expm1().clamp_min(0)
    error = (spread / (samples - 1)).sqrt()
    return (once - math.log(samples)).to(first.dtype), error.to(first.dtype)
