"""Explains a result that is not finite: the first such layer, and why it happens there."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from kappaflow.conditioning import Layer, layers_of
from kappaflow.conditioning.round_trip import layer_by_layer
from kappaflow.diagnosis.advice import bound_scales, in_float64
from kappaflow.diagnosis.measurements import Measurements
from kappaflow.flows import Flow

NUDGES, NEAR = 32, 1e-3  # random moves of a value off the edge of a domain, relative to its size
LARGE = 1e4  # size of a value from which a function of it may overflow


@dataclass(frozen=True)
class Explanation:
    """The layer, cause and fix of a result that is not finite; None where they are not known."""

    layer: str | None = None
    cause: str | None = None
    fix: str | None = None


def explain(
    m: Measurements, start: Tensor, context: Tensor | None, *, from_latent: bool = False
) -> Explanation:
    """Returns why log_prob at a standardized row, or a sample from a latent, is not finite."""
    flow, state = m.flow, start
    name = edge = None
    layers = layers_of(flow.core, context)
    for layer, before, state, log_det in layer_by_layer(layers, start, decode=from_latent):
        if not (_is_finite(state) and _is_finite(log_det)):
            name, edge = layer.name, _edge_of_domain(layer, before, decode=from_latent)
            break
    broken = next((key for key, value in flow.state_dict().items() if not _is_finite(value)), None)
    if broken is not None:
        cause = f"{broken.removeprefix('source.')} holds values that are not finite."
        fix = "Load parameters from before that step, and train with a smaller learning rate."
        return Explanation(name, cause, fix)
    if edge is not None:
        cause = f"The layer is not defined at this value, such as a logarithm of {edge}."
        fix = "Keep values inside of the domain: clamp them, or add noise to rounded values."
        return Explanation(name, cause, fix)

    def is_finite(flow: Flow, start: Tensor, context: Tensor | None) -> bool:
        if from_latent:
            return all(map(_is_finite, flow.core.inverse(start, context)))
        z, log_det = flow.core(start, context)
        return all(map(_is_finite, (z, log_det, flow.base.log_prob(z, context))))

    if m.in_float64(is_finite, start, context):
        cause = "A scale or a shift overflows in float32; in float64, the result is finite."
        fix = (
            f"Score and sample in float64: {in_float64(flow)}. Or bound the log-scales and train "
            f"again: {bound_scales(flow)}."
        )
        return Explanation(name, cause, fix)
    if name is None and not from_latent and state.abs().max() < LARGE:
        cause = "The latent of the row lies outside of the support of the base."
        return Explanation(None, cause, "Use a base with a density everywhere.")
    return Explanation(name)


def _edge_of_domain(layer: Layer, state: Tensor, *, decode: bool) -> str | None:
    """Returns how a value lies on the edge of a domain or outside of it; None if it does not."""
    if not state.abs().max() < LARGE:
        return None
    generator = torch.Generator().manual_seed(0)
    shape = (NUDGES, *state.shape[1:])
    noise = torch.rand(shape, generator=generator, dtype=torch.float64).to(state) * 2 - 1
    context = None if layer.context is None else layer.context.expand(NUDGES, -1)
    nudged = replace(layer, context=context)
    call = nudged.decode if decode else nudged.encode
    value, log_det = call(state + NEAR * (1 + state.abs()) * noise)
    values = torch.cat((value.flatten(1), log_det[:, None]), 1)
    if torch.isfinite(values).all(1).any():
        return "zero: the row lies on the edge of its domain"
    if not values.isinf().any():
        return "a negative number: the row lies outside of its domain"
    return None


def _is_finite(value: object) -> bool:
    return not isinstance(value, Tensor) or bool(torch.isfinite(value).all())
