"""Whole numbers on the command line: 2.5 is no number of layers, and is not rounded to one."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal, get_args

from cyclopts import Parameter, Token

from kappaflow.options import FixedPartition


def to_whole(hint: Any, tokens: Sequence[Token]) -> int:  # noqa: ANN401
    """Returns a token as an int, or raises ValueError, which becomes a message."""
    return int(tokens[0].value)


def _wholes(hint: Any, tokens: Sequence[Token]) -> tuple[int, ...]:  # noqa: ANN401
    """Returns tokens as ints."""
    return tuple(int(token.value) for token in tokens)


def _count(hint: Any, tokens: Sequence[Token]) -> int | str:  # noqa: ANN401
    """Returns "auto" or "fewest", or a token as an int."""
    return _word_or_whole(tokens[0].value, ("auto", "fewest"))


def _first_part(hint: Any, tokens: Sequence[Token]) -> int | str:  # noqa: ANN401
    """Returns the name of a partition, or a token as an int."""
    return _word_or_whole(tokens[0].value, get_args(FixedPartition))


def _word_or_whole(text: str, words: tuple[str, ...]) -> int | str:
    if text in words:
        return text
    try:
        return int(text)
    except ValueError:
        listed = ", ".join(f'"{word}"' for word in words)
        raise ValueError(f"should be {listed} or a whole number, got {text!r}.") from None


Whole = Annotated[int, Parameter(converter=to_whole)]
Wholes = Annotated[
    tuple[int, ...], Parameter(converter=_wholes, consume_multiple=True, negative=())
]
Count = Annotated[int | Literal["auto", "fewest"], Parameter(converter=_count)]
FirstPart = Annotated[int | FixedPartition, Parameter(converter=_first_part)]
