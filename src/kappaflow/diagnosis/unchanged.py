"""What is examined stays as it is: a copy of it is, or what it held is put back."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from kappaflow.adapters import Wrapped, wrap
from kappaflow.flows import Flow


@contextmanager
def to_examine(flow: object, x: Tensor | None, context: Tensor | None) -> Iterator[Flow]:
    """Yields a flow to examine in place of one.

    Ours change no state when they are called. Of one from another library it is a wrapped copy, or
    where it cannot be copied the flow itself, whose state is put back in the end.

    Args:
        flow: As `kappaflow.wrap` takes it, or as it returns it.
        x: As for `kappaflow.wrap`.
        context: As for `kappaflow.wrap`.

    Yields:
        The flow.
    """
    original = flow.original[0] if isinstance(flow, Wrapped) else flow
    if isinstance(original, Flow):
        yield original
        return
    try:
        own = copy.deepcopy(original)
    except Exception:  # tensors with a graph, files, locks, or what its authors forbid
        own = original
    wrapped = wrap(own, x, context)
    with _put_back(wrapped if own is original else None):
        yield wrapped


@contextmanager
def _put_back(module: nn.Module | None) -> Iterator[None]:
    if module is None:
        yield
        return
    before = {name: value.detach().clone() for name, value in module.state_dict().items()}
    try:
        yield
    finally:
        with torch.no_grad():
            for name, value in module.state_dict().items():
                value.copy_(before[name])
