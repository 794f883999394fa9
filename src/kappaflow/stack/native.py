"""Builds and loads the native backend, which executes recorded operations in C++.

Python threads compete for the interpreter lock at each of the small operations of a chunk. The
native backend executes a whole chunk without the lock. `python -m kappaflow native` builds it
once, with a C++ compiler and ninja. Without it, the same operations run in Python.
"""

import functools
import hashlib
import importlib.machinery
import importlib.util
import os
import sys
import sysconfig
import tempfile
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from kappaflow.errors import BuildError
from kappaflow.stack.operations import NAMES
from kappaflow.stack.tape import Executor, NativeBackend, NativeExecutor

SOURCE = Path(__file__).with_name("native.cpp")
# Compiler flags per torch CPU capability: no instructions that torch itself would not use here.
INSTRUCTIONS = {
    "AVX2": ["-mavx2", "-mfma", "-mf16c"],
    "AVX512": ["-mavx512f", "-mavx512dq", "-mavx512vl", "-mavx512bw", "-mavx2", "-mfma"],
}

# Whether results must be bit-identical to the Python operations, as in tests.
EXACT = False
_forked = False
_lock = threading.RLock()  # also held while KAPPAFLOW_NATIVE=1 triggers a build


def executor(device_type: str) -> Executor:
    """Returns the executor of recorded operations, native if it is built, otherwise Python.

    The environment variable KAPPAFLOW_NATIVE overrides this: 0 never uses the native backend, 1
    builds it if it is missing.
    """
    setting = os.environ.get("KAPPAFLOW_NATIVE", "")
    found = None
    if setting != "0" and device_type == "cpu" and not _forked:
        found = _backend(setting == "1")
    return Executor(device_type) if found is None else NativeExecutor(*found, exact=EXACT)


def path() -> Path:
    """Returns the path of the compiled backend for this source, torch, Python and processor."""
    parts = (
        SOURCE.read_bytes(),
        torch.__version__.encode(),
        sys.implementation.cache_tag.encode() if sys.implementation.cache_tag else b"",
        sysconfig.get_platform().encode(),
        torch.backends.cpu.get_cpu_capability().encode(),
    )
    key = hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]
    root = os.environ.get("TORCH_EXTENSIONS_DIR") or Path.home() / ".cache" / "torch_extensions"
    return Path(root) / f"kappaflow_native_{key}" / f"kappaflow_native_{key}.so"


def build(*, verbose: bool = False) -> Path:
    """Compiles the backend, which takes about half a minute.

    Args:
        verbose: Show the output of the compiler.

    Returns:
        The path of the compiled module.

    Raises:
        BuildError: There is no compiler or no ninja, or they fail.
    """
    target = path()
    try:
        from torch.utils import cpp_extension

        target.parent.mkdir(parents=True, exist_ok=True)
        # Build in a temporary folder and move, so that a killed build leaves no partial file.
        with tempfile.TemporaryDirectory(dir=target.parent) as folder, _own_tools_found():
            cpp_extension.load(
                target.stem,
                str(SOURCE),
                extra_cflags=_flags(torch.backends.cpu.get_cpu_capability()),
                build_directory=folder,
                verbose=verbose,
            )
            made = Path(folder) / target.name
            made.replace(target)
    except (ImportError, OSError, RuntimeError) as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise BuildError(
            f"the native backend could not be built ({reason[0].rstrip('.:')}): it needs a C++ "
            "compiler, ninja and setuptools, pip install 'kappaflow[native]'; everything works "
            "without it."
        ) from error
    _known.cache_clear()
    return target


@contextmanager
def _own_tools_found() -> Iterator[None]:
    """Lets torch find ninja in this Python environment, even if it is not activated."""
    before = os.environ.get("PATH", "")
    os.environ["PATH"] = os.pathsep.join((sysconfig.get_path("scripts"), before))
    try:
        yield
    finally:
        os.environ["PATH"] = before


def _flags(capability: str) -> list[str]:
    """Returns compiler flags for the capability that torch reports."""
    names = [f"-DCPU_CAPABILITY={capability}", f"-DCPU_CAPABILITY_{capability}"]
    threads = ["-fopenmp"] if torch.backends.openmp.is_available() else []
    return ["-O3", *threads, *names, *INSTRUCTIONS.get(capability, [])]


@functools.lru_cache(maxsize=2)
def _known(must: bool) -> tuple[NativeBackend, dict[str, int]] | None:
    target = path()
    if must and not target.exists():
        try:
            build()
        except BuildError as error:
            warnings.warn(str(error), RuntimeWarning, stacklevel=2)
    return _loaded(target) if target.exists() else None


def _backend(must: bool) -> tuple[NativeBackend, dict[str, int]] | None:
    """Returns the loaded backend and its operation codes, or None if it is unavailable."""
    with _lock:  # another thread may be loading the module
        return _known(must)


def _loaded(target: Path) -> tuple[NativeBackend, dict[str, int]] | None:
    try:
        loader = importlib.machinery.ExtensionFileLoader(target.stem, str(target))
        spec = importlib.util.spec_from_loader(target.stem, loader)
        module = importlib.util.module_from_spec(spec)  # pyright: ignore[reportArgumentType]
        loader.exec_module(module)
    except ImportError:  # incompatible or damaged file
        return None
    codes = {name: code for code, name in enumerate(module.names())}
    return (module, codes) if set(codes) == set(NAMES) else None  # pyright: ignore[reportReturnType]


def _after_fork() -> None:
    """Resets the lock and disables the backend, because OpenMP threads do not survive a fork."""
    global _lock, _forked
    _lock, _forked = threading.RLock(), True


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
