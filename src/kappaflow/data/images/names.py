"""How files are called in messages."""

import os
from pathlib import Path


def shown(path: Path | str) -> str:
    """Returns a path in quotes, in letters that can be written anywhere."""
    return f"'{readable(path)}'"


def readable(path: Path | str) -> str:
    """Returns a path with what is no letter in it replaced."""
    return os.fsencode(path).decode("utf-8", "replace")
