"""Plain functions, and objects that have them: encode and decode."""

from typing import Any

from torch import Tensor, nn

from kappaflow.adapters.parts import ForeignLayer, Parts, event_shape_of
from kappaflow.errors import ArgumentError
from kappaflow.flows import StandardNormal


def parts_of(flow: Any, x: Tensor | None, context: Tensor | None) -> Parts:  # noqa: ANN401
    """Returns one layer; the base is a standard normal."""
    if isinstance(flow, tuple | list):
        if len(flow) != 2 or not all(map(callable, flow)):
            raise ArgumentError("'flow' should be two functions, encode and decode.")
        encode, decode, module = *flow, None
    else:
        encode, decode = flow.encode, flow.decode
        module = flow if isinstance(flow, nn.Module) else None
    shape = event_shape_of(x, "encode")

    def called(function: Any, value: Any, given: Tensor | None) -> Any:  # noqa: ANN401
        return function(value) if given is None else function(value, given)

    layer = ForeignLayer(
        type(flow).__name__ if not isinstance(flow, tuple | list) else "encode",
        lambda value, given: called(encode, value, given),
        lambda value, given: called(decode, value, given),
        (shape, shape),
        0 if context is None else context.shape[1],
    )
    own, sample = _method(flow, "log_prob"), _method(flow, "sample")

    def drawn(n: int, given: Tensor | None) -> tuple[Tensor, Tensor | None]:
        found = called(sample, n, given)
        return found if isinstance(found, tuple) else (found, None)

    return Parts(
        "functions",
        [layer],
        StandardNormal(shape),
        module,
        log_prob=None if own is None else (lambda value, given: called(own, value, given)),
        sample=None if sample is None else drawn,
    )


def _method(flow: Any, name: str) -> Any:  # noqa: ANN401
    """Returns a method of an object, None where it has none of this name."""
    found = getattr(flow, name, None)
    return found if callable(found) else None
