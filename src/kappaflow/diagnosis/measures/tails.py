"""Latents further and further out: where the way to the data and back stops being one."""

from dataclasses import dataclass

import torch
from torch import Tensor

from kappaflow.conditioning import layers_of
from kappaflow.conditioning.round_trip import back_and_there, first_not_finite, latent_points
from kappaflow.flows import Flow

SIGMAS = (0, 2, 4, 6, 8, 10)


@dataclass(frozen=True)
class Tails:
    """Round trips of latents at growing distances.

    Attributes:
        sigmas: How many deviations beyond the draws of the base: those of a standard normal in n
            dimensions lie at a distance of about sqrt(n), give or take 1.
        missed: Share of their length by which they are missed, (S, B); nan where not finite.
        faults: The first layer to make a value that is not finite at each distance, if any does.
    """

    sigmas: tuple[int, ...]
    missed: Tensor
    faults: tuple[str | None, ...]


def tails_of(flow: Flow, n: int, context: Tensor | None) -> Tails:
    """Returns the round trips latent, data, latent of draws that are moved out from their mean.

    Args:
        flow: In evaluation mode.
        n: How many draws.
        context: (n, C) or None.

    Returns:
        What is missed by how much.
    """
    drawn = latent_points(flow, n, context)
    middle = drawn.mean(0) if n > 1 else torch.zeros_like(drawn[0])
    layers = layers_of(flow.core, context)
    missed, faults = [], []
    for sigma in SIGMAS:
        z = middle + (drawn - middle) * (1 + sigma / drawn[0].numel() ** 0.5)
        errors = back_and_there(layers, z)[0]
        missed.append(errors / z.flatten(1).double().norm(dim=1).clamp_min(1))
        faults.append(first_not_finite(layers, z, from_latent=True))
    return Tails(SIGMAS, torch.stack(missed), tuple(faults))
