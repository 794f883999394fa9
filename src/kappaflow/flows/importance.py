"""Importance-weighted estimates of the likelihood of a flow with an augmentation."""

import math

import torch
from torch import Tensor

from kappaflow._checks import positive_int
from kappaflow.errors import ArgumentError
from kappaflow.flows.augmentation import log_weights
from kappaflow.flows.flow import Flow
from kappaflow.flows.rows import flatten_batch


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

    The estimate is the log of the mean of K weights w = p(x, e) / q(e | x) for samples e of q. It
    equals `Flow.log_prob` with K samples. The standard error comes from the delta method:
    :math:`\mathrm{sd}(w) / (\bar w \sqrt K)`.

    Args:
        flow: A flow whose augmentation has a density; its training mode is not changed.
        x: Points, (*batch, *event).
        samples: Number K of samples e for each x, 2 or more.
        context: Context, (*batch, C), for a conditional flow.
        generator: Source of randomness; torch's global generator by default.

    Returns:
        The estimate and its standard error, each (*batch,), in nats, in float32 or wider.

    Raises:
        ArgumentError: There are fewer than 2 samples, the log_prob of the flow is exact or not a
            likelihood, or an argument does not fit the flow.

    Note:
        The mean of the weights is unbiased. Its log is too low by about half the square of the
        error. The error is reliable only if it is far below 1; otherwise a few weights dominate.

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
        raise ArgumentError("'samples' should be at least 2 to estimate an error, got 1.")
    flow._check_samples(samples)
    batch_shape, x, context = flatten_batch(flow, x, context)
    draws = log_weights(flow.augment, flow.augmented_log_prob, x, context, samples, generator)
    weights = torch.cat([*draws])
    dtype, weights = weights.dtype, weights.double()
    total = weights.logsumexp(0)
    # K sum w^2 / (sum w)^2 - 1 is the variance of the weights over their squared mean.
    spread = ((2 * weights).logsumexp(0) - 2 * total + math.log(samples)).expm1().clamp_min(0)
    error = (spread / (samples - 1)).sqrt()
    estimate = total - math.log(samples)
    return estimate.to(dtype).reshape(batch_shape), error.to(dtype).reshape(batch_shape)
