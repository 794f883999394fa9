"""Whole numbers on the command line: 2.5 is no number of layers, and is not rounded to one."""

from collections.abc import Sequence
from typing import Annotated, Any

from cyclopts import Parameter, Token


def _whole(hint: Any, tokens: Sequence[Token]) -> int:  # noqa: ANN401
    """Returns a token as an int, or raises ValueError, which becomes a message."""
    return int(tokens[0].value)


def _wholes(hint: Any, tokens: Sequence[Token]) -> tuple[int, ...]:  # noqa: ANN401
    """Returns tokens as ints."""
    return tuple(int(token.value) for token in tokens)


Whole = Annotated[int, Parameter(converter=_whole)]
Wholes = Annotated[tuple[int, ...], Parameter(converter=_wholes, consume_multiple=True)]
