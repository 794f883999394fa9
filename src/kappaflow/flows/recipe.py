"""`recipe`: what all recipes share, which are functions that return a flow."""

import functools
import inspect
from collections.abc import Callable
from inspect import Parameter
from typing import Any, ParamSpec

import torch

from kappaflow.errors import ArgumentError
from kappaflow.flows.flow import Flow
from kappaflow.flows.standardization import refuse_circles
from kappaflow.names import ARGUMENTS, did_you_mean
from kappaflow.nets.activations import named_activation
from kappaflow.registry import register

P = ParamSpec("P")


def recipe(name: str) -> Callable[[Callable[P, Flow]], Callable[P, Flow]]:
    """Returns a decorator that registers a recipe, and converts its flow to `dtype`.

    A model file holds its dtype elsewhere, so the arguments that describe the flow have none, and
    activations of torch have names there. An unknown argument is an error that names the one that
    is meant. Circular columns are refused by all recipes but `spline`; files of earlier versions
    may have them.
    """

    def decorate(function: Callable[P, Flow]) -> Callable[P, Flow]:
        signature = inspect.signature(function)
        known = [
            parameter
            for parameter in signature.parameters.values()
            if parameter.kind is not parameter.VAR_KEYWORD
        ]
        any_option = len(known) < len(signature.parameters)

        @functools.wraps(function)
        def without_dtype(*args: Any, **kwargs: Any) -> Flow:  # noqa: ANN401
            return function(*args, **kwargs)

        rest = [
            parameter for parameter in signature.parameters.values() if parameter.name != "dtype"
        ]
        without_dtype.__signature__ = signature.replace(parameters=rest)  # pyright: ignore[reportAttributeAccessIssue]
        recorded = register(name)(without_dtype)

        @functools.wraps(function)
        def make(*args: P.args, **kwargs: P.kwargs) -> Flow:
            dtype = kwargs.pop("dtype", None)
            _check_names(name, kwargs, known, any_option=any_option)
            bounds: Any = kwargs.get("bounds")
            if isinstance(bounds, list | tuple):
                refuse_circles(name, bounds)
            if kwargs.get("activation") is not None:
                kwargs["activation"] = named_activation(kwargs["activation"])
            if dtype is None:
                return recorded(*args, **kwargs)
            if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
                raise ArgumentError(
                    "'dtype' should be a floating-point type such as torch.float64, got "
                    f"{dtype!r}."
                )
            return recorded(*args, **kwargs).to(dtype)

        return make

    return decorate


def _check_names(
    recipe_name: str, arguments: dict[str, Any], known: list[Parameter], *, any_option: bool
) -> None:
    """Raises an error for an argument that a recipe does not have."""
    names = [parameter.name for parameter in known]
    for name in arguments.keys() - set(names):
        hint = did_you_mean(name, names, ARGUMENTS)
        foreign = any(name in listed.split() for listed in ARGUMENTS.values())
        if not any_option or (hint and foreign):
            hint = hint or f"; there are {', '.join(names)}."
            raise ArgumentError(f"'{name}' is not an argument of {recipe_name}{hint}")
