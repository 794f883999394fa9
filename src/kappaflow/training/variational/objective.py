"""The reverse KL divergence at draws of a flow, and two estimators of its gradient."""

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from kappaflow.energies import LogDensity, log_density_at, with_gradient
from kappaflow.errors import NumericalError
from kappaflow.flows import Flow


class Loss(NamedTuple):
    """A loss whose derivative is the estimator, and the draws x (n, *event) that it is of."""

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
    r"""Returns the mean of log q(x) - beta log p(x) at draws x of the flow q, for a descent.

    The total derivative of :math:`\log q_\theta(x_\theta(z))` has two parts: through x, and
    through the parameters of the density at a fixed x, the score, whose mean is zero. The path
    estimator leaves the score out. Where q is the target each draw then has derivative zero, and
    there is no noise left.

    Args:
        flow: q, without augmentation and context.
        log_density: log p up to a constant.
        z: Draws of the base, (n, *event).
        inverse_temperature: beta.
        gradient: "path" or "total".

    Returns:
        The loss, whose value is the same for both.

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
    """Refuses a log-density that no descent could start on, in one sentence.

    Args:
        flow: Whose draws are tried.
        log_density: A function.
        z: Draws of the base.

    Raises:
        ArgumentError: Its shape is another, or it has no gradient.
        NumericalError: It is not finite at any draw.
    """
    with torch.no_grad():
        x = flow.bijection.inverse(z)[0]
    value, _ = with_gradient(log_density, x)
    if not torch.isfinite(value).any():
        raise NumericalError(
            f"'log_density' should be finite where training starts, got {value[0].item()} and "
            f"other such numbers at all {len(x)} draws of the flow, which lie around "
            f"{x.mean().item():.3g} with a deviation of {x.std().item():.3g}: shift and scale the "
            "energy so that its mass lies near the origin."
        )
