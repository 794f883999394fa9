"""Memory modes, which select what a chain or a stack stores for the backward pass.

`store` keeps every activation, as plain autograd does. `recompute` keeps some of the states
between layers and runs the layers again in the backward pass, which gives bit-identical gradients
for a fraction of the memory. `invert` recovers states from the output; see `reversible`.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from typing import Any, get_args

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor
from torch.autograd import forward_ad
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.checkpoint import (
    CheckpointPolicy,
    checkpoint,
    create_selective_checkpoint_contexts,
)

from kappaflow.autograd.replay import Replay, owners_of
from kappaflow.options import LayerMemory, Memory

LAYER_MODES: tuple[LayerMemory, ...] = get_args(LayerMemory)
MEMORY_MODES: tuple[Memory, ...] = get_args(Memory)

_bypassed: ContextVar[bool] = ContextVar("kappaflow_memory_bypassed", default=False)


@contextmanager
def memory_modes_bypassed() -> Iterator[None]:
    """Runs layers with plain autograd in any mode, for forward mode and higher derivatives."""
    token = _bypassed.set(True)
    try:
        yield
    finally:
        _bypassed.reset(token)


@contextmanager
def twice_differentiable() -> Iterator[None]:
    """Bypasses memory modes, and computes attention by operations that have all derivatives.

    Fused kernels of attention, also those of `nn.TransformerEncoderLayer` in evaluation mode, have
    neither forward mode nor second derivatives.
    """
    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with memory_modes_bypassed(), sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)


def modes_bypassed() -> bool:
    """Returns whether `memory_modes_bypassed` is active."""
    return _bypassed.get()


def is_transformed() -> bool:
    """Returns whether forward-mode AD or a transform of `torch.func` is active.

    They support neither handwritten backward passes nor recomputation.
    """
    return forward_ad._current_level >= 0 or torch._C._are_functorch_transforms_active()


def is_traced(x: Tensor) -> bool:
    """Returns whether `torch.export` or `torch.jit.trace` records operations on x.

    Both record operations of torch only, and x has no data that native code could read.
    """
    is_tracing = torch.jit.is_tracing()  # pyright: ignore[reportPrivateImportUsage]
    return is_tracing or isinstance(x, FakeTensor)


def uses_plain_autograd() -> bool:
    """Returns whether layers currently run with plain autograd, in any memory mode."""
    if torch.compiler.is_compiling():  # it cannot trace context variables
        return True
    return _bypassed.get() or not torch.is_grad_enabled() or is_transformed()


def call_eagerly(function: Callable[..., Any], *arguments: Any) -> Any:
    """Returns the result of a function call that `torch.compile` does not trace."""
    if torch.compiler.is_compiling():
        from kappaflow.autograd.uncompiled import call

        return call(function, *arguments)
    return function(*arguments)


def rerun_later(
    function: Callable[..., Any], *inputs: Any, module: nn.Module | None = None
) -> Any:
    """Returns `function(*inputs)`, storing its inputs only; the backward pass runs it again."""
    if torch.compiler.is_compiling():
        return checkpoint(function, *inputs, use_reentrant=False, context_fn=_save_random_numbers)
    if module is not None and _is_functional(module):
        return function(*inputs)
    replay = Replay([] if module is None else owners_of(module), inputs[0])
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


def _save_random_numbers() -> tuple[Any, Any]:
    """Returns contexts with which a compiler recomputes everything except random numbers.

    The compiler would draw them in an order that differs from that of uncompiled steps.
    """
    return create_selective_checkpoint_contexts(_policy)


def _policy(_: object, operation: Any, *__: object, **___: object) -> CheckpointPolicy:
    if torch.Tag.nondeterministic_seeded in operation.tags:
        return CheckpointPolicy.MUST_SAVE
    return CheckpointPolicy.PREFER_RECOMPUTE


def _is_functional(module: nn.Module) -> bool:
    """Returns whether other tensors have replaced the module's parameters."""
    return not all(isinstance(p, nn.Parameter) for p in module.parameters())
