"""Reads flows of normflows for `wrap`. Their forward goes from latent to data."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from kappaflow.errors import ArgumentError
from kappaflow.foreign.layers import ForeignBase, ForeignLayer, Parts, event_shape_of

HOME = "normflows.flows"
BASES = "normflows.distributions.base."
SIGMOID_SHIFT = 2.0


def parts_of(flow: Any, x: Tensor | None, context: Tensor | None) -> Parts:
    """Returns the layers, from data to latent, and the base of a normflows flow."""
    if hasattr(flow, "merges"):
        return _multiscale_parts(flow, x, context)
    if not hasattr(flow, "flows") or type(flow).__name__ == "NormalizingFlowVAE":
        raise ArgumentError(
            f"'flow' should be a NormalizingFlow or MultiscaleFlow of normflows, got "
            f"{type(flow).__name__}."
        )
    shape = _shape(flow.q0, x, type(flow).__name__)
    width = 0 if context is None else context.shape[1]

    def with_context(function: Callable[..., Any]) -> Callable[[Any, Tensor | None], Any]:
        return lambda value, context: (
            function(value) if context is None else function(value, context=context)
        )

    layers = [
        ForeignLayer(
            type(layer).__name__,
            with_context(layer.inverse),
            with_context(layer.forward),
            (shape, shape),
            width,
        )
        for layer in reversed(flow.flows)
    ]
    sample = with_context(flow.q0.forward)
    base = ForeignBase(
        shape, with_context(flow.q0.log_prob), lambda n, context: sample(n, context)[0]
    )
    return Parts(
        "normflows",
        layers,
        base,
        flow,
        log_prob=with_context(flow.log_prob),
        sample=with_context(flow.sample),
    )


def _multiscale_parts(flow: Any, x: Tensor | None, context: Tensor | None) -> Parts:
    """Returns a multi-scale flow as one layer with a flat latent."""
    shape = event_shape_of(x, type(flow).__name__)
    shapes = [_shape(base, None, type(flow).__name__) for base in flow.q0]
    sizes = [math.prod(shape) for shape in shapes]

    def split(z: Tensor) -> list[Tensor]:
        parts = z.split(sizes, 1)
        return [part.reshape(-1, *shape) for part, shape in zip(parts, shapes, strict=True)]

    def classes(context: Tensor | None) -> tuple[Tensor, ...]:
        if not flow.class_cond:
            return ()
        if context is None:
            raise ArgumentError(
                "'context' should be given, one column with the class of each row: this "
                "MultiscaleFlow is conditional."
            )
        return (context[:, 0].long(),)

    def encode(value: Tensor, context: Tensor | None) -> tuple[Tensor, Any]:
        z, log_det = flow.inverse_and_log_det(value)
        return torch.cat([part.flatten(1) for part in z], 1), log_det

    def decode(value: Tensor, context: Tensor | None) -> tuple[Tensor, Any]:
        return flow.forward_and_log_det(split(value))

    def base_log_prob(z: Tensor, context: Tensor | None) -> Tensor:
        values = [
            base.log_prob(part, *classes(context))
            for base, part in zip(flow.q0, split(z), strict=True)
        ]
        return torch.stack(values).sum(0)

    def base_sample(n: int, context: Tensor | None) -> Tensor:
        return torch.cat([base(n, *classes(context))[0].flatten(1) for base in flow.q0], 1)

    latent = (sum(sizes),)
    width = 0 if context is None else context.shape[1]
    return Parts(
        "normflows",
        [ForeignLayer(type(flow).__name__, encode, decode, (shape, latent), width)],
        ForeignBase(latent, base_log_prob, base_sample),
        flow,
        log_prob=lambda value, context: flow.log_prob(value, *(classes(context) or (None,))),
        sample=lambda n, context: flow.sample(n, *classes(context)),
    )


def _shape(base: Any, x: Tensor | None, name: str) -> tuple[int, ...]:
    """Returns the shape of a latent, from the base if it has one, else from the rows."""
    shape = getattr(base, "shape", None)
    if shape is None:
        return event_shape_of(x, name)
    return tuple(shape) if isinstance(shape, tuple | list | torch.Size) else (int(shape),)
