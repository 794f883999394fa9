"""Flows of normflows, whose forward goes from latent to data."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from kappaflow.adapters.parts import ForeignBase, ForeignLayer, Parts, event_shape_of
from kappaflow.errors import ArgumentError


def parts_of(flow: Any, x: Tensor | None, context: Tensor | None) -> Parts:  # noqa: ANN401
    """Returns the flows of a model of normflows in the order of ours."""
    if hasattr(flow, "merges"):
        return _multiscale(flow, x, context)
    if not hasattr(flow, "flows") or type(flow).__name__ == "NormalizingFlowVAE":
        raise ArgumentError(
            f"'flow' should be a flow on data, {type(flow).__name__} of normflows is none."
        )
    shape = _shape(flow.q0, x, type(flow).__name__)
    width = 0 if context is None else context.shape[1]

    def given_to(function: Callable[..., Any]) -> Callable[[Any, Tensor | None], Any]:
        return lambda value, given: (
            function(value) if given is None else function(value, context=given)
        )

    layers = [
        ForeignLayer(
            type(one).__name__, given_to(one.inverse), given_to(one.forward), (shape, shape), width
        )
        for one in reversed(flow.flows)
    ]
    draw = given_to(flow.q0.forward)
    base = ForeignBase(shape, given_to(flow.q0.log_prob), lambda n, given: draw(n, given)[0])
    return Parts(
        "normflows",
        layers,
        base,
        flow,
        log_prob=given_to(flow.log_prob),
        sample=given_to(flow.sample),
    )


def _multiscale(flow: Any, x: Tensor | None, context: Tensor | None) -> Parts:  # noqa: ANN401
    """Returns one layer: the latents of all scales, coarsest first, are one row of numbers.

    A context is one column with the class of each row.
    """
    shape = event_shape_of(x, type(flow).__name__)
    shapes = [_shape(base, None, type(flow).__name__) for base in flow.q0]
    sizes = [math.prod(one) for one in shapes]

    def split(z: Tensor) -> list[Tensor]:
        parts = z.split(sizes, 1)
        return [part.reshape(-1, *one) for part, one in zip(parts, shapes, strict=True)]

    def classes(given: Tensor | None) -> tuple[Tensor, ...]:
        if not flow.class_cond:
            return ()
        if given is None:
            raise ArgumentError(
                "'context' should be given, a column with the class of each row: this "
                "MultiscaleFlow is conditional."
            )
        return (given[:, 0].long(),)

    def encode(value: Tensor, given: Tensor | None) -> tuple[Tensor, Any]:  # noqa: ARG001
        z, log_det = flow.inverse_and_log_det(value)
        return torch.cat([part.flatten(1) for part in z], 1), log_det

    def decode(value: Tensor, given: Tensor | None) -> tuple[Tensor, Any]:  # noqa: ARG001
        return flow.forward_and_log_det(split(value))

    def base_log_prob(z: Tensor, given: Tensor | None) -> Tensor:
        found = [
            base.log_prob(part, *classes(given))
            for base, part in zip(flow.q0, split(z), strict=True)
        ]
        return torch.stack(found).sum(0)

    def base_sample(n: int, given: Tensor | None) -> Tensor:
        return torch.cat([base(n, *classes(given))[0].flatten(1) for base in flow.q0], 1)

    latent = (sum(sizes),)
    width = 0 if context is None else context.shape[1]
    return Parts(
        "normflows",
        [ForeignLayer(type(flow).__name__, encode, decode, (shape, latent), width)],
        ForeignBase(latent, base_log_prob, base_sample),
        flow,
        log_prob=lambda value, given: flow.log_prob(value, *(classes(given) or (None,))),
        sample=lambda n, given: flow.sample(n, *classes(given)),
    )


def _shape(base: Any, x: Tensor | None, name: str) -> tuple[int, ...]:  # noqa: ANN401
    """Returns the shape of a latent: as the base says, or that of the points."""
    shape = getattr(base, "shape", None)
    if shape is None:
        return event_shape_of(x, name)
    return tuple(shape) if isinstance(shape, tuple | list | torch.Size) else (int(shape),)
