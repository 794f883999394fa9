"""A player of recorded operations without the interpreter, where one has been built.

Two threads of Python share one interpreter lock, which they would hand over at each of the small
operations that a chunk consists of. The player executes a whole chunk without it. It is built once
by `python -m kappaflow native`, with a C++ compiler and ninja, and found from then on; without
one everything works in the same way, in Python.
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
from kappaflow.stack.programs import Executor, Player, PlayingExecutor

SOURCE = Path(__file__).with_name("native.cpp")
# Never more than torch itself makes use of on this processor.
INSTRUCTIONS = {
    "AVX2": ["-mavx2", "-mfma", "-mf16c"],
    "AVX512": ["-mavx512f", "-mavx512dq", "-mavx512vl", "-mavx512bw", "-mavx2", "-mfma"],
}

# Whether results are to be bit for bit those in Python; tests say so.
EXACT = False
_forked = False
_lock = threading.RLock()  # a build by KAPPAFLOW_NATIVE=1 is made under it


def executor(device_type: str) -> Executor:
    """Returns what executes chunks: with the player, if there is one.

    The environment variable KAPPAFLOW_NATIVE says whether it is used: 0 never, 1 always, building
    it where it is missing; otherwise where it has been built.
    """
    wanted = os.environ.get("KAPPAFLOW_NATIVE", "")
    found = None
    if wanted != "0" and device_type == "cpu" and not _forked:
        found = _player(wanted == "1")
    return Executor(device_type) if found is None else PlayingExecutor(*found, exact=EXACT)


def path() -> Path:
    """Returns where the player for this source, torch, Python and processor lies once built."""
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
    """Builds the player, which takes about half a minute, and returns where it lies.

    Args:
        verbose: Let the compiler speak.

    Returns:
        The compiled module.

    Raises:
        BuildError: There is no compiler or no ninja, or they fail.
    """
    target = path()
    try:
        from torch.utils import cpp_extension

        target.parent.mkdir(parents=True, exist_ok=True)
        # Elsewhere first: what lies under the name is whole, and nobody waits for a killed build.
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
        said = str(error).strip().splitlines() or [type(error).__name__]
        raise BuildError(
            f"the native player could not be built ({said[0].rstrip('.:')}): it needs a C++ "
            "compiler, ninja and setuptools, pip install 'kappaflow[native]'; everything works "
            "without it."
        ) from error
    _known.cache_clear()
    return target


@contextmanager
def _own_tools_found() -> Iterator[None]:
    """Lets torch find the ninja of this environment, also where that has not been activated."""
    before = os.environ.get("PATH", "")
    os.environ["PATH"] = os.pathsep.join((sysconfig.get_path("scripts"), before))
    try:
        yield
    finally:
        os.environ["PATH"] = before


def _flags(capability: str) -> list[str]:
    """Returns what the compiler is told, for a processor that torch has found to be so capable."""
    names = [f"-DCPU_CAPABILITY={capability}", f"-DCPU_CAPABILITY_{capability}"]
    threads = ["-fopenmp"] if torch.backends.openmp.is_available() else []
    return ["-O3", *threads, *names, *INSTRUCTIONS.get(capability, [])]


@functools.lru_cache(maxsize=2)
def _known(must: bool) -> tuple[Player, dict[str, int]] | None:
    target = path()
    if must and not target.exists():
        try:
            build()
        except BuildError as error:
            warnings.warn(str(error), RuntimeWarning, stacklevel=2)
    return _loaded(target) if target.exists() else None


def _player(must: bool) -> tuple[Player, dict[str, int]] | None:
    """Returns the player and the number of each operation; None, for this process, without one."""
    with _lock:  # a module that another thread is just loading is a half of one
        return _known(must)


def _loaded(target: Path) -> tuple[Player, dict[str, int]] | None:
    try:
        loader = importlib.machinery.ExtensionFileLoader(target.stem, str(target))
        spec = importlib.util.spec_from_loader(target.stem, loader)
        module = importlib.util.module_from_spec(spec)  # pyright: ignore[reportArgumentType]
        loader.exec_module(module)
    except ImportError:  # built by another compiler, or no module at all
        return None
    codes = {name: code for code, name in enumerate(module.names())}
    return (module, codes) if set(codes) == set(NAMES) else None  # pyright: ignore[reportReturnType]


def _after_fork() -> None:
    """A forked process has none of the threads that held the lock, or that the player would use.

    Nor can it start them: OpenMP's team of threads does not survive a fork.
    """
    global _lock, _forked
    _lock, _forked = threading.RLock(), True


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
