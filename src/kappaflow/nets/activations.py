"""Activations of fully connected networks, by name, function, class or module."""

from collections.abc import Callable
from functools import partial
from typing import Any, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kappaflow._checks import finite_float, one_of
from kappaflow.errors import ArgumentError
from kappaflow.options import ActivationName

Activation = Callable[[Tensor], Tensor]
AnyActivation = ActivationName | nn.Module | type[nn.Module] | Activation

ACTIVATIONS: tuple[str, ...] = get_args(ActivationName)
# Function, with the default arguments of torch, and module of each.
_KNOWN: dict[str, tuple[Activation, type[nn.Module]]] = {
    "relu": (torch.relu, nn.ReLU),
    "leaky_relu": (F.leaky_relu, nn.LeakyReLU),
    "elu": (F.elu, nn.ELU),
    "selu": (F.selu, nn.SELU),
    "gelu": (F.gelu, nn.GELU),
    "silu": (F.silu, nn.SiLU),
    "mish": (F.mish, nn.Mish),
    "softplus": (F.softplus, nn.Softplus),
    "tanh": (torch.tanh, nn.Tanh),
    "sigmoid": (torch.sigmoid, nn.Sigmoid),
}
MODULES = {module: name for name, (_, module) in _KNOWN.items()}
FUNCTIONS: dict[Any, str] = {function: name for name, (function, _) in _KNOWN.items()}
FUNCTIONS |= {F.relu: "relu", F.tanh: "tanh", F.sigmoid: "sigmoid"}


def activation_of(name: str, slope: float) -> Activation:
    """Returns an activation function by its name; `slope` is that of "leaky_relu" below zero."""
    function = _KNOWN[one_of("activation", name, ACTIVATIONS)][0]
    slope = finite_float("slope", slope)
    return partial(F.leaky_relu, negative_slope=slope) if name == "leaky_relu" else function


def has_default_arguments(module: nn.Module) -> bool:
    """Returns whether a module of `MODULES` has the default arguments of torch."""
    raw = torch.linspace(-32, 32, 257, dtype=torch.float64)
    return torch.equal(module(raw), _KNOWN[MODULES[type(module)]][0](raw))


def named_activation(value: object) -> str | nn.Module:
    """Returns the name of an activation, or the module itself if it has none."""
    if isinstance(value, str):
        return one_of("activation", value, ACTIVATIONS)
    if isinstance(value, type) and issubclass(value, nn.Module):
        value = value()
    if isinstance(value, nn.Module):
        is_named = type(value) in MODULES and has_default_arguments(value)
        return MODULES[type(value)] if is_named else value
    if callable(value) and value in FUNCTIONS:
        return FUNCTIONS[value]
    raise ArgumentError(
        f"'activation' should be {', '.join(map(repr, ACTIVATIONS))} or a torch.nn.Module, got "
        f"{getattr(value, '__name__', repr(value))}."
    )
