"""Memory modes: what a layer keeps for its backward pass.

`store` keeps every activation, as plain autograd does. `recompute` keeps the layer's inputs and
runs the layer again in the backward pass: the same gradients, bit for bit, for a fraction of the
memory.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch.utils.checkpoint import checkpoint

MEMORY_MODES = ("recompute", "store")

_bypassed: ContextVar[bool] = ContextVar("kappaflow_memory_bypassed", default=False)


@contextmanager
def memory_modes_bypassed() -> Iterator[None]:
    """Runs layers as plain autograd, whatever their mode: for forward-mode, higher derivatives."""
    token = _bypassed.set(True)
    try:
        yield
    finally:
        _bypassed.reset(token)


def run_layer(memory: str, function: Callable[..., Any], *inputs: Any) -> Any:  # noqa: ANN401
    """Returns `function(*inputs)`, keeping for the backward pass what the mode says."""
    if memory == "store" or _bypassed.get() or not torch.is_grad_enabled():
        return function(*inputs)
    return checkpoint(function, *inputs, use_reentrant=False)
