"""The derivative of log_prob by the parameters, by autograd and by differences."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from kappaflow.adapters import Wrapped
from kappaflow.conditioning import layers_of
from kappaflow.diagnosis.unchanged import another
from kappaflow.flows import Flow

ROWS = 16
STEP = 1e-5  # of the size of a parameter
AGREE = 1e-3  # of two steps of differences, for these to be believed


@dataclass(frozen=True)
class Gradient:
    """Derivatives of the mean log_prob along one direction of all parameters, in nats.

    Attributes:
        own: By autograd in the type of the flow.
        wide: By autograd in float64.
        difference: By central differences in float64.
        size: How large they are by the products of single parameters, root of the sum of squares.
        layer: The first layer whose own derivatives are wrong.
    """

    own: float
    wide: float
    difference: float
    size: float
    layer: str | None


def gradient_of(flow: Flow, x: Tensor, context: Tensor | None) -> Gradient | None:
    """Returns the derivatives of log_prob at a few points.

    Args:
        flow: In evaluation mode.
        x: Points as its bijection takes them, (B, *event).
        context: (B, C) or None.

    Returns:
        The derivatives; None where the flow has no parameters to train or no copy in float64, or
        where differences do not settle.
    """
    x, context = x[:ROWS], None if context is None else context[:ROWS]
    same = another(flow, x, context)
    wide = another(flow, x, context, torch.float64)
    if same is None or wide is None or not _trained(wide):
        return None
    x64, context64 = x.double(), None if context is None else context.double()
    try:
        value, size = _derived(same, lambda one: _mean_log_prob(one, x, context))
        wide_value, wide_size = _derived(wide, lambda one: _mean_log_prob(one, x64, context64))
        difference = _difference(wide, lambda one: _mean_log_prob(one, x64, context64))
        if difference is None:
            return None
        size = max(size, wide_size, abs(difference))
        wrong = abs(wide_value - difference) > 1e-2 * size
        layer = _wrong_layer(wide, x64, context64) if wrong else None
    except Exception:  # a library in which float64 meets float32, or that forbids derivatives
        return None
    return Gradient(value, wide_value, difference, size, layer)


def _mean_log_prob(flow: Flow, x: Tensor, context: Tensor | None) -> Tensor:
    own = flow.own_log_prob(x, context) if isinstance(flow, Wrapped) else None
    return (flow.joined_log_prob(x, context) if own is None else own).mean()


def _trained(flow: Flow) -> list[Tensor]:
    return [one for one in flow.parameters() if one.requires_grad and one.is_floating_point()]


def _directions(flow: Flow) -> list[Tensor]:
    """Returns one direction for each parameter, of its size, the same in each type."""
    generator = torch.Generator().manual_seed(0)
    return [
        (
            torch.randn(one.shape, generator=generator, dtype=torch.float64)
            * (one.detach().double().square().mean().sqrt().item() + 1e-2)
        ).to(one)
        for one in _trained(flow)
    ]


def _derived(flow: Flow, function: Callable[[Flow], Tensor]) -> tuple[float, float]:
    """Returns the derivative by autograd, and its size."""
    parameters, directions = _trained(flow), _directions(flow)
    with torch.enable_grad():
        value = function(flow)
        if not value.requires_grad:
            return 0.0, 0.0
        gradients = torch.autograd.grad(value, parameters, allow_unused=True)
    products = torch.cat(
        [
            (gradient.double() * direction.double()).flatten()
            for gradient, direction in zip(gradients, directions, strict=True)
            if gradient is not None
        ]
        or [torch.zeros(1, dtype=torch.float64)]
    )
    return products.sum().item(), products.square().sum().sqrt().item()


def _difference(flow: Flow, function: Callable[[Flow], Tensor]) -> float | None:
    """Returns the derivative by differences, None if two steps do not agree on it."""
    fine, coarse = (_central(flow, function, step) for step in (STEP, 4 * STEP))
    settled = abs(fine - coarse) <= AGREE * max(abs(fine), abs(coarse)) + 1e-6
    return fine if settled else None


def _central(flow: Flow, function: Callable[[Flow], Tensor], step: float) -> float:
    parameters, directions = _trained(flow), _directions(flow)
    kept = [one.detach().clone() for one in parameters]
    found = []
    for sign in (1, -1):
        flow.train()  # caches of values are let go of, as after a step of training
        for one, was, direction in zip(parameters, kept, directions, strict=True):
            one.copy_(was + sign * step * direction)
        flow.eval()
        found.append(function(flow).item())
    flow.train()
    for one, was in zip(parameters, kept, strict=True):
        one.copy_(was)
    flow.eval()
    return (found[0] - found[1]) / (2 * step)


def _wrong_layer(flow: Flow, x: Tensor, context: Tensor | None) -> str | None:
    """Returns the first layer whose value and log_det, at a fixed point, derive otherwise."""
    generator = torch.Generator().manual_seed(1)
    state = x
    for i, layer in enumerate(layers_of(flow.bijection, context)):
        value = layer.bijection(state, layer.context)[0]
        weights = torch.randn(value.shape, generator=generator, dtype=torch.float64).to(value)

        def weighed(one: Flow, i: int = i, at: Tensor = state, by: Tensor = weights) -> Tensor:
            there = layers_of(one.bijection, context)[i]
            z, log_det = there.bijection(at, there.context)
            return (by * z).sum() + log_det.sum()

        derived, size = _derived(flow, weighed)
        difference = _difference(flow, weighed)
        if difference is not None:
            if abs(derived - difference) > 1e-2 * max(size, abs(difference), 1e-9):
                return layer.name
        state = value
    return None
