"""Packages that only images need, and the sentence that names them where they are missing."""

import importlib
import importlib.util
from pathlib import Path
from types import ModuleType

from kappaflow.errors import FileError

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
