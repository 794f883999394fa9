"""Errors about image files in one sentence: unreadable files and missing packages."""

import importlib
import importlib.util
import os
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

from kappaflow.errors import FileError, KappaflowError


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turns whatever a reader raises on a file into one sentence."""
    try:
        yield
    except KappaflowError:
        raise
    except FileNotFoundError:
        raise FileError(f"there is no file {shown(path)} (any more).") from None
    except PermissionError:
        raise FileError(f"{shown(path)} may not be read: its permissions forbid it.") from None
    except MemoryError:
        raise FileError(f"{shown(path)} does not fit in memory, or is damaged.") from None
    except Exception as error:
        raise FileError(_sentence(path, error)) from None


def _sentence(path: Path, error: Exception) -> str:
    kind = type(error).__name__
    if kind.startswith("DecompressionBomb"):
        return (
            f"{shown(path)} has more pixels than Pillow's limit against decompression bombs: "
            "make it smaller, or raise PIL.Image.MAX_IMAGE_PIXELS if you trust it."
        )
    if os.path.isfile(path) and path.stat().st_size == 0:
        return f"{shown(path)} is empty (0 bytes)."
    if kind == "UnidentifiedImageError":
        return f"{shown(path)} is no image that can be read, whatever its suffix says."
    reason = textwrap.shorten(str(error) or kind, 90).rstrip(".")
    return f"{shown(path)} is damaged ({reason}): replace it, or leave it out."


def shown(path: Path | str) -> str:
    """Returns a path in quotes, in letters that can be written anywhere."""
    return f"'{readable(path)}'"


def readable(path: Path | str) -> str:
    """Returns a path with what is no letter in it replaced."""
    return os.fsencode(path).decode("utf-8", "replace")


INSTALL = "pip install 'kappaflow[images]'"


def module_of(package: str, module: str, needed_for: str) -> ModuleType:
    """Returns an imported module of an optional package, or says how to install it."""
    try:
        return importlib.import_module(module)
    except ImportError:
        raise _missing(package, needed_for) from None


def folder_of(package: str, needed_for: str) -> Path:
    """Returns where an optional package lies, without importing it."""
    found = importlib.util.find_spec(package)
    if found is None or not found.submodule_search_locations:
        raise _missing(package, needed_for)
    return Path(next(iter(found.submodule_search_locations)))


def _missing(package: str, needed_for: str) -> FileError:
    return FileError(f"{needed_for} needs the package {package}: {INSTALL}.")
