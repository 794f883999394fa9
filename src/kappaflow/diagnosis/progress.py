"""What an examination says of itself while it runs."""

from typing import Protocol


class Progress(Protocol):
    """Is told what is measured, before it is; what it raises ends the examination."""

    def __call__(self, text: str, /) -> None:
        """Shows a few words, such as "conditioning over depth, layer 3 of 32"."""


def quietly(text: str) -> None:
    """Shows nothing."""
