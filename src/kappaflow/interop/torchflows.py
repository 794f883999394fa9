"""Reads flows of torchflows for `wrap`. Forward goes from data to latent, as in kappaflow."""

from typing import Any

from torch import Tensor

from kappaflow.foreign.layers import ForeignBase, ForeignLayer, Parts


def parts_of(flow: Any, x: Tensor | None, context: Tensor | None) -> Parts:
    """Returns the layers and the base of a torchflows flow."""
    shape = tuple(flow.bijection.event_shape)
    width = 0 if context is None else context.shape[1]

    def layer(bijection: Any) -> ForeignLayer:
        return ForeignLayer(
            type(bijection).__name__,
            lambda value, context: bijection.forward(value, context=context)[:2],
            lambda value, context: bijection.inverse(value, context=context)[:2],
            (shape, shape),
            width,
        )

    layers = getattr(flow.bijection, "layers", None) or [flow.bijection]
    return Parts(
        "torchflows",
        [layer(bijection) for bijection in layers],
        ForeignBase(
            shape,
            lambda z, context: flow.base_log_prob(z),
            lambda n, context: flow.base_sample((n,)),
        ),
        flow,
        log_prob=lambda value, context: flow.log_prob(value, context=context),
        sample=lambda n, context: flow.sample((n,), context=context, return_log_prob=True),
    )
