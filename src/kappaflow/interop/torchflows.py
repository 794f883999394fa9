"""Reads flows of torchflows for `wrap`. Forward goes from data to latent, as in kappaflow."""

from typing import Any

from torch import Tensor

from kappaflow.foreign.layers import ForeignBase, ForeignLayer, Parts


def parts_of(flow: Any, x: Tensor | None, context: Tensor | None) -> Parts:  # noqa: ANN401, ARG001
    """Returns the layers and the base of a torchflows flow."""
    shape = tuple(flow.bijection.event_shape)
    width = 0 if context is None else context.shape[1]

    def layer(one: Any) -> ForeignLayer:  # noqa: ANN401
        return ForeignLayer(
            type(one).__name__,
            lambda value, given: one.forward(value, context=given)[:2],
            lambda value, given: one.inverse(value, context=given)[:2],
            (shape, shape),
            width,
        )

    layers = getattr(flow.bijection, "layers", None) or [flow.bijection]
    return Parts(
        "torchflows",
        [layer(one) for one in layers],
        ForeignBase(
            shape,
            lambda z, given: flow.base_log_prob(z),
            lambda n, given: flow.base_sample((n,)),
        ),
        flow,
        log_prob=lambda value, given: flow.log_prob(value, context=given),
        sample=lambda n, given: flow.sample((n,), context=given, return_log_prob=True),
    )
