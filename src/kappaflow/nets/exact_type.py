"""Tests whether a module is exactly of a class, so that its weights determine what it computes."""

import functools
from inspect import isfunction
from typing import TypeGuard, TypeVar

from torch import nn

M = TypeVar("M", bound=nn.Module)


def is_exactly(module: nn.Module, kind: type[M]) -> TypeGuard[M]:
    """Returns whether a module is of this class, not a subclass, with no replaced method."""
    return type(module) is kind and _functions_of(kind).isdisjoint(vars(module))


def is_exact(module: nn.Module, kind: type[M]) -> TypeGuard[M]:
    """Returns whether a module is exactly of this class and has no hooks."""
    return is_exactly(module, kind) and not has_hooks(module)


def has_hooks(module: nn.Module) -> bool:
    """Returns whether a module has forward or backward hooks."""
    hooks = module._forward_hooks, module._forward_pre_hooks, module._backward_hooks
    return any(hooks) or bool(module._backward_pre_hooks)


@functools.lru_cache(maxsize=64)
def _functions_of(kind: type[nn.Module]) -> frozenset[str]:
    return frozenset(name for name in dir(kind) if isfunction(getattr(kind, name)))
