"""Explains a result that is not finite: the first such layer, and why it happens there."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from kappaflow.conditioning import layers_of
from kappaflow.diagnosis.advice import bound_scales, in_float64
from kappaflow.flows import Flow

NUDGES, NEAR = 32, 1e-3  # random moves of a value off the edge of a domain, relative to its size
LARGE = 1e4  # size of a value from which a function of it may overflow
Call = Callable[[Tensor, Tensor | None], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Explanation:
    """The layer, cause and fix of a result that is not finite; None where they are not known."""

    layer: str | None = None
    cause: str | None = None
    fix: str | None = None


def explain(
    flow: Flow,
    state: Tensor,
    context: Tensor | None,
    *,
    from_latent: bool = False,
    wide: Flow | None = None,
) -> Explanation:
    """Returns why log_prob at a row, or a sample from a latent, is not finite.

    `state` is one row in standardized units, (1, *event), or one latent. `wide` is a float64 copy
    of the flow.
    """
    layers, start = layers_of(flow.core, context), state
    found = domain = None
    for layer in reversed(layers) if from_latent else layers:
        call = layer.bijection.inverse if from_latent else layer.bijection
        value, log_det = call(state, layer.context)
        if not (_is_finite(value) and _is_finite(log_det)):
            found, domain = layer.name, _domain(call, state, layer.context)
            break
        state = value
    broken = next((name for name, one in flow.state_dict().items() if not _is_finite(one)), None)
    if broken is not None:
        cause = f"{broken.removeprefix('source.')} holds values that are not finite."
        fix = "Load parameters from before that step, and train with a smaller learning rate."
        return Explanation(found, cause, fix)
    if domain is not None:
        fix = "Keep values inside of the domain: clamp them, or add noise to rounded values."
        return Explanation(found, domain, fix)
    if wide is not None and _is_finite_in(wide, start, context, from_latent=from_latent):
        cause = "A scale or a shift overflows in float32; in float64, the result is finite."
        fix = (
            f"Score and sample in float64: {in_float64(flow)}. Or bound the log-scales and train "
        )
        return Explanation(found, cause, f"{fix}again: {bound_scales(flow)}.")
    if found is None and not from_latent and state.abs().max() < LARGE:
        cause = "The latent of the row lies outside of the support of the base."
        return Explanation(None, cause, "Use a base with a density everywhere.")
    return Explanation(found)


def _domain(call: Call, state: Tensor, context: Tensor | None) -> str | None:
    """Returns the cause if a value is on the edge of a domain or outside of it; else None."""
    generator = torch.Generator().manual_seed(0)
    shape = (NUDGES, *state.shape[1:])
    noise = torch.rand(shape, generator=generator, dtype=torch.float64).to(state) * 2 - 1
    given = None if context is None else context.expand(NUDGES, -1)
    value, log_det = call(state + NEAR * (1 + state.abs()) * noise, given)
    values = torch.cat((value.flatten(1), log_det[:, None]), 1)
    if not state.abs().max() < LARGE:
        return None
    if torch.isfinite(values).all(1).any():
        return (
            "The layer is not defined at this value, such as a logarithm of zero: the row lies on "
            "the edge of its domain."
        )
    if not values.isinf().any():
        return (
            "The layer is not defined at this value, such as a logarithm of a negative number: "
            "the row lies outside of its domain."
        )
    return None


def _is_finite(value: object) -> bool:
    return not isinstance(value, Tensor) or bool(torch.isfinite(value).all())


def _is_finite_in(wide: Flow, start: Tensor, context: Tensor | None, *, from_latent: bool) -> bool:
    """Returns whether the same row or latent has a finite result in float64."""
    given = None if context is None else context.double()
    try:
        call = wide.core.inverse if from_latent else wide.core
        value, log_det = call(start.double(), given)
        results = [value, log_det]
        if not from_latent:
            results.append(wide.base.log_prob(value, given))
    except Exception:  # a library that mixes float64 and float32
        return False
    return all(map(_is_finite, results))
