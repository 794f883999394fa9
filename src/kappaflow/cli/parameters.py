"""Types of parameters that several commands have."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from cyclopts import Parameter, Token

from kappaflow.options import FixedPartition


def to_integer(hint: Any, tokens: Sequence[Token]) -> int:  # noqa: ANN401
    """Returns a token as an int; 2.5 is a ValueError, which becomes a message."""
    return int(tokens[0].value)


def _to_integers(hint: Any, tokens: Sequence[Token]) -> tuple[int, ...]:  # noqa: ANN401
    return tuple(int(token.value) for token in tokens)


def _to_count(hint: Any, tokens: Sequence[Token]) -> int | str:  # noqa: ANN401
    return _name_or_integer(tokens[0].value, ("auto", "fewest"))


def _to_first_part(hint: Any, tokens: Sequence[Token]) -> int | str:  # noqa: ANN401
    return _name_or_integer(tokens[0].value, get_args(FixedPartition))


def _name_or_integer(text: str, names: tuple[str, ...]) -> int | str:
    if text in names:
        return text
    try:
        return int(text)
    except ValueError:
        listed = ", ".join(f'"{name}"' for name in names)
        raise ValueError(f"should be {listed} or a whole number, got {text!r}.") from None


Data = Annotated[str, Parameter(allow_leading_hyphen=True)]  # - is standard input or output
Device = Annotated[
    str | None, Parameter(help="Where to compute: cpu (the default), cuda, or cuda:1.")
]
Flag = Annotated[bool, Parameter(negative=())]
Json = Annotated[bool, Parameter(negative=(), help="Print the result as JSON.")]
Names = Annotated[list[str] | None, Parameter(consume_multiple=True, negative=())]
Quiet = Annotated[bool, Parameter(negative=(), help="Show no progress and no notes.")]
RunFolder = Annotated[Path, Parameter(help="The run folder.")]
Integer = Annotated[int, Parameter(converter=to_integer)]
Integers = Annotated[
    tuple[int, ...], Parameter(converter=_to_integers, consume_multiple=True, negative=())
]
Count = Annotated[int | Literal["auto", "fewest"], Parameter(converter=_to_count)]
FirstPart = Annotated[int | FixedPartition, Parameter(converter=_to_first_part)]
