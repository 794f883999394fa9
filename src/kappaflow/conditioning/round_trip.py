"""Measures reconstruction errors of a flow in both directions, and predicts them."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from kappaflow.conditioning.points import Layer, checked_flow, checked_points, layers_of, measuring
from kappaflow.flows import Flow
from kappaflow.flows.rows import Data
from kappaflow.summary import Facts, Summary

TRUSTED = 1e-2  # eps * condition number above which rounding hides most digits of a result


@dataclass(frozen=True, repr=False)
class RoundTrip(Summary):
    """Euclidean reconstruction errors in standardized units, one per point.

    Attributes:
        data: |f^-1(f(x)) - x| on the data, (B,).
        latent: |f(f^-1(z)) - z| on samples of the base, (B,).
    """

    data: Tensor
    latent: Tensor

    def _facts(self) -> Facts:
        return [
            ("rows", f"{len(self.data):,}"),
            ("from data", median_and_most(self.data)),
            ("from latent", median_and_most(self.latent)),
        ]


def median_and_most(values: Tensor) -> str:
    """Returns the median and the maximum of values (B,) as text."""
    return f"median {values.quantile(0.5).item():.3g}, largest {values.max().item():.3g}"


def round_trip(
    flow: Flow,
    x: Data,
    *,
    context: Data = None,
    generator: torch.Generator | None = None,
) -> RoundTrip:
    """Measures the reconstruction errors of a flow on data and on equally many base samples.

    One direction can be accurate while the other fails: the data may be where the flow contracts,
    and the samples where it expands.

    Args:
        flow: The flow to measure. Its standardization is left out.
        x: Points, (B, *event), of each kind that `Flow.log_prob` takes.
        context: Contexts, (B, C), for a conditional flow; also used for the samples of the base.
        generator: Random generator for the latent samples; seed 0 by default.

    Returns:
        The errors; not finite if an intermediate value is not.

    Raises:
        ArgumentError: The input is not a flow, or x or context does not fit it.

    Example:
        >>> import kappaflow as kf
        >>> kf.round_trip(kf.real_nvp(2, depth=2, hidden=(8,)), torch.ones(1, 2)).data
        tensor([0.], dtype=torch.float64)
    """
    x, context = checked_points(checked_flow(flow), x, context)
    with measuring(flow):
        standardized = flow.standardization(x)[0]
        layers = layers_of(flow.core, context)
        latent = latent_points(flow, len(x), context, generator)
        there = there_and_back(layers, states_of(layers, standardized)[0])
        back = back_and_there(layers, latent)
    return RoundTrip(there[0], back[0])


def latent_points(
    flow: Flow, n: int, context: Tensor | None = None, generator: torch.Generator | None = None
) -> Tensor:
    """Returns n samples of the base, (n, *event), with seed 0 unless a generator is given."""
    generator = torch.Generator().manual_seed(0) if generator is None else generator
    return flow.base.sample(
        n, context=context, dtype=flow.dtype, device=flow.device, generator=generator
    )


def states_of(layers: Sequence[Layer], x: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    """Returns the layers + 1 states from data to latent, and the log_det of each layer."""
    states, log_dets = [x], []
    for layer in layers:
        value, log_det = layer.bijection(states[-1], layer.context)
        states.append(value)
        log_dets.append(log_det)
    return states, log_dets


def there_and_back(layers: Sequence[Layer], states: Sequence[Tensor]) -> Tensor:
    """Returns the error of each state from data to latent when recovered, (layers + 1, B)."""
    errors, back = [torch.zeros_like(distance(states[0], states[0]))], states[-1]
    for layer, state in zip(reversed(layers), reversed(states[:-1]), strict=True):
        back = layer.bijection.inverse(back, layer.context)[0]
        errors.append(distance(back, state))
    return torch.stack(errors[::-1])


def back_and_there(layers: Sequence[Layer], z: Tensor) -> Tensor:
    """Returns the reconstruction error of each state, latent to data to latent, (layers + 1, B).

    Row 0 is the error of the latent. The last row, on the data side, is zero.
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
    """Returns the name of the first layer of a round trip with a non-finite output, or None."""
    encode = [(layer, layer.bijection.forward) for layer in layers]
    decode = [(layer, layer.bijection.inverse) for layer in reversed(layers)]
    for layer, step in decode + encode if from_latent else encode + decode:
        state, log_det = step(state, layer.context)
        if not (torch.isfinite(state).all() and torch.isfinite(log_det).all()):
            return layer.name
    return None


def predicted_round_trip(condition_number: Tensor, x: Tensor) -> Tensor:
    """Returns the reconstruction error that rounding predicts, eps * condition number * |x|.

    On 60 flows of up to 128 couplings with eps * condition number below `TRUSTED`, the measured
    error was at most 1.3 times the prediction at the median point, and at most 5 times at the
    worst of 400 points.
    """
    eps = torch.finfo(x.dtype).eps
    return eps * condition_number * x.flatten(1).double().norm(dim=1)


def distance(a: Tensor, b: Tensor) -> Tensor:
    """Returns the Euclidean distance between corresponding rows, (B,)."""
    return (a - b).flatten(1).double().norm(dim=1)
