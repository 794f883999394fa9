"""A pickle read as data: nothing in it is imported, called or run, whatever it asks for.

A pickle is a program for a small machine with a stack. Here the program is decoded by
`pickletools`, which runs nothing, and executed by a machine that knows the few instructions that
numbers, bytes, text, lists, dicts and arrays of bytes are written with. The names of functions
in a pickle are never looked up: the four that stand for arrays of bytes are recognised by their
spelling, and every other one is refused.
"""

import io
import pickletools
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray


class Refused(Exception):
    """A pickle asks for something that is not plain data."""


class _Mark:
    """Where on the stack a list or a tuple begins."""


class _Function:
    """One of the functions that an array is written with, by what it is for."""

    def __init__(self, name: str) -> None:
        self.name = name


class _ByteType:
    """The type of the entries of an array, of which there is only one here."""


class _Array:
    """An array of bytes, which a pickle makes empty first and fills later."""

    value: NDArray[np.uint8] | None = None


_MARK = _Mark()
_FUNCTIONS = {
    "numpy.core.multiarray._reconstruct": "array",
    "numpy._core.multiarray._reconstruct": "array",
    "numpy.core.numeric._frombuffer": "filled array",
    "numpy._core.numeric._frombuffer": "filled array",
    "numpy.ndarray": "array type",
    "numpy.dtype": "entry type",
    "_codecs.encode": "bytes",
}
_INTEGERS = {"BININT", "BININT1", "BININT2", "LONG1"}
_TEXTS = {"BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"}
_BYTES = {"BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"}
_OLD_BYTES = {"BINSTRING", "SHORT_BINSTRING"}  # Python 2 text, which pickletools reads as Latin 1
_CONSTANTS: dict[str, Callable[[], object]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_DICT": dict,
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
    "MARK": lambda: _MARK,
}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_PUTS = {"BINPUT", "LONG_BINPUT"}
_GETS = {"BINGET", "LONG_BINGET"}
_NOTHING = {"PROTO", "FRAME", "STOP"}


def read_plain_pickle(content: bytes) -> object:
    """Returns the numbers, bytes, text, lists, dicts and uint8 arrays that a pickle holds.

    Raises Refused where it asks for anything else, and any error of Python where it is damaged.
    """
    machine = _Machine(2 * len(content))
    for instruction, argument, _ in pickletools.genops(io.BytesIO(content)):
        machine.execute(instruction.name, argument)
    (value,) = machine.stack
    return _opened(value)


class _Machine:
    """The stack, and the values that a pickle refers back to by number."""

    def __init__(self, most: int) -> None:
        self.left = most
        self.stack: list[Any] = []
        self.memory: dict[int, Any] = {}

    def execute(self, name: str, argument: Any) -> None:  # noqa: ANN401 - by instruction
        """Executes one instruction."""
        if name in _INTEGERS or name in _TEXTS:
            self.stack.append(argument)
        elif name in _OLD_BYTES:
            self.stack.append(argument.encode("latin-1"))
        elif name in _BYTES:
            self.stack.append(bytes(argument))
        elif name in _CONSTANTS:
            self.stack.append(_CONSTANTS[name]())
        elif name in _PUTS:
            self.memory[argument] = self.stack[-1]
        elif name == "MEMOIZE":
            self.memory[len(self.memory)] = self.stack[-1]
        elif name in _GETS:
            self.stack.append(self.memory[argument])
        elif name in _TUPLES:
            self.stack.append(tuple(self._take(_TUPLES[name])))
        elif name not in _NOTHING:
            self._compose(name, argument)

    def _compose(self, name: str, argument: Any) -> None:  # noqa: ANN401 - by instruction
        """Executes an instruction that makes something out of what lies on the stack."""
        if name == "TUPLE":
            self.stack.append(tuple(self._take_to_mark()))
        elif name in ("APPEND", "APPENDS"):
            values = self._take(1) if name == "APPEND" else self._take_to_mark()
            _only(list, self.stack[-1]).extend(values)
        elif name in ("SETITEM", "SETITEMS"):
            pairs = self._take(2) if name == "SETITEM" else self._take_to_mark()
            for key in pairs[::2]:
                _only(bytes if type(key) is bytes else str, key)  # others take long to compare
            _only(dict, self.stack[-1]).update(zip(pairs[::2], pairs[1::2], strict=True))
        elif name == "GLOBAL":
            self.stack.append(_function(argument.replace(" ", ".", 1)))
        elif name == "STACK_GLOBAL":
            self.stack.append(_function(".".join(self._take(2))))
        elif name == "REDUCE":
            function, arguments = self._take(2)
            made = _called(function, _only(tuple, arguments))
            self._pay(len(made) if type(made) is bytes else 0)
            self.stack.append(made)
        elif name == "BUILD":
            (state,) = self._take(1)
            _fill(self.stack[-1], state)
        else:
            raise Refused(f"the instruction {name}")

    def _pay(self, made: int) -> None:
        """Counts bytes made, of which there are no more than the pickle has itself, twice over."""
        self.left -= made
        if self.left < 0:
            raise ValueError("it repeats its bytes over and over")

    def _take(self, count: int) -> list[Any]:
        """Returns the topmost values, which leave the stack."""
        taken = self.stack[-count:]
        if len(taken) < count or any(value is _MARK for value in taken):
            raise ValueError("a value is missing")
        del self.stack[-count:]
        return taken

    def _take_to_mark(self) -> list[Any]:
        """Returns the values above the topmost mark, which leave the stack with it."""
        place = len(self.stack) - 1
        while self.stack[place] is not _MARK:
            place -= 1  # a mark that is missing ends in an IndexError
        taken = self.stack[place + 1 :]
        del self.stack[place:]
        return taken


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
    """Returns what one of the few known functions would."""
    kind = _only(_Function, function).name
    if kind == "array":
        return _Array()
    if kind == "entry type" and arguments[0] in ("u1", b"u1", "|u1", b"|u1"):
        return _ByteType()
    if kind == "bytes" and arguments[1] == "latin1":
        return _only(str, arguments[0]).encode("latin-1")
    if kind == "filled array":
        content, entries, shape, order = arguments
        _only(_ByteType, entries)
        array = _Array()
        array.value = _shaped(content, shape, order)
        return array
    raise Refused(f"'{kind}' with other arguments than an array of bytes has")


def _fill(target: object, state: tuple[Any, ...]) -> None:
    """Gives an array its content; the entry type has only its byte order, of no meaning here."""
    if type(target) is _ByteType:
        return
    array = _only(_Array, target)
    _, shape, entries, by_columns, content = state
    _only(_ByteType, entries)
    array.value = _shaped(content, shape, "F" if by_columns else "C")


def _shaped(content: bytes, shape: tuple[int, ...], order: str) -> NDArray[np.uint8]:
    array = np.frombuffer(_only(bytes, content), np.uint8)
    return array.reshape(_only(tuple, shape), order="F" if order == "F" else "C")


def _opened(value: object) -> object:
    """Returns a value, or the values of a dict, with arrays in place of what stood for them."""
    if type(value) is dict:
        return {key: _array_or(entry) for key, entry in value.items()}
    return _array_or(value)


def _array_or(value: object) -> object:
    return value.value if type(value) is _Array else value
