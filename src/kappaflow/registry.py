"""Registered names for model files: describes objects by name and arguments, and builds them.

A registered class or function records the arguments of each object that it makes. `describe`
converts such an object to plain JSON values, and `build` makes an object from them. Only
registered names are used: a file never contains an import path, and no code from a file is run.

Inside `allowed`, `build` is limited in proportion to the weights in the file.
"""

import functools
import importlib
import inspect
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from inspect import Signature
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

from kappaflow.errors import ArgumentError, FileError
from kappaflow.extensions import load_extensions

# Limits on the entries of tensors that a build allocates; a step counts as `STEP` or more.
NUMBERS, PER_WEIGHT, STEP, STEPS_PER_TENSOR = 2**22, 16, 2**8, 64

_ALLOWANCE: ContextVar["Allowance | None"] = ContextVar("allowance", default=None)


class Allowance(TorchDispatchMode):
    """A limit on the memory and the steps of a build, which is checked before each operation."""

    def __init__(self, numbers: int) -> None:
        super().__init__()
        self.numbers = numbers

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Returns False: True would load torch's compiler, which takes longer than torch."""
        return False

    def spend(self, numbers: int) -> None:
        """Counts a step that allocates this many numbers, or raises FileError."""
        self.numbers -= max(STEP, numbers)
        if self.numbers < 0:
            raise FileError(
                "the model that it describes is far too large for its weights: at least one size "
                "differs from the model that was saved."
            )

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        named = kwargs or {}
        self.spend(_numbers_made(func, args, named))
        return func(*args, **named)


@contextmanager
def allowed(weights: Mapping[str, Tensor]) -> Iterator[None]:
    """Limits the size of models that are built inside the context, in proportion to weights."""
    numbers = PER_WEIGHT * sum(tensor.numel() for tensor in weights.values())
    allowance = Allowance(NUMBERS + numbers + STEP * STEPS_PER_TENSOR * len(weights))
    token = _ALLOWANCE.set(allowance)
    try:
        with allowance:
            yield
    finally:
        _ALLOWANCE.reset(token)


def _charge(signature: Signature, *args: Any, **kwargs: Any) -> None:
    """Counts a constructor call and the sizes in its arguments; does nothing outside `allowed`."""
    allowance = _ALLOWANCE.get()
    if allowance is not None:
        allowance.spend(_size(signature.bind(*args, **kwargs).arguments))


def _size(value: Any) -> int:
    """Returns an integer itself, the sum of a mapping, the maximum of a list, and 1 for others."""
    if isinstance(value, int):
        return abs(value)
    if isinstance(value, Mapping):
        return sum(_size(item) for name, item in value.items() if name != "seed")
    return len(value) + max(map(_size, value), default=0) if isinstance(value, list | tuple) else 1


def _numbers_made(func: Any, args: tuple[Any, ...], named: dict[str, Any]) -> int:
    """Returns the number of entries that an operation allocates; 0 for views and in-place ones."""
    if any(argument.alias_info for argument in func._schema.returns):
        return 0
    if torch.Tag.pointwise in func.tags:  # counted here: on "meta", torch would load its compiler
        shapes = [leaf.shape for leaf in tree_leaves((args, named)) if isinstance(leaf, Tensor)]
        return math.prod(np.broadcast_shapes(*shapes))
    args, named = tree_map_only(Tensor, lambda tensor: tensor.to("meta"), (args, named))
    parameters = {argument.name for argument in func._schema.arguments}
    elsewhere = {"device": "meta", "generator": None}
    named |= {name: value for name, value in elsewhere.items() if name in parameters}
    try:
        result = func(*args, **named)
    except (NotImplementedError, RuntimeError):  # the shape of the result depends on values
        result = (args, named)
    return sum(leaf.numel() for leaf in tree_leaves(result) if isinstance(leaf, Tensor))


C = TypeVar("C", bound=Callable[..., Any])

_CONSTRUCTORS: dict[str, Callable[..., Any]] = {}
# The modules of the core that register names.
OWN = tuple(f"kappaflow.{name}" for name in ("bijections", "stack", "factor", "flows", "rewrite"))
_ATTRIBUTE = "_kappaflow_description"


def register(name: str) -> Callable[[C], C]:
    """Returns a decorator that lets model files call a class or a recipe by `name`.

    Args:
        name: The name in model files; it must be unique.

    Returns:
        A decorator for a class (a bijection, a network) or for a function that returns such an
        object.

    Raises:
        ArgumentError: The name is already taken.

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
            raise ArgumentError(f"'{name}' is already registered for {taken.__qualname__}.")
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
    """Returns module and name of a definition, so that a notebook cell can register it again."""
    return made_by.__module__, made_by.__qualname__


def _record_class(name: str, cls: type) -> type:
    initialize = cls.__init__
    signature = inspect.signature(initialize)

    @functools.wraps(initialize)
    def __init__(self: object, *args: Any, **kwargs: Any) -> None:
        if type(self) is not cls:
            initialize(self, *args, **kwargs)
            return
        # An iterator would be empty when it is described.
        args = tuple(list(a) if isinstance(a, Iterator) else a for a in args)
        _charge(signature, self, *args, **kwargs)
        initialize(self, *args, **kwargs)
        _remember(self, name, signature.bind(self, *args, **kwargs), skip_first=True)

    cls.__init__ = __init__
    return cls


def _record_function(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    signature = inspect.signature(function)

    @functools.wraps(function)
    def recorded_function(*args: Any, **kwargs: Any) -> Any:
        _charge(signature, *args, **kwargs)
        result = function(*args, **kwargs)
        _remember(result, name, signature.bind(*args, **kwargs), skip_first=False)
        return result

    return recorded_function


def _remember(item: object, name: str, bound: inspect.BoundArguments, *, skip_first: bool) -> None:
    bound.apply_defaults()
    arguments = dict(list(bound.arguments.items())[int(skip_first) :])
    for key, parameter in bound.signature.parameters.items():
        if parameter.kind is parameter.VAR_KEYWORD:
            arguments.update(arguments.pop(key))
        elif parameter.kind is parameter.VAR_POSITIONAL and not arguments[key]:
            del arguments[key]
    object.__setattr__(item, _ATTRIBUTE, (name, arguments))


def describe(value: Any) -> Any:
    """Returns `value` as JSON values: registered objects as {"name": ..., "arguments": {...}}."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (torch.Tensor, np.ndarray, np.generic)):
        return value.tolist()
    if isinstance(value, (list, tuple, range, torch.nn.ModuleList)):
        return [describe(item) for item in value]
    if not hasattr(value, _ATTRIBUTE):
        raise ArgumentError(
            f"a {type(value).__name__} cannot be written to a model file: "
            "register its class with @kappaflow.register('a.name')."
        )
    name, arguments = made_by(value)
    return {"name": name, "arguments": {key: describe(item) for key, item in arguments.items()}}


def made_by(item: object) -> tuple[str, dict[str, Any]]:
    """Returns the name and the arguments that made an object; those of no class are empty."""
    return getattr(item, _ATTRIBUTE, (type(item).__name__, {}))


def remake(item: object, **changes: Any) -> Any:
    """Returns a new object like a registered one, with some arguments changed."""
    name, arguments = made_by(item)
    return _CONSTRUCTORS[name](**arguments | changes)


def take_description(target: object, source: object) -> None:
    """Copies the description of `source` to an object that has taken over its parts."""
    object.__setattr__(target, _ATTRIBUTE, getattr(source, _ATTRIBUTE))


def _find(name: str) -> None:
    """Imports the modules that register names, in order, until `name` is registered.

    The list is fixed: a name in a file never decides what is imported.
    """
    for module in OWN:
        if name not in _CONSTRUCTORS:
            importlib.import_module(module)
    if name not in _CONSTRUCTORS:
        load_extensions("models")


def build(description: Any) -> Any:
    """Returns a new object, with new initial parameters, from what `describe` returned."""
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
        return _CONSTRUCTORS[name](**arguments)
    except FileError:
        raise
    except Exception as error:  # constructors may raise anything for untrusted arguments
        raise FileError(f"'{name}' cannot be built from its arguments: {error}") from None
