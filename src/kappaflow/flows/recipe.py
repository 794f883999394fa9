"""`recipe`: what all recipes share, which are functions that return a flow.

A recipe takes its rarer options in groups, such as `NetworkOptions`. Model files, runs and the
command line hold all options of a recipe side by side, by their names: `from_options` makes a flow
from these.
"""

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from inspect import Parameter, Signature
from typing import Any, ParamSpec, TypeVar, get_type_hints

import torch

from kappaflow.domains import Bound, intervals
from kappaflow.errors import ArgumentError
from kappaflow.flows.flow import Flow
from kappaflow.names import ARGUMENTS, did_you_mean
from kappaflow.nets.activations import named_activation
from kappaflow.options import OptionGroup
from kappaflow.registry import made_by, register, remake, take_description

P = ParamSpec("P")
G = TypeVar("G", bound=OptionGroup)
Options = Mapping[str, Any]


def recipe(name: str) -> Callable[[Callable[P, Flow]], Callable[P, Flow]]:
    """Returns a decorator that registers a recipe under a name, with all its options by name."""

    def decorate(function: Callable[P, Flow]) -> Callable[P, Flow]:
        @functools.wraps(function)
        def by_name(*args: Any, **options: Any) -> Flow:
            return from_options(function, *args, **options)

        by_name.__signature__ = flat_signature(function)  # pyright: ignore
        recorded = register(name)(by_name)

        @functools.wraps(function)
        def make(*args: P.args, **kwargs: P.kwargs) -> Flow:
            _check_names(name, function, kwargs)
            options = _by_name(function, kwargs)
            if options.get("activation") is not None:
                options["activation"] = named_activation(options["activation"])
            return recorded(*args, **options)

        return make

    return decorate


def from_options(recipe: Callable[..., Flow], *args: Any, **options: Any) -> Flow:
    """Returns the flow of a recipe whose options stand side by side, as in files."""
    for name, default in _groups(recipe).items():
        group = as_group(type(default), name, options.pop(name, default))
        named = {key: options.pop(key) for key in vars(default) if key in options}
        options[name] = replace(group, **named)  # pyright: ignore[reportArgumentType]
    return recipe(*args, **options)


def as_group(kind: type[G], name: str, value: object) -> G:
    """Returns the value of an argument as a group of options."""
    names = [field.name for field in fields(kind)]  # pyright: ignore[reportArgumentType]
    if isinstance(value, kind):
        return value
    if name in names and isinstance(value, str):
        return kind(**{name: value})
    if not isinstance(value, Mapping):
        raise ArgumentError(
            f"'{name}' should be {kind.__name__} or a dict of its options, got {value!r}."
        )
    for option in value:
        if option not in names:
            hint = did_you_mean(option, names, ARGUMENTS) or f"; there are {', '.join(names)}."
            raise ArgumentError(f"'{option}' is not an option of '{name}'{hint}")
    return kind(**value)


def flat_signature(recipe: Callable[..., Any]) -> Signature:
    """Returns the signature of a recipe with the options of its groups side by side."""
    signature, groups = inspect.signature(recipe), _groups(recipe)
    parameters: list[Parameter] = []
    for name, parameter in signature.parameters.items():
        if name not in groups:
            parameters.append(parameter)
            continue
        hints = get_type_hints(type(groups[name]))
        parameters += [
            parameter.replace(name=option, default=default, annotation=hints[option])
            for option, default in vars(groups[name]).items()
        ]
    return signature.replace(parameters=parameters)


def _groups(recipe: Callable[..., Any]) -> dict[str, OptionGroup]:
    """Returns the default of each argument that is a group of options, by name."""
    parameters = inspect.signature(recipe).parameters
    defaults = {name: parameter.default for name, parameter in parameters.items()}
    return {name: value for name, value in defaults.items() if isinstance(value, OptionGroup)}


def _by_name(recipe: Callable[..., Any], arguments: Options) -> dict[str, Any]:
    """Returns the arguments of a recipe with the options of its groups side by side."""
    groups, options = _groups(recipe), {}
    for name, value in arguments.items():
        if name in groups:
            options |= vars(as_group(type(groups[name]), name, value))
        else:
            options[name] = value
    return options


def _check_names(recipe_name: str, recipe: Callable[..., Any], arguments: Options) -> None:
    """Raises an error for an argument that a recipe does not have, which says where it is."""
    parameters, known = inspect.signature(recipe).parameters, flat_signature(recipe).parameters
    is_open = any(parameter.kind is parameter.VAR_KEYWORD for parameter in known.values())
    for name in [name for name in arguments if name not in parameters]:
        for group, options in _groups(recipe).items():
            if name in vars(options):
                raise ArgumentError(
                    f"'{name}' is an option of '{group}': {recipe_name}(..., {group}="
                    f"{{{name!r}: {arguments[name]!r}}})."
                )
        hint = did_you_mean(name, [*parameters, *known], ARGUMENTS)
        is_foreign = any(name in names.split() for names in ARGUMENTS.values())
        if not is_open or (hint and is_foreign):
            hint = hint or f"; there are {', '.join(parameters)}."
            raise ArgumentError(f"'{name}' is not an argument of {recipe_name}{hint}")


def set_bounds(flow: Flow, bounds: Sequence[Bound], *, seed: int = 0) -> None:
    """Sets bounds on a flow in place: its recipe builds it again, with new initial weights.

    A flow that already has these bounds is unchanged. An embedding keeps its weights.

    Args:
        flow: A flow from a recipe for tables that is not fitted.
        bounds: The domain of each feature, in the forms of `kappaflow.bijections.Domain`.
        seed: Seed of the initial weights.

    Raises:
        ArgumentError: The flow has other bounds, is fitted, was not made by such a recipe, or its
            recipe refuses circles.

    Example:
        >>> import kappaflow as kf
        >>> flow = kf.real_nvp(2, depth=2, hidden=(8,))
        >>> set_bounds(flow, ["positive", None])
        >>> flow.domain.domains[0].description
        'above 0'
    """
    domains = intervals(bounds, flow.event_shape[0])
    if flow.domain is not None:
        if flow.domain.domains[: len(domains)] != domains:
            raise ArgumentError("'bounds' should be left out: the flow already has other bounds.")
        return
    name, arguments = made_by(flow)
    if "bounds" not in arguments:
        raise ArgumentError(
            f"'bounds' should be left out for a flow made by {name!r}: put a "
            "kappaflow.bijections.Domain before its chain."
        )
    if any(bool(getattr(part, "fitted", False)) for part in flow.standardization):
        raise ArgumentError("'bounds' should be given before a flow is fitted; this one is.")
    texts = [None if domain is None else domain.text for domain in domains]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        new = remake(flow, bounds=texts)
    new.to(flow.device, flow.dtype).train(flow.training)
    flow.base, flow.bijection, flow.augment = new.base, new.bijection, new.augment
    take_description(flow, new)
