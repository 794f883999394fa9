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
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.utils.checkpoint import checkpoint, get_device_states, set_device_states

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


def is_transformed() -> bool:
    """Returns whether calls are of dual numbers, or in a transform of `torch.func`.

    These know nothing of a backward pass that is written by hand, or runs a layer again.
    """
    return forward_ad._current_level >= 0 or torch._C._are_functorch_transforms_active()


def runs_plainly() -> bool:
    """Returns whether calls are plain autograd's at this moment, whatever the mode."""
    return _bypassed.get() or not torch.is_grad_enabled() or is_transformed()


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
    if memory == "store" or runs_plainly() or (module is not None and _borrows(module)):
        return function(*inputs)
    if module is None or not _owners(module):
        return checkpoint(function, *inputs, use_reentrant=False)
    replay = Replay(module, inputs[0])
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


class Replay:
    """A context in which a call of a module can be repeated, made before that call.

    In it random numbers are drawn as they were drawn then, and buffers that the call changed, like
    the statistics of batches or the vectors of a spectral norm, begin as they did then. Outside
    nothing has changed: a repetition moves no generator, and counts no batch again. A start from
    data (a flag or a parameter that the call has set) is not repeated: what it set is there.

    Args:
        module: What the call draws on; only its parts in training mode can change.
        x: A tensor on the device of the call.
    """

    def __init__(self, module: nn.Module, x: Tensor) -> None:
        self._device = x.device
        self._random: _Random | None = _random_state(self._device)
        self._buffers = [_Before(owner) for owner in _owners(module)]
        self._undo: list[tuple[_Random | None, list[tuple[nn.Module, str, Tensor]]]] = []

    def called(self) -> "Replay":
        """Returns this, now that the call is over: what it left alone need not be kept."""
        if self._random is not None and _same(self._random, _random_state(self._device)):
            self._random = None
        self._buffers = [kept for before in self._buffers for kept in before.changed()]
        return self

    def __enter__(self) -> "Replay":
        random = None if self._random is None else _random_state(self._device)
        live: list[tuple[nn.Module, str, Tensor]] = []
        for before in self._buffers:
            live += before.put_back()
        self._undo.append((random, live))
        if self._random is not None:
            _set_random_state(self._random, self._device)
        return self

    def __exit__(self, *_: object) -> None:
        random, live = self._undo.pop()
        for module, name, buffer in live:
            module._buffers[name] = buffer
        if random is not None:
            _set_random_state(random, self._device)


class _Before:
    """The buffers of one module as they were before a call."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        named = {name: b for name, b in module._buffers.items() if b is not None}
        self.before = {name: buffer.detach().clone() for name, buffer in named.items()}
        self._versions = self._versions_now()

    def changed(self) -> "Iterator[_Before]":
        """Yields this with the buffers that have changed, if any have and it was no start."""
        names = [name for name in self.before if not self._is_as_before(name)]
        started = self._versions != self._versions_now() or any(
            self.before[name].dim() == 0 and self.before[name].dtype != torch.long
            for name in names
        )
        if names and not started:
            self.before = {name: self.before[name] for name in names}
            yield self

    def put_back(self) -> list[tuple[nn.Module, str, Tensor]]:
        """Returns the live buffers, having put copies in their place of how they were before."""
        live = []
        for name, buffer in self.before.items():
            live.append((self.module, name, self.module._buffers[name]))
            self.module._buffers[name] = buffer.clone()
        return live

    def _versions_now(self) -> list[int]:
        return [p._version for p in self.module._parameters.values() if p is not None]

    def _is_as_before(self, name: str) -> bool:
        now = self.module._buffers[name]
        return now is not None and torch.equal(self.before[name], now)


def _owners(module: nn.Module) -> list[nn.Module]:
    """Returns the parts whose buffers a call may change."""
    return [part for part in module.modules() if part.training and part._buffers]


def _borrows(module: nn.Module) -> bool:
    """Returns whether other tensors stand in place of parameters."""
    return not all(isinstance(p, nn.Parameter) for p in module.parameters())


_Random = tuple[Tensor, tuple[Any, Any] | None]


def _random_state(device: torch.device) -> _Random:
    """Returns the states of the generators that a call on this device may draw from."""
    on_device = None if device.type == "cpu" else get_device_states(torch.empty(0, device=device))
    return torch.get_rng_state(), on_device


def _set_random_state(random: _Random, device: torch.device) -> None:
    torch.set_rng_state(random[0])
    if random[1] is not None:
        set_device_states(*random[1], device_type=device.type)


def _same(one: _Random, other: _Random) -> bool:
    states = ((state[0], *(state[1][1] if state[1] else ())) for state in (one, other))
    return all(torch.equal(a, b) for a, b in zip(*states, strict=True))
