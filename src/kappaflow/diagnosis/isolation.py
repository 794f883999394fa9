"""Isolation: the doctor works on a copy of a flow, or restores the state of the original."""

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Transform
from torch.distributions.transforms import _InverseTransform
from torch.overrides import TorchFunctionMode

from kappaflow.flows import Flow
from kappaflow.interop import Wrapped, wrap


@contextmanager
def isolated(flow: object, x: Tensor | None, context: Tensor | None) -> Iterator[Flow]:
    """Yields a flow that the doctor may call without changing the original.

    It is a copy, wrapped if another library made it. If the flow cannot be copied, the original is
    used, and its state is restored at the end.
    """
    original = original_of(flow)
    try:
        own = _copied(original)
    except Exception:  # tensors with a graph, files, locks, or a class that forbids copies
        own = original
    wrapped = wrap(own, x, context)
    with _restored(wrapped if own is original else None):
        yield wrapped


def _copied(original: object) -> object:
    """Returns a copy, with inference tensors wherever the original has them."""
    state = original.state_dict().values() if isinstance(original, nn.Module) else ()
    with torch.inference_mode(any(isinstance(x, Tensor) and x.is_inference() for x in state)):
        return copy.deepcopy(original, _inverse_transforms(original))


class _Detached(TorchFunctionMode):
    """Lets `copy.deepcopy` copy a tensor that has a graph, without the graph.

    torch refuses to copy such a tensor, and transforms of Pyro keep their last results.
    """

    def __torch_function__(  # noqa: D105
        self,
        func: Callable[..., Any],
        types: Any,  # noqa: ANN401
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401
        if func is Tensor.__deepcopy__ and args[0].grad_fn is not None:
            return args[0].detach().clone()
        return func(*args, **(kwargs or {}))


def _inverse_transforms(original: object) -> dict[int, Any]:
    """Returns copies of the inverted transforms of a distribution by identity.

    A copy of `transform.inv` by torch lacks the transform.
    """
    transforms = getattr(original, "transforms", ()) if isinstance(original, Distribution) else ()
    return {
        id(one): copy.deepcopy(one.inv).inv
        for one in transforms
        if isinstance(one, _InverseTransform)
    }


def original_of(flow: object) -> object:
    """Returns the wrapped object of another library, or the flow itself."""
    return flow.original[0] if isinstance(flow, Wrapped) else flow


def isolated_copy(
    flow: object, x: Tensor, context: Tensor | None, dtype: torch.dtype | None = None
) -> Flow | None:
    """Returns a copy of a flow in evaluation mode, converted to a dtype if one is given.

    Returns None if the flow cannot be copied or converted.
    """
    original = original_of(flow)
    if dtype is not None and not isinstance(original, nn.Module | Distribution):
        return None
    try:
        with _Detached():
            own = _copied(original)
        if dtype is not None:
            own = _converted(own, dtype)
            x, context = x.to(dtype), None if context is None else context.to(dtype)
        return wrap(own, x, context).eval()
    except Exception:  # the flow cannot be copied (see above) or converted
        return None


def _converted(one: Any, dtype: torch.dtype) -> Any:  # noqa: ANN401
    """Returns a module, a distribution or a part of one after converting it in place."""
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
def _restored(module: nn.Module | None) -> Iterator[None]:
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
