"""How exactly a flow is its own inverse, on both sides, and what rounding predicts for it."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from kappaflow.conditioning.layers import Layer, layers_of
from kappaflow.conditioning.points import checked_flow, checked_points, measuring
from kappaflow.flows import Flow

TRUSTED = 1e-2  # eps * condition number above this: rounding hides most digits of a result


@dataclass(frozen=True)
class RoundTrip:
    """Euclidean errors of going there and back, in standardised units, one a point.

    Attributes:
        data: |f^-1(f(x)) - x| on the data, (B,).
        latent: |f(f^-1(z)) - z| on draws of the base, (B,).
    """

    data: Tensor
    latent: Tensor


def round_trip(
    flow: Flow,
    x: Tensor,
    *,
    context: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> RoundTrip:
    """Returns the round-trip errors of a flow on data and on as many draws of its base.

    One side can look fine while the other fails: data may live where the flow contracts, and
    samples where it expands.

    Args:
        flow: What is measured, from the standardised columns on.
        x: Data, (B, *event).
        context: (B, C) for a conditional flow; the draws of the base take the same contexts.
        generator: Draws the latent points; seed 0 if left out.

    Returns:
        The errors; not finite where a value on the way was not.

    Raises:
        ArgumentError: No flow was given, or x or context is not what it can be measured at.

    Example:
        >>> import kappaflow as kf
        >>> kf.round_trip(kf.real_nvp(2, depth=2, hidden=(8,)), torch.ones(1, 2)).data
        tensor([0.], dtype=torch.float64)
    """
    x, context = checked_points(checked_flow(flow), x, context)
    with measuring(flow):
        standardised = flow.standardization(x)[0]
        layers = layers_of(flow.core, context)
        latent = latent_points(flow, len(x), context, generator)
        there, back = there_and_back(layers, standardised), back_and_there(layers, latent)
    return RoundTrip(there[0], back[0])


def latent_points(
    flow: Flow, n: int, context: Tensor | None = None, generator: torch.Generator | None = None
) -> Tensor:
    """Returns draws of the base, the same ones each time unless a generator says otherwise.

    Args:
        flow: Whose base it is.
        n: How many.
        context: (n, C) for a conditional flow.
        generator: Seed 0 if left out.

    Returns:
        (n, *event) of the latent.
    """
    generator = torch.Generator().manual_seed(0) if generator is None else generator
    return flow.base.sample(
        n, context=context, dtype=flow.dtype, device=flow.device, generator=generator
    )


def there_and_back(layers: Sequence[Layer], x: Tensor) -> Tensor:
    """Returns how far each state is missed on the way back from the latent, (layers + 1, B)."""
    states = [x]
    for layer in layers:
        states.append(layer.bijection(states[-1], layer.context)[0])
    errors, back = [torch.zeros_like(distance(x, x))], states[-1]
    for layer, state in zip(reversed(layers), reversed(states[:-1]), strict=True):
        back = layer.bijection.inverse(back, layer.context)[0]
        errors.append(distance(back, state))
    return torch.stack(errors[::-1])


def back_and_there(layers: Sequence[Layer], z: Tensor) -> Tensor:
    """Returns how far each state is missed on the way from data back to the latent z.

    (layers + 1, B): the error of the latent itself comes first, that of the data side, where the
    way turns, last.
    """
    states = [z]
    for layer in reversed(layers):
        states.append(layer.bijection.inverse(states[-1], layer.context)[0])
    errors, there = [torch.zeros_like(distance(z, z))], states[-1]
    for layer, state in zip(layers, reversed(states[:-1]), strict=True):
        there = layer.bijection(there, layer.context)[0]
        errors.append(distance(there, state))
    return torch.stack(errors[::-1])


def first_not_finite(
    layers: Sequence[Layer], state: Tensor, *, from_latent: bool = False
) -> str | None:
    """Returns the name of the layer that is first to make a value that is not finite, if any is.

    Args:
        layers: Data side first.
        state: Where the round trip starts, (B, *event).
        from_latent: Whether it goes latent, data, latent; else data, latent, data.

    Returns:
        The name, or None where all values are finite.
    """
    encode = [(layer, layer.bijection.forward) for layer in layers]
    decode = [(layer, layer.bijection.inverse) for layer in reversed(layers)]
    for layer, step in decode + encode if from_latent else encode + decode:
        state = step(state, layer.context)[0]
        if not torch.isfinite(state).all():
            return layer.name
    return None


def predicted_round_trip(condition_number: Tensor, x: Tensor) -> Tensor:
    """Returns eps * condition number * |x|, (B,): what rounding predicts for a round trip.

    Measured on 60 flows of up to 128 couplings with eps * condition number below `TRUSTED`, the
    error of the median point was up to 1.3 times this, of the worst of 400 points up to 5 times.
    """
    eps = torch.finfo(x.dtype).eps
    return eps * condition_number * x.flatten(1).double().norm(dim=1)


def distance(a: Tensor, b: Tensor) -> Tensor:
    """Returns the Euclidean distance of each row, (B,)."""
    return (a - b).flatten(1).double().norm(dim=1)
