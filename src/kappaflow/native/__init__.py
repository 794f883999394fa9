"""The native backend: C code that comes with the package, for float32 numbers on the CPU.

`tapes.c` executes the operations of coupling stacks and `splines.c` evaluates splines. Both
compute what the Python code does, up to rounding. `hatch_build.py` compiles them when the package
is built. Without the library, or with KAPPAFLOW_NATIVE=0 in the environment, Python code runs.
"""

import ctypes
import functools
import hashlib
import os
import warnings
from collections.abc import Iterable
from pathlib import Path

import torch

FOLDER = Path(__file__).parent
_forked = False


class Library:
    """The compiled library for one instruction set."""

    def __init__(self, path: Path) -> None:
        self.functions = ctypes.CDLL(str(path))
        self.instructions = path.stem.removeprefix("native_")
        if self.text("source") != digest(FOLDER.glob("*.[ch]")):
            raise OSError(f"{path} is not compiled from the source in {FOLDER}")
        # torch exports it from 2.10 on. Its threads and those of MKL are the same.
        self._parallel_for = address_in_torch("torch_parallel_for")

    def text(self, name: str) -> str:
        """Returns a text that the library exports."""
        return (ctypes.c_char_p.in_dll(self.functions, name).value or b"").decode()

    @property
    def parallel_for(self) -> int | None:
        """The address of a loop on the threads of torch; None if they are not available."""
        return None if _forked else self._parallel_for  # OpenMP does not survive a fork


def library() -> Library | None:
    """Returns the library for this processor; None if it is missing or disabled."""
    return None if os.environ.get("KAPPAFLOW_NATIVE") == "0" else _loaded()


def describe() -> str:
    """Returns which backend runs: "native backend (avx512)" or "no native backend"."""
    loaded = library()
    return "no native backend" if loaded is None else f"native backend ({loaded.instructions})"


def path_of_library() -> Path:
    """Returns the path of the library with the instructions that torch finds here."""
    capability = torch.backends.cpu.get_cpu_capability().lower()
    paths = {name: FOLDER / f"native_{name}.so" for name in (capability, "default")}
    return paths[capability] if paths[capability].exists() else paths["default"]


def digest(sources: Iterable[Path]) -> str:
    """Returns the digest of source files, as `hatch_build.py` stores it in the library."""
    return hashlib.sha256(b"".join(path.read_bytes() for path in sorted(sources))).hexdigest()


def address_in_torch(name: str) -> int | None:
    """Returns the address of a function that torch's library exports; None if there is none."""
    folder = Path(torch.__file__).parent / "lib"
    for path in folder.glob("*torch_cpu.*"):
        function = getattr(ctypes.CDLL(str(path)), name, None) if path.suffix != ".lib" else None
        if function is not None:
            return ctypes.cast(function, ctypes.c_void_p).value
    return None


@functools.lru_cache(maxsize=1)
def _loaded() -> Library | None:
    path = path_of_library()
    if not path.exists():
        return None
    try:
        return Library(path)
    except OSError as error:
        text = f"{error}: Python code runs instead. Reinstall kappaflow (pip install .)."
        warnings.warn(text, RuntimeWarning, stacklevel=2)
        return None


def _after_fork() -> None:
    global _forked
    _forked = True


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
