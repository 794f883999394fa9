"""Measures reconstruction errors of a flow in both directions, and predicts them."""

from collections.abc import Iterator, Sequence
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
        data, latents = (
            reconstruction_errors(
                layers, states_of(layers, start, decode=decode)[0], from_latent=decode
            )
            for start, decode in ((standardized, False), (latent, True))
        )
    return RoundTrip(data[0], latents[0])


def latent_points(
    flow: Flow, n: int, context: Tensor | None = None, generator: torch.Generator | None = None
) -> Tensor:
    """Returns n samples of the base, (n, *event), with seed 0 unless a generator is given."""
    generator = torch.Generator().manual_seed(0) if generator is None else generator
    return flow.base.sample(
        n, context=context, dtype=flow.dtype, device=flow.device, generator=generator
    )


def layer_by_layer(
    layers: Sequence[Layer], state: Tensor, *, decode: bool = False
) -> Iterator[tuple[Layer, Tensor, Tensor, Tensor]]:
    """Yields each layer with its input, output and log_det, from data to latent or back."""
    for layer in reversed(layers) if decode else layers:
        output, log_det = layer.decode(state) if decode else layer.encode(state)
        yield layer, state, output, log_det
        state = output


def states_of(
    layers: Sequence[Layer], state: Tensor, *, decode: bool = False
) -> tuple[list[Tensor], list[Tensor]]:
    """Returns the layers + 1 states from data to latent or back, and the log_det of each layer."""
    calls = list(layer_by_layer(layers, state, decode=decode))
    return [state, *(output for _, _, output, _ in calls)], [log_det for *_, log_det in calls]


def reconstruction_errors(
    layers: Sequence[Layer], states: Sequence[Tensor], *, from_latent: bool = False
) -> Tensor:
    """Returns the error of each state when recovered from the last one, (layers + 1, B)."""
    back = states_of(layers, states[-1], decode=not from_latent)[0]
    return torch.stack([distance(a, b) for a, b in zip(back[::-1], states, strict=True)])


def first_not_finite(
    layers: Sequence[Layer], state: Tensor, *, from_latent: bool = False
) -> str | None:
    """Returns the name of the first layer of a round trip with a non-finite output, or None."""
    for decode in (from_latent, not from_latent):
        for layer, _, output, log_det in layer_by_layer(layers, state, decode=decode):
            if not (torch.isfinite(output).all() and torch.isfinite(log_det).all()):
                return layer.name
            state = output
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
