"""What a terminal may be sent of texts that come from data: letters, and no commands."""

import unicodedata
from typing import TextIO

_COMMANDS = ("Cc", "Cf", "Cs", "Zl", "Zp")  # control, direction, half a character, other line ends


def printable(text: str) -> str:
    r"""Returns text in which what a terminal would obey is spelled out.

    Example:
        >>> printable("a\x1b[31mb\n")
        'a\\x1b[31mb\n'
    """
    return "".join(
        sign.encode("unicode_escape").decode() if _is_command(sign) else sign for sign in text
    )


def tell(text: object = "", *, file: TextIO | None = None) -> None:
    """Prints text as it can be shown: what every command prints with."""
    print(printable(str(text)), file=file)


def _is_command(sign: str) -> bool:
    return sign not in "\n\t" and unicodedata.category(sign) in _COMMANDS
