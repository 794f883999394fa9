"""The log-determinants of both directions, and the Jacobian's."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from kappaflow.conditioning import Profile
from kappaflow.conditioning.jacobian import all_of_both, dense
from kappaflow.conditioning.spectrum import DENSE_UP_TO
from kappaflow.flows import Flow

SPECTRA = 16  # points at which all singular values are kept
NUDGES = 2  # by rounding, to see what it does to a log_det
SEEN = 1e-5  # nats off the Jacobian, from which on float64 is asked as well


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
        forward_moves: By how much `forward` moves when the points are rounded, (B,).
        inverse_moves: By how much `inverse` moves when the latents are, (B,).
        wide: The same in float64 at the same points, where they are off the Jacobian; None where
            they are not, or there is no copy in float64.
        singular_values: All behind the units at some of the points, descending, (b, n); None where
            the dimension is too large.
    """

    forward: Tensor
    inverse: Tensor
    true: Tensor | None
    size: Tensor
    units: Tensor
    forward_moves: Tensor
    inverse_moves: Tensor
    wide: "LogDets | None" = None
    singular_values: Tensor | None = None


def log_dets_at(
    flow: Flow, x: Tensor, context: Tensor | None, shape: Profile, wide: Flow | None = None
) -> LogDets:
    """Returns the log_dets of both directions, and the Jacobian's where it can be formed.

    A change of units treats each feature by itself, so that one product with ones has its whole
    Jacobian: scales however far apart cost the others no digits.

    Args:
        flow: In evaluation mode.
        x: Points as its bijection takes them, (B, *event).
        context: (B, C) or None.
        shape: The conditioning of the flow at these points.
        wide: A copy in float64.

    Returns:
        The log_dets.
    """
    found = _measured(flow, x, context, shape)
    if wide is None or found.true is None:
        return found
    off = torch.stack((found.forward - found.true, found.inverse + found.true)).abs()
    if not (off > SEEN).any():
        return found
    try:
        context = None if context is None else context.double()
        return replace(found, wide=_measured(wide, x.double(), context, shape))
    except Exception:  # a library in which float64 meets float32
        return found


def _measured(flow: Flow, x: Tensor, context: Tensor | None, shape: Profile) -> LogDets:
    """Returns the log_dets in the type of the flow."""
    points, units = flow.units(x)
    z, core_forward = flow.core(points, context)
    core_inverse = flow.core.inverse(z, context)[1]
    forward, inverse = core_forward + units, core_inverse + flow.units.inverse(points)[1]
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
        forward_moves=_moves(lambda at: flow.core(at, context)[1], points, core_forward),
        inverse_moves=_moves(lambda at: flow.core.inverse(at, context)[1], z, core_inverse),
        singular_values=values,
    )


def _moves(log_det: Callable[[Tensor], Tensor], at: Tensor, there: Tensor) -> Tensor:
    """Returns by how much a log_det moves when its argument is rounded, (B,) in float64."""
    generator = torch.Generator().manual_seed(0)
    eps, most = torch.finfo(at.dtype).eps, torch.zeros_like(there, dtype=torch.float64)
    for _ in range(NUDGES):
        signs = torch.randint(0, 2, at.shape, generator=generator).to(at) * 2 - 1
        moved = (log_det(at * (1 + eps * signs)) - there).double().abs()
        most = torch.maximum(most, moved.nan_to_num(0, posinf=0))
    return most
