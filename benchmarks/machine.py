"""Properties of the machine that results depend on: processor, threads, versions."""

import os
import platform
import re
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from kappaflow.stack.native import backend

PACKAGES = ("torch", "kappaflow", "zuko", "normflows", "nflows", "FrEIA")
_INSTRUCTIONS = ("avx2", "avx512f", "amx_tile")  # determine the speed of matrix products


def machine() -> dict[str, Any]:
    """Returns processor, cores, threads of this process, versions, and settings of allocators."""
    names = ("MALLOC_", "LD_PRELOAD", "OMP_", "KMP_", "MKL_")
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "system": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
        "native": backend() is not None,
        "versions": {name: found for name in PACKAGES if (found := _version(name))},
        "environment": {k: v for k, v in sorted(os.environ.items()) if k.startswith(names)},
    }


def _processor() -> str:
    """Returns the processor's name and model numbers, because virtual machines hide the name."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor() or platform.machine()
    fields = dict(re.findall(r"^([\w ]+?)\s*:\s*(.+)$", text, re.MULTILINE))
    found = [name for name in _INSTRUCTIONS if name in fields.get("flags", "").split()]
    name = fields.get("model name", platform.machine())
    numbers = f"family {fields.get('cpu family')}, model {fields.get('model')}"
    return f"{name} ({numbers}; {', '.join(found)})"


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
