"""The names that a model file may mention, and how an object is described by name and arguments.

A registered class or function remembers the arguments of each object that it makes. `describe`
turns such an object into plain JSON values and `build` turns these back into an object, by
registered names alone: an import path never appears in a file, and no code is ever run from one.
"""

import functools
import importlib
import importlib.util
import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

import numpy as np
import torch

from kappaflow.allowance import charge
from kappaflow.errors import ArgumentError, FileError

C = TypeVar("C", bound=Callable[..., Any])

_CONSTRUCTORS: dict[str, Callable[..., Any]] = {}
# The modules that register names. The studies are optional.
OWN = tuple(f"kappaflow.{name}" for name in ("bijections", "stack", "factor", "flows", "rewrite"))
STUDIES = "kappaflow_studies"
_ATTRIBUTE = "_kappaflow_description"


def register(name: str) -> Callable[[C], C]:
    """Returns a decorator that lets model files call a class or a recipe by `name`.

    Args:
        name: What the model file says; a name can be given once.

    Returns:
        A decorator for a class (a bijection, a network) or for a function that returns such an
        object.

    Raises:
        ArgumentError: The name is taken by something else.

    Example:
        >>> import kappaflow as kf
        >>> @kf.register("doctest.Flip")
        ... class Flip(kf.Bijection):
        ...     def forward(self, x, context=None):
        ...         return -x, x.new_zeros(len(x))
        ...     def inverse(self, z, context=None):
        ...         return -z, z.new_zeros(len(z))
        >>> kf.registry.describe(Flip())
        {'name': 'doctest.Flip', 'arguments': {}}
    """

    def decorate(made_by: C) -> C:
        taken = _CONSTRUCTORS.get(name)
        if taken is not None and _origin(taken) != _origin(made_by):
            raise ArgumentError(f"'{name}' is registered already, for {taken.__qualname__}.")
        recorded = (
            _record_class(name, made_by)
            if isinstance(made_by, type)
            else _record_function(name, made_by)
        )
        _CONSTRUCTORS[name] = recorded
        return recorded  # pyright: ignore[reportReturnType]

    return decorate


def registered_names() -> tuple[str, ...]:
    """Returns every registered name, sorted."""
    return tuple(sorted(_CONSTRUCTORS))


def _origin(made_by: Callable[..., Any]) -> tuple[str, str]:
    """Returns where something is defined, so that a re-run notebook cell may register it anew."""
    return made_by.__module__, made_by.__qualname__


def _record_class(name: str, cls: type) -> type:
    initialize = cls.__init__
    signature = inspect.signature(initialize)

    @functools.wraps(initialize)
    def __init__(self: object, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401, N807
        if type(self) is not cls:
            initialize(self, *args, **kwargs)
            return
        # What can be read only once would be empty by the time that it is described.
        args = tuple(list(a) if isinstance(a, Iterator) else a for a in args)
        charge(signature, self, *args, **kwargs)
        initialize(self, *args, **kwargs)
        _remember(self, name, signature.bind(self, *args, **kwargs), skip_first=True)

    cls.__init__ = __init__
    return cls


def _record_function(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    signature = inspect.signature(function)

    @functools.wraps(function)
    def made(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        charge(signature, *args, **kwargs)
        result = function(*args, **kwargs)
        _remember(result, name, signature.bind(*args, **kwargs), skip_first=False)
        return result

    return made


def _remember(made: object, name: str, bound: inspect.BoundArguments, *, skip_first: bool) -> None:
    bound.apply_defaults()
    arguments = dict(list(bound.arguments.items())[int(skip_first) :])
    for key, parameter in bound.signature.parameters.items():
        if parameter.kind is parameter.VAR_KEYWORD:
            arguments.update(arguments.pop(key))
        elif parameter.kind is parameter.VAR_POSITIONAL and not arguments[key]:
            del arguments[key]
    object.__setattr__(made, _ATTRIBUTE, (name, arguments))


def describe(value: Any) -> Any:  # noqa: ANN401
    """Returns `value` as JSON values: registered objects as {"name": ..., "arguments": {...}}.

    Args:
        value: A registered object, or a number, string, sequence, array or None.

    Returns:
        Dictionaries, lists and scalars that `json` can write and `build` can read.

    Raises:
        ArgumentError: Something in it is not registered.
    """
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (torch.Tensor, np.ndarray, np.generic)):
        return value.tolist()
    if isinstance(value, (list, tuple, torch.nn.ModuleList)):
        return [describe(item) for item in value]
    remembered = getattr(value, _ATTRIBUTE, None)
    if remembered is None:
        raise ArgumentError(
            f"a {type(value).__name__} cannot be written to a model file: "
            "register its class with @kappaflow.register('a.name')."
        )
    name, arguments = remembered
    return {"name": name, "arguments": {key: describe(item) for key, item in arguments.items()}}


def take_description(target: object, source: object) -> None:
    """Makes an object be described as another one, of whose parts it now consists."""
    object.__setattr__(target, _ATTRIBUTE, getattr(source, _ATTRIBUTE))


def _find(name: str) -> None:
    """Imports the modules that register names, in order, until `name` is registered.

    The list is fixed: a name in a file never decides what is imported.
    """
    for module in (*OWN, STUDIES):
        if name not in _CONSTRUCTORS and importlib.util.find_spec(module):
            importlib.import_module(module)


def build(description: Any) -> Any:  # noqa: ANN401
    """Returns the object that `describe` described.

    Args:
        description: What `describe` returned, as read from a file.

    Returns:
        A new object, with its parameters as freshly initialised.

    Raises:
        FileError: A name that is not registered, or arguments that its constructor refuses.
    """
    if isinstance(description, list):
        return [build(item) for item in description]
    if not isinstance(description, Mapping):
        return description
    if set(description) != {"name", "arguments"} or not isinstance(
        description["arguments"], Mapping
    ):
        raise FileError(
            f"a description should have a name and arguments, got the keys {sorted(description)}."
        )
    name = description["name"]
    if isinstance(name, str):
        _find(name)
    if not isinstance(name, str) or name not in _CONSTRUCTORS:
        raise FileError(
            f"'{name}' is not registered: "
            "import the module that defines it before loading the model."
        )
    arguments = {key: build(item) for key, item in description["arguments"].items()}
    try:
        inspect.signature(_CONSTRUCTORS[name]).bind(**arguments)
    except TypeError as error:
        raise FileError(f"'{name}' does not take these arguments: {error}.") from None
    try:
        return _CONSTRUCTORS[name](**arguments)
    except FileError:
        raise
    except Exception as error:  # whatever a constructor has against arguments of a stranger
        raise FileError(f"'{name}' cannot be built from its arguments: {error}") from None
