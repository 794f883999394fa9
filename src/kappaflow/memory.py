"""Memory modes: what is kept for the backward pass.

`store` keeps every activation, as plain autograd does. `recompute` keeps the layer's inputs and
runs the layer again in the backward pass: the same gradients, bit for bit, for a fraction of the
memory. `invert`, which a chain of layers has, keeps no inputs either: `kappaflow.reversible`.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from typing import Any

import torch
from torch import nn
from torch.autograd import forward_ad
from torch.utils.checkpoint import (
    CheckpointPolicy,
    checkpoint,
    create_selective_checkpoint_contexts,
)

from kappaflow.replay import Replay, owners_of

LAYER_MODES = ("recompute", "store")
MEMORY_MODES = (*LAYER_MODES, "invert")

_bypassed: ContextVar[bool] = ContextVar("kappaflow_memory_bypassed", default=False)


@contextmanager
def memory_modes_bypassed() -> Iterator[None]:
    """Runs layers as plain autograd, whatever their mode: for forward-mode, higher derivatives."""
    token = _bypassed.set(True)
    try:
        yield
    finally:
        _bypassed.reset(token)


def modes_bypassed() -> bool:
    """Returns whether layers run as plain autograd at this moment, by `memory_modes_bypassed`."""
    return _bypassed.get()


def is_transformed() -> bool:
    """Returns whether calls are of dual numbers, or in a transform of `torch.func`.

    These know nothing of a backward pass that is written by hand, or runs a layer again.
    """
    return forward_ad._current_level >= 0 or torch._C._are_functorch_transforms_active()


def runs_plainly() -> bool:
    """Returns whether calls are plain autograd's at this moment, whatever the mode."""
    if torch.compiler.is_compiling():  # it cannot follow the variable below
        return True
    return _bypassed.get() or not torch.is_grad_enabled() or is_transformed()


def as_it_is(function: Callable[..., Any], *arguments: Any) -> Any:  # noqa: ANN401
    """Returns what a function returns, which a compiler of its caller leaves alone."""
    if torch.compiler.is_compiling():
        from kappaflow.uncompiled import call

        return call(function, *arguments)
    return function(*arguments)


def run_layer(
    memory: str,
    function: Callable[..., Any],
    *inputs: Any,  # noqa: ANN401
    module: nn.Module | None = None,
) -> Any:  # noqa: ANN401
    """Returns `function(*inputs)`, keeping for the backward pass what the mode says.

    Args:
        memory: One of `LAYER_MODES`.
        function: The layer.
        *inputs: Its arguments, the first one a tensor.
        module: What the function draws on. Batch statistics in it are not counted again when it
            runs again; and where `torch.func.functional_call` has put other tensors in place of
            its parameters, which are gone by the time of the backward pass, it is stored.

    Returns:
        What the function returns.
    """
    if torch.compiler.is_compiling() and memory == "recompute":
        return checkpoint(function, *inputs, use_reentrant=False, context_fn=_but_what_is_drawn)
    if memory == "store" or runs_plainly() or (module is not None and _borrows(module)):
        return function(*inputs)
    owners = [] if module is None else owners_of(module)
    if not owners:
        return checkpoint(function, *inputs, use_reentrant=False)
    replay = Replay(owners, inputs[0])
    contexts = (nullcontext(), replay)
    result = checkpoint(
        function,
        *inputs,
        use_reentrant=False,
        preserve_rng_state=False,
        context_fn=lambda: contexts,
    )
    replay.called()
    return result


def _but_what_is_drawn() -> tuple[Any, Any]:
    """Returns the contexts in which a compiler runs a layer, and again but for random numbers.

    It would draw them in another order, which is that of no step without it.
    """
    return create_selective_checkpoint_contexts(_policy)


def _policy(_: object, operation: Any, *__: object, **___: object) -> CheckpointPolicy:  # noqa: ANN401
    if torch.Tag.nondeterministic_seeded in operation.tags:
        return CheckpointPolicy.MUST_SAVE
    return CheckpointPolicy.PREFER_RECOMPUTE


def _borrows(module: nn.Module) -> bool:
    """Returns whether other tensors stand in place of parameters."""
    return not all(isinstance(p, nn.Parameter) for p in module.parameters())
