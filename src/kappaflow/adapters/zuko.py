"""Flows of zuko: lazy ones, which make a transform for each context, and made ones."""

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from kappaflow.adapters.parts import ForeignBase, ForeignLayer, Parts, Read, as_given

Make = Callable[[Tensor | None], Any]


def parts_of(
    flow: Any,  # noqa: ANN401
    x: Tensor | None,  # noqa: ARG001
    context: Tensor | None,
    read: Read = as_given,
) -> Parts:
    """Returns the transforms of a flow of zuko, whose direction is that of ours.

    A context is first what `read` makes of it.
    """
    lazy = isinstance(flow, nn.Module)

    def made(thing: Any) -> Make:  # noqa: ANN401
        return (lambda given: thing(read(given))) if lazy else (lambda given: thing)

    base, whole = made(flow.base), made(flow)
    shape = tuple(base(context).event_shape)
    width = 0 if context is None else context.shape[1]
    layers = [_layer(one, made(one), shape, width) for one in _opened(flow.transform)]
    return Parts(
        "zuko",
        layers,
        ForeignBase(
            shape,
            lambda z, given: base(given).log_prob(z),
            lambda n, given: _drawn(base(given), n)[0],
        ),
        flow if lazy else None,
        log_prob=lambda value, given: whole(given).log_prob(value),
        sample=lambda n, given: _drawn(whole(given), n),
    )


def _opened(transform: Any) -> list[Any]:  # noqa: ANN401
    """Returns the transforms of a composition, data side first, compositions within opened."""
    inner = getattr(transform, "transforms", None)
    if inner is None:
        return [transform]
    return [one for part in inner for one in _opened(part)]


def _layer(transform: Any, make: Make, shape: tuple[int, ...], width: int) -> ForeignLayer:  # noqa: ANN401
    return ForeignLayer(
        type(transform).__name__,
        lambda x, given: make(given).call_and_ladj(x),
        lambda z, given: make(given).inv.call_and_ladj(z),
        (shape, shape),
        width,
    )


def _drawn(distribution: Any, n: int) -> tuple[Tensor, Tensor | None]:  # noqa: ANN401
    """Returns n draws: one for each row of a context, if the distribution has one."""
    shape = () if distribution.batch_shape else (n,)
    if hasattr(distribution, "rsample_and_log_prob"):
        return distribution.rsample_and_log_prob(shape)
    return distribution.sample(shape), None
