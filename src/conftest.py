"""Imports a file of the library before pytest does, so that no file is imported twice."""

import importlib
from pathlib import Path

ROOT = Path(__file__).parent


def pytest_collect_file(file_path: Path) -> None:
    """Imports the module of a file by its name, as users do."""
    module = file_path.relative_to(ROOT).with_suffix("")
    if file_path.suffix == ".py" and len(module.parts) > 1 and not module.name.startswith("__"):
        importlib.import_module(".".join(module.parts))
