"""The reverse KL divergence at samples of a flow, and two estimators of its gradient."""

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from kappaflow.energies import LogDensity, log_density_at, with_gradient
from kappaflow.errors import NumericalError
from kappaflow.flows import Flow


class Loss(NamedTuple):
    """A loss and the samples x, (n, *event), that it was computed from.

    The derivative of `value` is the estimator of the gradient.
    """

    value: Tensor
    x: Tensor


def reverse_kl_loss(
    flow: Flow,
    log_density: LogDensity,
    z: Tensor,
    *,
    inverse_temperature: float = 1.0,
    gradient: Literal["path", "total"] = "path",
) -> Loss:
    r"""Returns the mean of log q(x) - beta log p(x) at samples x = x(z) of the flow q.

    The total derivative of :math:`\log q_\theta(x_\theta(z))` has two parts. One is through x. The
    other, the score, is through the parameters of the density at a fixed x, and its mean is zero.
    The path estimator leaves out the score. If q equals the target, the derivative is then zero at
    every sample, so the estimator has no noise.

    Returns:
        The loss in nats, a scalar. Both estimators have the same value.

    Source:
        Roeder, Wu, Duvenaud 2017, Sticking the landing; Vaitl, Nicoli, Nakajima, Kessel 2022,
        Gradients should stay on path, for flows.
    """
    x, log_det = flow.bijection.inverse(z)
    log_q = flow.base.log_prob(z) - log_det
    if gradient == "total":
        log_p = log_density_at(log_density, x)
        return Loss((log_q - inverse_temperature * log_p).mean(), x)
    at = x.detach()
    log_p, slope = with_gradient(log_density, at)
    slope = _slope_of_flow(flow, at) - inverse_temperature * slope
    through_x = (slope * x).flatten(1).sum(1).mean()
    value = (log_q.detach() - inverse_temperature * log_p).mean()
    return Loss(value + (through_x - through_x.detach()), x)


def _slope_of_flow(flow: Flow, x: Tensor) -> Tensor:
    """Returns the gradient of log q by x, (n, *event), without a graph."""
    x = x.detach().requires_grad_()
    (slope,) = torch.autograd.grad(flow.augmented_log_prob(x).sum(), x)
    return slope


def check_start(flow: Flow, log_density: LogDensity, z: Tensor) -> None:
    """Raises an error if training cannot start on a log-density, at samples z of the base.

    Raises:
        ArgumentError: The log-density has a wrong shape or no gradient.
        NumericalError: The log-density is not finite at any sample.
    """
    with torch.no_grad():
        x = flow.bijection.inverse(z)[0]
    value, _ = with_gradient(log_density, x)
    if not torch.isfinite(value).any():
        raise NumericalError(
            f"'log_density' should be finite where training starts, got {value[0].item()} or "
            f"other non-finite numbers at all {len(x)} samples of the flow (mean "
            f"{x.mean().item():.3g}, standard deviation {x.std().item():.3g}). Shift and scale "
            "the energy so that its mass is near the origin."
        )
