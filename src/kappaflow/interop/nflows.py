"""Flows of nflows for `wrap`. Forward goes from data to latent, as here."""

from typing import Any

from torch import Tensor

from kappaflow.foreign.layers import (
    ContextReader,
    ForeignBase,
    ForeignLayer,
    Parts,
    default_dtype_of,
    event_shape_of,
    flattened,
    is_overridden,
    unchanged_context,
)

HOME = "nflows.transforms"
POINTWISE = f"{HOME}.standard.PointwiseAffineTransform"
INVERSE = f"{HOME}.base.InverseTransform"
FLOOR = 1e-3  # smallest scale of an affine coupling


def parts_of(
    flow: Any,
    x: Tensor | None,
    context: Tensor | None,
    read_context: ContextReader = unchanged_context,
) -> Parts:
    """Returns the transforms of a flow of nflows; each of them embeds the context."""
    base = flow._distribution
    shape = getattr(base, "_shape", None)
    shape = event_shape_of(x, type(flow).__name__) if shape is None else tuple(shape)
    outer = shape if x is None else tuple(x.shape[1:])

    def embedded(context: Tensor | None) -> Tensor | None:
        return None if context is None else flow._embedding_net(read_context(context))

    def layer(transform: Any, shapes: tuple[tuple[int, ...], ...]) -> ForeignLayer:
        return ForeignLayer(
            type(transform).__name__,
            lambda value, context: transform(value, context=embedded(context)),
            lambda value, context: transform.inverse(value, context=embedded(context)),
            (shapes[0], shapes[1]),
            0 if context is None else context.shape[1],
        )

    def draw(call: Any, n: int, context: Tensor | None) -> Any:
        with default_dtype_of(flow):  # its standard normal samples in torch's default dtype
            return call(*_rows(n, context))

    def sample(*arguments: Any) -> tuple[Tensor, Tensor | None]:
        overridden = any(is_overridden(name, flow, ["nflows"]) for name in ("sample", "_sample"))
        if overridden:
            return flow.sample(*arguments), None
        return flow.sample_and_log_prob(*arguments)

    transforms = _transforms_of(flow._transform) if outer == shape else [flow._transform]
    return Parts(
        "nflows",
        [layer(transform, (outer, shape)) for transform in transforms],
        ForeignBase(
            shape,
            lambda z, context: base.log_prob(z, context=embedded(context)),
            lambda n, context: draw(base.sample, n, embedded(context)),
        ),
        flow,
        log_prob=lambda value, context: flow.log_prob(value, context=read_context(context)),
        sample=lambda n, context: draw(sample, n, read_context(context)),
    )


def _transforms_of(transform: Any) -> list[Any]:
    def inner(part: Any) -> Any:
        return part._transforms if type(part).__name__ == "CompositeTransform" else None

    return flattened(transform, inner)


def _rows(n: int, context: Tensor | None) -> tuple[int, Tensor | None]:
    """Returns the number of samples per context, and the contexts: one sample per row."""
    return (n, None) if context is None else (1, context)
