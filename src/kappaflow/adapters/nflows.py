"""Flows of nflows, whose direction is that of ours."""

from typing import Any

from torch import Tensor

from kappaflow.adapters.parts import (
    ForeignBase,
    ForeignLayer,
    Parts,
    Read,
    as_given,
    drawing_as,
    event_shape_of,
)


def parts_of(
    flow: Any,  # noqa: ANN401
    x: Tensor | None,
    context: Tensor | None,
    read: Read = as_given,
) -> Parts:
    """Returns the transforms of a flow of nflows, the embedding of contexts in front of each.

    A context is first what `read` makes of it.
    """
    base = flow._distribution
    shape = getattr(base, "_shape", None)
    shape = event_shape_of(x, type(flow).__name__) if shape is None else tuple(shape)
    outer = shape if x is None else tuple(x.shape[1:])

    def embedded(given: Tensor | None) -> Tensor | None:
        return None if given is None else flow._embedding_net(read(given))

    def layer(transform: Any, shapes: tuple[tuple[int, ...], ...]) -> ForeignLayer:  # noqa: ANN401
        return ForeignLayer(
            type(transform).__name__,
            lambda value, given: transform(value, context=embedded(given)),
            lambda value, given: transform.inverse(value, context=embedded(given)),
            (shapes[0], shapes[1]),
            0 if context is None else context.shape[1],
        )

    def drawn(call: Any, n: int, given: Tensor | None) -> Any:  # noqa: ANN401
        with drawing_as(flow):  # a standard normal of nflows draws in torch's default type
            return call(*_rows(n, given))

    transforms = _opened(flow._transform) if outer == shape else [flow._transform]
    return Parts(
        "nflows",
        [layer(one, (outer, shape)) for one in transforms],
        ForeignBase(
            shape,
            lambda z, given: base.log_prob(z, context=embedded(given)),
            lambda n, given: drawn(base.sample, n, embedded(given)),
        ),
        flow,
        log_prob=lambda value, given: flow.log_prob(value, context=read(given)),
        sample=lambda n, given: drawn(flow.sample_and_log_prob, n, read(given)),
    )


def _opened(transform: Any) -> list[Any]:  # noqa: ANN401
    if type(transform).__name__ != "CompositeTransform":
        return [transform]
    return [one for part in transform._transforms for one in _opened(part)]


def _rows(n: int, context: Tensor | None) -> tuple[int, Tensor | None]:
    """Returns how many draws a context, and the contexts: one draw for each row."""
    return (n, None) if context is None else (1, context)
