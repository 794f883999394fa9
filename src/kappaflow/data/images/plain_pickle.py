"""Reads a pickle as plain data, without importing or calling anything that it names.

`pickletools` decodes the instructions, which runs none of them. The loop below executes those that
numbers, bytes, text, lists, dicts and arrays of bytes are written with. It compares the names of
functions with the few that arrays need, and never looks them up. Everything else is refused. See
docs/decisions/0041-data-readers.md for what a restricted `pickle.Unpickler` would let through.
"""

import io
import pickletools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


class Refused(Exception):
    """A pickle contains something other than plain data."""


@dataclass(frozen=True)
class _Function:
    """A function that numpy writes into pickles of arrays, by its purpose."""

    purpose: str


class _ByteType:
    """The dtype uint8."""


class _Array:
    """An array of bytes, which a pickle creates empty and fills later."""

    value: NDArray[np.uint8] | None = None


_MARK = object()  # on the stack, where a list or a tuple begins
_FUNCTIONS = {
    "numpy.core.multiarray._reconstruct": "array",
    "numpy._core.multiarray._reconstruct": "array",
    "numpy.core.numeric._frombuffer": "filled array",
    "numpy._core.numeric._frombuffer": "filled array",
    "numpy.ndarray": "array type",
    "numpy.dtype": "entry type",
    "_codecs.encode": "bytes",
}
# Python 2 text in "BINSTRING", which pickletools decodes as Latin 1, is bytes.
_VALUES: dict[str, Callable[[Any], object]] = {
    **dict.fromkeys(("BININT", "BININT1", "BININT2", "LONG1"), lambda argument: argument),
    **dict.fromkeys(("BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"), lambda argument: argument),
    **dict.fromkeys(("BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"), bytes),
    **dict.fromkeys(("BINSTRING", "SHORT_BINSTRING"), lambda argument: argument.encode("latin-1")),
    "NONE": lambda _: None,
    "NEWTRUE": lambda _: True,
    "NEWFALSE": lambda _: False,
    "EMPTY_DICT": lambda _: {},
    "EMPTY_LIST": lambda _: [],
    "EMPTY_TUPLE": lambda _: (),
    "MARK": lambda _: _MARK,
    "GLOBAL": lambda argument: _function(argument.replace(" ", ".", 1)),
}
_TAKEN = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3, "APPEND": 1, "SETITEM": 2, "STACK_GLOBAL": 2}
_TAKEN |= {"REDUCE": 2, "BUILD": 1}
_TAKEN |= dict.fromkeys(("TUPLE", "APPENDS", "SETITEMS"), 0)  # everything after the last mark


def read_plain_pickle(content: bytes) -> object:
    """Returns the numbers, bytes, text, lists, dicts and uint8 arrays that a pickle holds.

    Raises Refused if it contains anything else, and any other exception if it is damaged.
    """
    stack: list[Any] = []
    memory: dict[Any, Any] = {}
    left = 2 * len(content)  # bytes that calls may still make, so that repeated calls end
    for instruction, argument, _ in pickletools.genops(io.BytesIO(content)):
        name = instruction.name
        if name in _VALUES:
            stack.append(_VALUES[name](argument))
        elif name in _TAKEN:
            made = _composed(name, _taken(stack, _TAKEN[name]), stack)
            left -= len(made) if name == "REDUCE" and type(made) is bytes else 0
            if left < 0:
                raise ValueError("it repeats its bytes over and over")
            stack += [] if made is None else [made]
        elif name in ("BINPUT", "LONG_BINPUT", "MEMOIZE"):
            memory[len(memory) if name == "MEMOIZE" else argument] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            stack.append(memory[argument])
        elif name not in ("PROTO", "FRAME", "STOP"):
            raise Refused(f"the instruction {name}")
    (value,) = stack
    if type(value) is not dict:
        return _array_or(value)
    return {key: _array_or(entry) for key, entry in value.items()}


def _taken(stack: list[Any], count: int) -> list[Any]:
    """Returns and removes the last values of the stack; 0 takes those after the last mark."""
    place = len(stack) - count
    while not count and stack[place - 1] is not _MARK:
        place -= 1  # without a mark this ends in an IndexError
    taken = stack[place:]
    if place < 0 or any(value is _MARK for value in taken):
        raise ValueError("a value is missing")
    del stack[place - (not count) :]
    return taken


def _composed(name: str, values: list[Any], stack: list[Any]) -> object:
    """Returns a new value for the stack; None if the last one there received the values."""
    if name.startswith("TUPLE"):
        return tuple(values)
    if name == "STACK_GLOBAL":
        return _function(".".join(values))
    if name == "REDUCE":
        function, arguments = values
        return _called(function, _only(tuple, arguments))
    if name.startswith("APPEND"):
        _only(list, stack[-1]).extend(values)
    elif name.startswith("SETITEM"):
        for key in values[::2]:
            _only(bytes if type(key) is bytes else str, key)  # nested tuples take ages to hash
        _only(dict, stack[-1]).update(zip(values[::2], values[1::2], strict=True))
    elif type(stack[-1]) is not _ByteType:  # BUILD; the state of uint8 is only its byte order
        _, shape, entries, by_columns, content = values[0]
        _only(_Array, stack[-1]).value = _shaped(content, entries, shape, by_columns=by_columns)
    return None


def _only(kind: type, value: Any) -> Any:  # noqa: ANN401 - of that kind
    """Returns a value of exactly this type."""
    if type(value) is not kind:
        raise ValueError(f"a {kind.__name__} is missing")
    return value


def _function(name: str) -> _Function:
    if name not in _FUNCTIONS:
        raise Refused(f"'{name}'")
    return _Function(_FUNCTIONS[name])


def _called(function: object, arguments: tuple[Any, ...]) -> object:
    """Returns the value that one of the known functions would return."""
    purpose, array = _only(_Function, function).purpose, _Array()
    if purpose == "array":
        return array
    if purpose == "entry type" and arguments[0] in ("u1", b"u1", "|u1", b"|u1"):
        return _ByteType()
    if purpose == "bytes" and arguments[1] == "latin1":
        return _only(str, arguments[0]).encode("latin-1")
    if purpose == "filled array":
        content, entries, shape, order = arguments
        array.value = _shaped(content, entries, shape, by_columns=order == "F")
        return array
    raise Refused(f"'{purpose}' with other arguments than an array of bytes has")


def _shaped(content: object, entries: object, shape: object, *, by_columns: object) -> NDArray:
    """Returns an array of bytes; numpy checks that the shape fits them."""
    _only(_ByteType, entries)
    array = np.frombuffer(_only(bytes, content), np.uint8)
    return array.reshape(_only(tuple, shape), order="F" if by_columns else "C")


def _array_or(value: object) -> object:
    return value.value if type(value) is _Array else value
