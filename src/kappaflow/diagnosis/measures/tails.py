"""Latents further and further out: where the way to the data and back stops being one."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from kappaflow.conditioning import layers_of
from kappaflow.conditioning.layers import Layer
from kappaflow.conditioning.round_trip import distance, first_not_finite, latent_points
from kappaflow.flows import Flow

SIGMAS = (0, 2, 4, 6, 8, 10)
SEEN = 1e-3  # share of their length by which latents are missed, below which no layer is sought


@dataclass(frozen=True)
class Tails:
    """Round trips of latents at growing distances, and of the points that they are decoded to.

    Attributes:
        sigmas: How many deviations beyond the draws of the base: those of a standard normal in n
            dimensions lie at a distance of about sqrt(n), give or take 1.
        missed: Share of their length by which latents are missed, (S, B); nan where not finite.
        missed_data: Share of their length by which the decoded points are missed, (S, B).
        faults: The first layer to make a value that is not finite at each distance, if any does.
    """

    sigmas: tuple[int, ...]
    missed: Tensor
    missed_data: Tensor
    faults: tuple[str | None, ...]


def tails_of(flow: Flow, n: int, context: Tensor | None) -> Tails:
    """Returns the round trips of draws that are moved out from their mean.

    Args:
        flow: In evaluation mode.
        n: How many draws.
        context: (n, C) or None.

    Returns:
        What is missed by how much: latent, data, latent, and from there to the data again.
    """
    drawn = latent_points(flow, n, context)
    middle = drawn.mean(0) if n > 1 else torch.zeros_like(drawn[0])
    layers = layers_of(flow.core, context)
    missed, missed_data, faults = [], [], []
    for sigma in SIGMAS:
        z = middle + (drawn - middle) * (1 + sigma / drawn[0].numel() ** 0.5)
        x = _decoded(layers, z)
        back = _encoded(layers, x)
        missed.append(_share(back, z))
        missed_data.append(_share(_decoded(layers, back), x))
        well = bool((missed[-1] <= SEEN).all())
        faults.append(None if well else first_not_finite(layers, z, from_latent=True))
    return Tails(SIGMAS, torch.stack(missed), torch.stack(missed_data), tuple(faults))


def _decoded(layers: Sequence[Layer], z: Tensor) -> Tensor:
    for layer in reversed(layers):
        z = layer.bijection.inverse(z, layer.context)[0]
    return z


def _encoded(layers: Sequence[Layer], x: Tensor) -> Tensor:
    for layer in layers:
        x = layer.bijection(x, layer.context)[0]
    return x


def _share(found: Tensor, wanted: Tensor) -> Tensor:
    return distance(found, wanted) / wanted.flatten(1).double().norm(dim=1).clamp_min(1)
