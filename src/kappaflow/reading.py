"""Reads small files and JSON from untrusted sources: regular files of bounded size and depth."""

import json
from collections.abc import Iterable
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from kappaflow.errors import FileError

MOST_BYTES = 2**28
MOST_BYTES_OF_A_LINE = 2**20
DEPTH = 64  # lists and objects in each other; a model of many parts has about ten


def read_small(path: Path) -> bytes:
    """Returns a file of at most 256 MiB."""
    try:
        _refuse_irregular(path)
        if path.stat().st_size > MOST_BYTES:
            raise FileError(f"{path} is larger than {MOST_BYTES >> 20} MiB, too large to be read.")
        return path.read_bytes()
    except FileError:
        raise
    except OSError as error:
        raise FileError(f"{path} cannot be read: {error.strerror}.") from None


def read_json_lines(path: Path, most: int | None = None) -> list[Any]:
    """Returns the parsed lines of a file, or the first `most`, each of at most 1 MiB."""
    try:
        _refuse_irregular(path)
        with path.open("rb") as file:
            lines = iter(partial(file.readline, MOST_BYTES_OF_A_LINE), b"")
            return [parse_json(line) for line in islice(lines, most)]
    except FileError:
        raise
    except OSError as error:
        raise FileError(f"{path} cannot be read: {error.strerror}.") from None
    except ValueError as error:
        raise FileError(f"{path} cannot be read ({error}).") from None


def parse_json(content: bytes | str) -> Any:
    """Returns the value of JSON in UTF-8; NaN and Infinity count as numbers."""
    text = content if isinstance(content, str) else content.decode()
    try:
        value = json.loads(text, object_pairs_hook=_object_of_unique_keys)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if "\\ud" in text.lower():  # json.loads accepts a lone surrogate, and encoding raises for it
        json.dumps(value, ensure_ascii=False).encode()
    _refuse_deep(value)
    return value


def _refuse_irregular(path: Path) -> None:
    if path.exists() and not path.is_file():
        raise FileError(f"{path} is no regular file.")


def _object_of_unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        raise ValueError("it has two values for one key")
    return values


def _refuse_deep(value: Any) -> None:
    """Raises ValueError for a value nested so deeply that recursion over it would fail."""
    level = [value]
    for _ in range(DEPTH):
        level = [item for parent in level for item in _parts_of(parent)]
        if not level:
            return
    raise ValueError("it is nested too deeply")


def _parts_of(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()
