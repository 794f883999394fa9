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
from torch.utils._pytree import tree_leaves

from kappaflow.conditioning.points import measuring
from kappaflow.conditioning.round_trip import latent_points
from kappaflow.errors import one_line
from kappaflow.flows import Flow
from kappaflow.foreign import Wrapped, wrap


@contextmanager
def isolated(flow: object, x: Tensor | None, context: Tensor | None) -> Iterator[Flow]:
    """Yields a flow that the doctor may call without changing the original.

    It is a copy, wrapped if another library made it. If no copy works, the original is used, and
    its state is restored at the end.
    """
    original = original_of(flow)
    own = original if why_no_copy(original, x, context) else _copied(original)
    wrapped = wrap(own, x, context)
    with _restored(wrapped if own is original else None):
        yield wrapped


def _copied(original: object) -> object:
    """Returns a copy, with inference tensors wherever the original has them."""
    state = original.state_dict().values() if isinstance(original, nn.Module) else ()
    inference = any(isinstance(x, Tensor) and x.is_inference() for x in state)
    with torch.inference_mode(inference), _Detached():
        return copy.deepcopy(original, _inverse_transforms(original))


def why_no_copy(
    flow: object, x: Tensor | None, context: Tensor | None, dtype: torch.dtype | None = None
) -> str:
    """Returns why a copy of a flow, in a dtype if one is given, does not work, or "" if it does.

    A copy may still call the original, through a function that refers to it, and one in another
    dtype may keep tensors of the first dtype. A copy for a trial shows both.
    """
    original = original_of(flow)
    try:
        own, *rows = _copy(original, x, context, dtype)
    except Exception as error:  # files, locks, or a class that forbids copies
        return f"copying it raises {one_line(error)}"
    with _Watching(original) as watching:
        error = _first_error(own, *rows)
    if watching.used:
        return "a copy still uses the parameters of the original"
    if error is None or dtype is None or _first_error(wrap(original, x, context), x, context):
        return ""  # the flow itself raises the same error
    return f"a copy in {str(dtype).removeprefix('torch.')} raises {one_line(error)}"


def _first_error(flow: Flow, x: Tensor | None, context: Tensor | None) -> Exception | None:
    """Returns the error of a call of a flow at two rows, in each direction, or None."""
    try:
        few_contexts = None if context is None else context[:2].to(flow.dtype)
        with torch.random.fork_rng(devices=[]), measuring(flow):
            if x is None or x.shape[1:] != flow.joint_shape:
                x = flow.bijection.inverse(latent_points(flow, 2, few_contexts), few_contexts)[0]
            z = flow.bijection(x[:2].to(flow.dtype), few_contexts)[0]
            flow.bijection.inverse(z, few_contexts)
    except Exception as error:
        return error
    return None


class _Watching(TorchFunctionMode):
    """Notices whether torch computes with the parameters or buffers of a flow."""

    def __init__(self, original: object) -> None:
        super().__init__()
        modules = [original, *getattr(original, "transforms", ())]
        modules = [module for module in modules if isinstance(module, nn.Module)]
        self.state = {
            id(value): value  # kept, so that no other tensor gets the same id
            for module in modules
            for value in (*module.parameters(), *module.buffers())
        }
        self.used = False

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        self.used = self.used or any(
            id(leaf) in self.state for leaf in tree_leaves((args, kwargs))
        )
        return func(*args, **kwargs)


class _Detached(TorchFunctionMode):
    """Lets `copy.deepcopy` copy a tensor that has a graph, without the graph.

    torch refuses to copy such a tensor, and transforms of Pyro keep their last results.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        if func is Tensor.__deepcopy__ and args[0].grad_fn is not None:
            return args[0].detach().clone()
        return func(*args, **(kwargs or {}))


def _inverse_transforms(original: object) -> dict[int, Any]:
    """Returns copies of inverted transforms by identity; a copy by torch lacks the transform."""
    transforms = getattr(original, "transforms", ()) if isinstance(original, Distribution) else ()
    return {
        id(transform): copy.deepcopy(transform.inv).inv
        for transform in transforms
        if isinstance(transform, _InverseTransform)
    }


def original_of(flow: object) -> object:
    """Returns the wrapped object of another library, or the flow itself."""
    return flow.original[0] if isinstance(flow, Wrapped) else flow


def isolated_copy(
    flow: object, x: Tensor | None, context: Tensor | None, dtype: torch.dtype | None = None
) -> Flow | None:
    """Returns a copy in evaluation mode, in a dtype if one is given; None if none works."""
    original = original_of(flow)
    if dtype is not None and not isinstance(original, nn.Module | Distribution):
        return None
    try:
        return _copy(original, x, context, dtype)[0]
    except Exception:  # files, locks, or a class that forbids copies
        return None


def _copy(
    original: object, x: Tensor | None, context: Tensor | None, dtype: torch.dtype | None
) -> tuple[Flow, Tensor | None, Tensor | None]:
    """Returns a copy in evaluation mode, with rows and contexts of its dtype."""
    own = _copied(original)
    if dtype is not None:
        own = _converted(own, dtype)
        x, context = (None if tensor is None else tensor.to(dtype) for tensor in (x, context))
    return wrap(own, x, context).eval(), x, context


def _converted(component: Any, dtype: torch.dtype) -> Any:
    """Returns a module, a distribution or a component of one after converting it in place."""
    if isinstance(component, nn.Module):
        return component.train().to(dtype)  # a flow clears its caches in training mode
    if isinstance(component, Tensor):
        return component.to(dtype) if component.is_floating_point() else component
    if isinstance(component, list):
        return [_converted(part, dtype) for part in component]
    if isinstance(component, Distribution | Transform):
        for name, value in vars(component).items():
            vars(component)[name] = _converted(value, dtype)
    return component


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
