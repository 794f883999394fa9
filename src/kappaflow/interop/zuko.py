"""Flows of zuko for `wrap`. Forward goes from data to latent, as here."""

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from kappaflow.foreign.layers import (
    ContextReader,
    ForeignBase,
    ForeignLayer,
    Parts,
    flattened,
    is_overridden,
    unchanged_context,
)
from kappaflow.interop.distributions import log_prob_in_support

Make = Callable[[Tensor | None], Any]
AFFINE = "zuko.transforms.MonotonicAffineTransform"
ADDITIVE = "zuko.transforms.AdditiveTransform"
LIBRARIES = ("zuko", "torch")  # whose distributions sample as they score
SLOPE = 1e-3  # default of the smallest slope of a monotonic affine transform


def parts_of(
    flow: Any,
    x: Tensor | None,
    context: Tensor | None,
    read_context: ContextReader = unchanged_context,
) -> Parts:
    """Returns the transforms of a flow of zuko: a lazy one, or a distribution made by one."""
    lazy = isinstance(flow, nn.Module)

    def maker(part: Any) -> Make:
        return (lambda context: part(read_context(context))) if lazy else (lambda context: part)

    base, distribution = maker(flow.base), maker(flow)
    shape = tuple(base(context).event_shape)
    width = 0 if context is None else context.shape[1]
    transforms = flattened(flow.transform, lambda part: getattr(part, "transforms", None))
    layers = [_layer(transform, maker(transform), shape, width) for transform in transforms]
    return Parts(
        "zuko",
        layers,
        ForeignBase(
            shape,
            lambda z, context: log_prob_in_support(base(context), z),
            lambda n, context: _sample(base(context), n)[0],
        ),
        flow if lazy else None,
        log_prob=lambda value, context: distribution(context).log_prob(value),
        sample=lambda n, context: _sample(distribution(context), n),
    )


def _layer(transform: Any, make: Make, shape: tuple[int, ...], width: int) -> ForeignLayer:
    return ForeignLayer(
        type(transform).__name__,
        lambda x, context: make(context).call_and_ladj(x),
        lambda z, context: make(context).inv.call_and_ladj(z),
        (shape, shape),
        width,
    )


def _sample(distribution: Any, n: int) -> tuple[Tensor, Tensor | None]:
    """Returns n samples, or one per row if the distribution has a batch of contexts."""
    shape = () if distribution.batch_shape else (n,)
    overridden = any(
        is_overridden(name, distribution, LIBRARIES) for name in ("sample", "rsample")
    )
    if hasattr(distribution, "rsample_and_log_prob") and not overridden:
        return distribution.rsample_and_log_prob(shape)
    return distribution.sample(shape), None
