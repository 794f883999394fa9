"""`wrap`: any flow, from any library, as one of ours to look at."""

from collections.abc import Callable
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from kappaflow.adapters.parts import Parts, event_shape_of
from kappaflow.adapters.wrapped import Wrapped
from kappaflow.bijection import Bijection
from kappaflow.errors import ArgumentError, KappaflowError
from kappaflow.flows import Flow, StandardNormal

# A class whose module begins so, itself or by inheritance, and where its adapter is. No library
# is imported here: whoever holds one of its flows has done so.
ADAPTERS = {
    "zuko": "zuko",
    "nflows": "nflows",
    "normflows": "normflows",
    "FrEIA": "freia",
    "torchflows": "torchflows",
    "sbi": "sbi",
    "pyro": "distributions",
    "torch.distributions": "distributions",
}
Adapter = Callable[[Any, Tensor | None, Tensor | None], Parts]


def wrap(flow: object, x: Tensor | None = None, context: Tensor | None = None) -> Flow:
    """Returns a flow of another library as a `Flow`, which shares its parameters.

    Taken are flows of zuko, nflows, normflows, FrEIA and torchflows, density estimators of sbi
    that are flows, `TransformedDistribution` of torch and Pyro, conditional ones too, any object
    with `encode(x) -> (z, log_det)` and `decode(z) -> (x, log_det)`, a pair of such functions, and
    bijections of ours. If an object has `log_prob(x)` and `sample(n)` too, these are its own ways.
    Where a library has networks without a base (FrEIA, functions), the base is a standard normal.

    Args:
        flow: The flow.
        x: Points (B, *event), for flows that do not say the shape of theirs; values do not
            matter.
        context: (B, C) for a conditional flow; read as x is.

    Returns:
        The flow, of which `kappaflow.profile`, `spectrum`, `round_trip` and `doctor` say what they
        say of ours; `own_log_prob` and `own_sample` are the library's own.

    Raises:
        ArgumentError: It is nothing of this kind, or a shape is not known.

    Example:
        >>> import kappaflow as kf
        >>> def double(x):
        ...     return 2 * x, torch.full((len(x),), 0.6931472)
        >>> def halve(z):
        ...     return z / 2, torch.full((len(z),), -0.6931472)
        >>> kf.wrap((double, halve), torch.zeros(1, 1)).log_prob(torch.zeros(1, 1))
        tensor([-0.2258])
    """
    flow = own_flow(flow)
    if isinstance(flow, Flow):
        return flow
    if isinstance(flow, Bijection):
        shape = event_shape_of(x, type(flow).__name__)
        return Flow(StandardNormal(flow.latent_shape(shape)), flow)
    adapter = _adapter(flow)
    for name, value in (("x", x), ("context", context)):
        if value is not None and not (isinstance(value, Tensor) and value.dim() >= 2):
            raise ArgumentError(f"'{name}' should be a tensor of rows, got {_in_words(value)}.")
    parts = _taken_apart(adapter, flow, x, context)
    width = 0 if context is None else context.shape[1]
    like = next((one for one in (parts.like, x, context) if one is not None), None)
    return Wrapped(flow if parts.flow is None else parts.flow, parts, width, like)


def own_flow(flow: object) -> object:
    """Returns the flow of ours that something holds (an estimator, a distribution), or itself."""
    held = getattr(flow, "posterior_estimator", flow)  # of a posterior of sbi
    return getattr(held, "flow_to_examine", flow)


def _taken_apart(
    adapter: Adapter, flow: object, x: Tensor | None, context: Tensor | None
) -> Parts:
    """Returns the parts of a flow; what is no whole flow of its library is said to be none."""
    try:
        return adapter(flow, x, context)
    except KappaflowError:
        raise
    except Exception as error:
        first = (str(error).splitlines() or [""])[0]
        raise ArgumentError(
            f"'flow' should be a whole flow, and {type(flow).__name__} could not be taken as one "
            f"({type(error).__name__}: {first})"
            + (": if it is conditional, give its 'context'." if context is None else ".")
        ) from error


def _adapter(flow: object) -> Adapter:
    for kind in type(flow).__mro__:
        for prefix, home in ADAPTERS.items():
            if kind.__module__ == prefix or kind.__module__.startswith(f"{prefix}."):
                return import_module(f"kappaflow.adapters.{home}").parts_of
    if isinstance(flow, tuple | list) or (hasattr(flow, "encode") and hasattr(flow, "decode")):
        return import_module("kappaflow.adapters.functions").parts_of
    raise ArgumentError(
        f"'flow' should be a Flow, a flow of {', '.join(dict.fromkeys(ADAPTERS))}, or have "
        f"encode and decode, got {type(flow).__name__}."
    )


def _in_words(value: object) -> str:
    return str(tuple(value.shape)) if isinstance(value, torch.Tensor) else type(value).__name__
