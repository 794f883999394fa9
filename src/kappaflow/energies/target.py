"""An unnormalized log-density, as a function of the user's: what is asked of it."""

from collections.abc import Callable

import torch
from torch import Tensor

from kappaflow.errors import ArgumentError
from kappaflow.flows import Flow

LogDensity = Callable[[Tensor], Tensor]


def log_density_at(log_density: LogDensity, x: Tensor) -> Tensor:
    """Returns the log-density (n,) of points (n, *event), or says what else it is."""
    value = log_density(x)
    if not isinstance(value, Tensor) or value.shape != x.shape[:1]:
        got = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
        raise ArgumentError(
            f"'log_density' should return a tensor of shape ({len(x)},), one number for each of "
            f"the points {tuple(x.shape)}, got {got}."
        )
    if not value.is_floating_point():
        raise ArgumentError(
            f"'log_density' should return floating-point numbers, got {value.dtype}."
        )
    return value


def with_gradient(log_density: LogDensity, x: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the log-density (n,) and its gradient (n, *event), both without a graph.

    Raises:
        ArgumentError: There is no gradient, or the shape is another.
    """
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        value = log_density_at(log_density, x)
        slope = None
        if value.requires_grad:
            (slope,) = torch.autograd.grad(value.sum(), x, allow_unused=True)
    if slope is None:
        raise ArgumentError(
            "'log_density' should be differentiable by its argument, got numbers without such a "
            "gradient: compute it with torch, without .detach(), .item(), numpy or "
            "torch.no_grad()."
        )
    return value.detach(), slope


def check_target(flow: Flow, log_density: object) -> None:
    """Refuses a flow whose density or draws are not exact, and what is no function."""
    if not isinstance(flow, Flow):
        raise ArgumentError(f"'flow' should be a Flow, got {type(flow).__name__}.")
    if flow.likelihood != "exact":
        raise ArgumentError(
            "'flow' should have an exact log_prob: that of this one is "
            f"{'a bound' if flow.likelihood == 'bound' else 'a joint density'}, of which there "
            "are no importance weights."
        )
    if flow.context_features:
        raise ArgumentError(
            "'flow' should be without a context: an energy is one density, got a flow with "
            f"{flow.context_features} context columns."
        )
    if not callable(log_density):
        raise ArgumentError(
            "'log_density' should be a function of points (n, *event), got "
            f"{type(log_density).__name__}."
        )
