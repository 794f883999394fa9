"""What is examined stays as it is: a copy of it is, or what it held is put back."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Transform

from kappaflow.adapters import Wrapped, wrap
from kappaflow.flows import Flow


@contextmanager
def to_examine(flow: object, x: Tensor | None, context: Tensor | None) -> Iterator[Flow]:
    """Yields a flow to examine in place of one.

    It is a copy, wrapped if it is of another library, or where none can be made the flow itself,
    whose state is put back in the end.

    Args:
        flow: As `kappaflow.wrap` takes it, or as it returns it.
        x: As for `kappaflow.wrap`.
        context: As for `kappaflow.wrap`.

    Yields:
        The flow.
    """
    original = original_of(flow)
    try:
        own = _copied(original)
    except Exception:  # tensors with a graph, files, locks, or what its authors forbid
        own = original
    wrapped = wrap(own, x, context)
    with _put_back(wrapped if own is original else None):
        yield wrapped


def _copied(original: object) -> object:
    """Returns a copy whose numbers have derivatives if those of the original have."""
    state = original.state_dict().values() if isinstance(original, nn.Module) else ()
    with torch.inference_mode(any(isinstance(x, Tensor) and x.is_inference() for x in state)):
        return copy.deepcopy(original)


def original_of(flow: object) -> object:
    """Returns what was wrapped, or the flow itself."""
    return flow.original[0] if isinstance(flow, Wrapped) else flow


def another(
    flow: object, x: Tensor, context: Tensor | None, dtype: torch.dtype | None = None
) -> Flow | None:
    """Returns one more copy of a flow in evaluation mode, in another type if one is given.

    Args:
        flow: As for `to_examine`.
        x: As for `kappaflow.wrap`.
        context: As for `kappaflow.wrap`.
        dtype: That of the copy; as it is if left out.

    Returns:
        The copy; None where there cannot be one, or not in this type.
    """
    original = original_of(flow)
    if dtype is not None and not isinstance(original, nn.Module | Distribution):
        return None
    try:
        own = _copied(original)
        if dtype is not None:
            own = _converted(own, dtype)
            x, context = x.to(dtype), None if context is None else context.to(dtype)
        return wrap(own, x, context).eval()
    except Exception:  # as above, and what cannot be converted
        return None


def _converted(one: Any, dtype: torch.dtype) -> Any:  # noqa: ANN401
    """Returns a module, a distribution or a part of one in another type, changed in place."""
    if isinstance(one, nn.Module):
        return one.to(dtype)
    if isinstance(one, Tensor):
        return one.to(dtype) if one.is_floating_point() else one
    if isinstance(one, list):
        return [_converted(part, dtype) for part in one]
    if isinstance(one, Distribution | Transform):
        for name, value in vars(one).items():
            vars(one)[name] = _converted(value, dtype)
    return one


@contextmanager
def _put_back(module: nn.Module | None) -> Iterator[None]:
    if module is None:
        yield
        return
    before = {
        name: value.detach().clone()
        for name, value in module.state_dict().items()
        if isinstance(value, Tensor)
    }
    try:
        yield
    finally:
        with torch.no_grad():
            for name, value in module.state_dict().items():
                if name in before:
                    value.copy_(before[name])
