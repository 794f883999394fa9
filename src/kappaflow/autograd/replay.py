"""Repeating a call exactly: its precision, its random numbers and its buffers."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import get_device_states, set_device_states


def has_autocast(kind: str) -> bool:
    """Returns whether autocast is on for a device type; torch has none for "meta"."""
    return kind != "meta" and torch.is_autocast_enabled(kind)


def without_autocast(kind: str) -> AbstractContextManager:
    """Returns a context in which autocast is off for a device type.

    Where it already is off, the context does nothing: torch 2.6 cannot load an exported file with
    a context of autocast.
    """
    return torch.autocast(kind, enabled=False) if has_autocast(kind) else nullcontext()


class Precision:
    """The autocast settings of a device at the time of construction."""

    def __init__(self, device: torch.device) -> None:
        self._kind = kind = device.type
        self._settings: dict[str, Any] = {}
        if torch.amp.is_autocast_available(kind):  # pyright: ignore[reportPrivateImportUsage]
            self._settings = {
                "device_type": kind,
                "dtype": torch.get_autocast_dtype(kind),
                "enabled": torch.is_autocast_enabled(kind),
                "cache_enabled": False,  # weights cached without gradients have no graph
            }

    @property
    def rounds(self) -> bool:
        """Whether autocast is on.

        Conditioners then round only if gradients are enabled. A call that must return the same
        numbers also enables gradients, and discards its graph.
        """
        return self._settings.get("enabled", False)

    def again(self) -> AbstractContextManager[Any]:
        """Returns a context that restores the settings."""
        if self.rounds or (self._settings and torch.is_autocast_enabled(self._kind)):
            return torch.autocast(**self._settings)
        return nullcontext()


class Replay:
    """A context that repeats a call of a module exactly. Create it before the call.

    Inside, random numbers are the same as in the call, and buffers that the call changed, such as
    batch statistics or the vectors of a spectral norm, have their earlier values. On exit
    generators and buffers are restored. A data-dependent initialization (the call set a flag or
    a parameter) is not repeated.
    """

    def __init__(self, owners: Iterable[nn.Module], x: Tensor) -> None:
        self._device = x.device
        self._random: _Random | None = _random_state(self._device)
        self._buffers = [_Before(owner) for owner in owners]
        self._undo: list[tuple[_Random | None, list[tuple[nn.Module, str, Tensor]]]] = []

    def called(self) -> "Replay":
        """Returns self, after freeing the state that did not change; use it after the call."""
        if self._random is not None and _same(self._random, _random_state(self._device)):
            self._random = None
        same = iter(_equal([pair for before in self._buffers for pair in before.pairs()]))
        self._buffers = [kept for before in self._buffers for kept in before.changed(same)]
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
    """The buffers of one module before a call."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        named = {name: b for name, b in module._buffers.items() if b is not None}
        self.before = {name: buffer.detach().clone() for name, buffer in named.items()}
        self._marks = {name: (buffer, buffer._version) for name, buffer in named.items()}
        self._versions = self._versions_now()

    def pairs(self) -> list[tuple[Tensor, Tensor | None]]:
        """Returns each buffer before the call and now.

        Layers of kappaflow change buffers only by operations that count versions, so that no
        numbers need to be read. Other modules also change them behind autograd's back.
        """
        counts = type(self.module).__module__.startswith("kappaflow.")
        return [
            (before, before if counts and self._is_untouched(name) else self.module._buffers[name])
            for name, before in self.before.items()
        ]

    def _is_untouched(self, name: str) -> bool:
        buffer, version = self._marks[name]
        return self.module._buffers[name] is buffer and buffer._version == version

    def changed(self, same: Iterator[bool]) -> "Iterator[_Before]":
        """Yields self with only the changed buffers; nothing if the call was an initialization.

        `same` tells whether the next buffers are as before.
        """
        names = [name for name in self.before if not next(same)]
        started = self._versions != self._versions_now() or any(
            self.before[name].dim() == 0 and self.before[name].dtype != torch.long
            for name in names
        )
        if names and not started:
            self.before = {name: self.before[name] for name in names}
            yield self

    def put_back(self) -> list[tuple[nn.Module, str, Tensor]]:
        """Returns the current buffers, after putting copies of the earlier ones in place."""
        live = []
        for name, buffer in self.before.items():
            live.append((self.module, name, self.module._buffers[name]))
            self.module._buffers[name] = buffer.clone()
        return live

    def _versions_now(self) -> list[int]:
        return [p._version for p in self.module._parameters.values() if p is not None]


def _equal(pairs: Sequence[tuple[Tensor, Tensor | None]]) -> list[bool]:
    """Returns whether the tensors of each pair are equal; waits for a GPU only once."""
    equal = [
        True if now is before else now is not None and _equal_on_device(before, now)
        for before, now in pairs
    ]
    unread = [value for value in equal if isinstance(value, Tensor)]
    read = iter(torch.stack(unread).tolist() if unread else ())
    return [next(read) if isinstance(value, Tensor) else value for value in equal]


def _equal_on_device(before: Tensor, now: Tensor) -> bool | Tensor:
    """Returns whether two tensors are equal, for a GPU as a tensor that is not read yet."""
    if now.device.type == "cpu" or now.shape != before.shape:
        return torch.equal(before, now)
    return (before == now).all()


def owners_of(module: nn.Module) -> list[nn.Module]:
    """Returns the submodules whose buffers a call may change: those in training mode."""
    return [part for part in module.modules() if part.training and part._buffers]


_Random = tuple[Tensor, tuple[Any, Any] | None]


def _random_state(device: torch.device) -> _Random:
    """Returns the states of the generators that a call on this device may use."""
    on_device = None if device.type == "cpu" else get_device_states(torch.empty(0, device=device))
    return torch.get_rng_state(), on_device


def _set_random_state(random: _Random, device: torch.device) -> None:
    torch.set_rng_state(random[0])
    if random[1] is not None:
        set_device_states(*random[1], device_type=device.type)


def _same(first: _Random, other: _Random) -> bool:
    states = ((state[0], *(state[1][1] if state[1] else ())) for state in (first, other))
    return all(torch.equal(a, b) for a, b in zip(*states, strict=True))
