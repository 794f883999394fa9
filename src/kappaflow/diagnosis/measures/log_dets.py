"""The log-determinants of both directions, and the Jacobian's."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from kappaflow.conditioning import Profile
from kappaflow.conditioning.jacobian import all_of_both, dense
from kappaflow.conditioning.spectrum import DENSE_UP_TO
from kappaflow.flows import Flow

SPECTRA = 16  # points at which all singular values are kept


@dataclass(frozen=True)
class LogDets:
    """The log-determinants of a flow at the points, in nats and in float64.

    Attributes:
        forward: As `forward` says, (B,).
        inverse: As `inverse` says at the latent that `forward` returned, (B,).
        true: log|det| of the dense Jacobian, (B,); None where the dimension is too large.
        size: The square root of the number of layers, and a bound on the sum of |log s| over all
            singular values of all layers, (B,).
        units: What of `forward` is that of a change of units in front, (B,).
        singular_values: All behind the units at some of the points, descending, (b, n); None where
            the dimension is too large.
    """

    forward: Tensor
    inverse: Tensor
    true: Tensor | None
    size: Tensor
    units: Tensor
    singular_values: Tensor | None = None


def log_dets_at(flow: Flow, x: Tensor, context: Tensor | None, shape: Profile) -> LogDets:
    """Returns the log_dets of both directions, and the Jacobian's where it can be formed.

    A change of units treats each feature by itself, so that one product with ones has its whole
    Jacobian: scales however far apart cost the others no digits.

    Args:
        flow: In evaluation mode.
        x: Points as its bijection takes them, (B, *event).
        context: (B, C) or None.
        shape: The conditioning of the flow at these points.

    Returns:
        The log_dets.
    """
    points, units = flow.units(x)
    z, forward = flow.core(points, context)
    forward = forward + units
    inverse = flow.core.inverse(z, context)[1] + flow.units.inverse(points)[1]
    scales = flow.units.linearize(x).jv(torch.ones_like(x)[None])[0].flatten(1)
    log_scales = scales.double().abs().log()
    true = values = None
    if points[0].numel() <= DENSE_UP_TO:
        matrices = dense(flow.core.linearize(points, context).jv, points)
        few = flow.core.linearize(points[:SPECTRA], None if context is None else context[:SPECTRA])
        values = all_of_both(matrices[:SPECTRA], dense(few.inverse_jv, few.value))
        finite = torch.isfinite(matrices).all(dim=(1, 2))
        true = torch.full_like(forward, torch.nan, dtype=torch.float64)
        true[finite] = torch.linalg.slogdet(matrices[finite])[1] + log_scales.sum(1)[finite]
    # Horn: sum |log s| of a product is at most the sum of those of its factors. What each layer
    # rounds adds up like a random walk.
    stretch = torch.maximum(shape.layer_sigma_max.log().abs(), shape.layer_sigma_min.log().abs())
    layers = math.sqrt(len(stretch)) + points[0].numel() * stretch.sum(0)
    return LogDets(
        forward=forward.double(),
        inverse=inverse.double(),
        true=true,
        size=layers + log_scales.abs().sum(1),
        units=units.double(),
        singular_values=values,
    )
