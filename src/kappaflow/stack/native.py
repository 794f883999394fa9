"""Loads the native backend, which executes recorded operations in C.

Python threads compete for the interpreter lock at each of the small operations of a chunk. The
native backend executes a whole chunk without the lock. `hatch_build.py` compiles it when the
package is built. Without it, the same operations run in Python.
"""

import ctypes
import functools
import hashlib
import os
import struct
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path

import torch
from threadpoolctl import ThreadpoolController
from torch import Tensor

from kappaflow.stack.operations import NAMES, Entry
from kappaflow.stack.tape import Executor, NativeExecutor
from kappaflow.stack.threads import run_all

SOURCE = Path(__file__).with_name("native.c")
_STEP = struct.Struct("=q" + "qiiii" * 7 + "3d")  # as in native.c
_forked = False
MANY = 4096  # points of splines on a thread, at least


def executor(tensors: Sequence[Tensor], product_dtype: torch.dtype) -> Executor:
    """Returns the executor of recorded operations: native, or Python.

    Args:
        tensors: The states and the weights. The native backend needs contiguous float32 numbers
            on the processor.
        product_dtype: The dtype of the conditioners' products.
    """
    device = tensors[0].device.type
    fits = device == "cpu" and product_dtype == torch.float32
    fits = fits and all(t.dtype == torch.float32 and t.is_contiguous() for t in tensors)
    found = backend() if fits else None
    return Executor(device) if found is None else NativeExecutor(found)


def backend() -> "Backend | None":
    """Returns the native backend; None if there is none, or if KAPPAFLOW_NATIVE is 0."""
    return None if os.environ.get("KAPPAFLOW_NATIVE") == "0" else _loaded()


def describe() -> str:
    """Returns whether stacks run natively: "native backend (avx512)" or "no native backend"."""
    found = backend()
    return "no native backend" if found is None else f"native backend ({found.instructions})"


def library() -> Path:
    """Returns the path of the library with the instructions that torch finds here."""
    found = torch.backends.cpu.get_cpu_capability().lower()
    paths = {name: SOURCE.with_name(f"native_{name}.so") for name in (found, "default")}
    return paths[found] if paths[found].exists() else paths["default"]


@functools.lru_cache(maxsize=1)
def _loaded() -> "Backend | None":
    path = library()
    if not path.exists():
        return None
    try:
        return Backend(path)
    except OSError as error:
        text = f"{error}: coupling stacks run in Python. Reinstall kappaflow (pip install .)."
        warnings.warn(text, RuntimeWarning, stacklevel=2)
        return None


class Backend:
    """A library for one instruction set.

    Matrix products are those of torch where it exports them, as with MKL on Linux, otherwise
    those of scipy. Tapes run on torch's threads with MKL, otherwise on threads of Python.

    Args:
        path: The compiled library.

    Attributes:
        instructions: The instruction set.
        codes: The number of each operation.

    Raises:
        OSError: The file cannot be loaded, or is not compiled from `SOURCE`.
    """

    def __init__(self, path: Path) -> None:
        self.instructions = path.stem.removeprefix("native_")
        self._library = made = ctypes.CDLL(str(path))
        made.source.restype = made.names.restype = ctypes.c_char_p
        if made.source().decode() != _digest():
            raise OSError(f"{path} is not compiled from this {SOURCE.name}")
        names = made.names().decode().split()
        if set(names) != set(NAMES):
            raise OSError(f"{path} has other operations than operations.py")
        self.codes = {name: code for code, name in enumerate(names)}
        products = _address("sgemm_")
        threads = _address("MKL_Set_Num_Threads_Local") if products else None
        parallel_for = _address("torch_parallel_for") if threads else None  # from torch 2.10
        self._threads_are_torchs = parallel_for is not None
        self._limit = nullcontext if threads else _single_blas
        pointers = products or _address_in_scipy(), threads, parallel_for
        made.use(*map(ctypes.c_void_p, pointers))

    def splines(self, rows: int, arguments: ctypes.Structure) -> None:
        """Evaluates splines or their gradients; see splines.c."""
        made, pointer = self._library, ctypes.byref(arguments)
        if self._threads_are_torchs and not _forked and torch.get_num_threads() > 1:
            made.splines_in_parallel(
                ctypes.c_int64(rows),
                ctypes.c_int64(max(1, MANY // max(1, arguments.columns))),
                pointer,
            )
        else:
            made.splines(ctypes.c_int64(0), ctypes.c_int64(rows), pointer)

    def tape(self, entries: Sequence[Entry]) -> "Tape":
        """Returns a tape of recorded operations."""
        return Tape(entries)

    def execute(self, tapes: Sequence["Tape"]) -> None:
        """Executes tapes in parallel, without the interpreter."""
        count = len(tapes)
        table = (ctypes.c_int64 * (2 * count))(*(n for tape in tapes for n in tape.place))
        enough = self._threads_are_torchs and 1 < count <= torch.get_num_threads()
        if enough and not _forked:  # OpenMP does not survive a fork
            self._library.execute_all(ctypes.c_int64(count), table)
            return

        def one(index: int) -> None:
            self._library.execute(ctypes.c_int64(index), ctypes.c_int64(index + 1), table)

        with self._limit():
            run_all([functools.partial(one, index) for index in range(count)])


def _digest() -> str:
    return hashlib.sha256(
        b"".join(path.read_bytes() for path in sorted(SOURCE.parent.glob("*.c")))
    ).hexdigest()


class Tape:
    """Recorded operations for the library. It keeps the memory of their tensors alive.

    Args:
        entries: Code and operands of each operation.
    """

    def __init__(self, entries: Sequence[Entry]) -> None:
        storages = (o.untyped_storage() for e in entries for o in e if isinstance(o, Tensor))
        self._alive = {storage.data_ptr(): storage for storage in storages}
        packed = b"".join(map(_step, entries))
        self._steps = ctypes.create_string_buffer(packed, len(packed) or 1)
        self.place = ctypes.addressof(self._steps), len(entries)


def _step(entry: Entry) -> bytes:
    code, *operands = entry
    arrays, numbers = [0] * 35, [0.0] * 3
    place = number = 0
    for operand in operands:
        if operand is None or isinstance(operand, Tensor):
            arrays[place : place + 5] = _array(operand)
            place += 5
        elif not isinstance(operand, torch.Generator):
            numbers[number] = operand
            number += 1
    return _STEP.pack(code, *arrays, *numbers)


def _array(tensor: Tensor | None) -> tuple[int, int, int, int, int]:
    """Returns address, rows, columns, and the steps between rows and between columns."""
    if tensor is None:
        return 0, 0, 0, 0, 0
    if tensor.dim() < 2:
        return tensor.data_ptr(), tensor.numel(), 1, 1, 1
    (rows, columns), (row_step, column_step) = tensor.shape, tensor.stride()
    if column_step == 1 or columns == 1:
        return tensor.data_ptr(), rows, columns, max(row_step, columns, 1), 1
    return tensor.data_ptr(), rows, columns, 1, column_step


def _address(name: str) -> int | None:
    """Returns the address of a function that torch's library exports."""
    folder = Path(torch.__file__).parent / "lib"
    for path in folder.glob("*torch_cpu.*"):
        found = getattr(ctypes.CDLL(str(path)), name, None) if path.suffix != ".lib" else None
        if found is not None:
            return ctypes.cast(found, ctypes.c_void_p).value
    return None


def _address_in_scipy() -> int | None:
    from scipy.linalg import cython_blas  # pyright: ignore[reportAttributeAccessIssue]

    capsule, python = ctypes.py_object(cython_blas.__pyx_capi__["sgemm"]), ctypes.pythonapi
    python.PyCapsule_GetName.restype = ctypes.c_char_p
    python.PyCapsule_GetPointer.restype = ctypes.c_void_p
    name = ctypes.c_char_p(python.PyCapsule_GetName(capsule))
    return python.PyCapsule_GetPointer(capsule, name)


_lock, _users, _limit = threading.Lock(), 0, None


@contextmanager
def _single_blas() -> Iterator[None]:
    """Makes products of BLAS libraries other than MKL single-threaded, for all threads."""
    global _users, _limit
    with _lock:
        _users += 1
        if _users == 1:
            _limit = _blas().limit(limits=1, user_api="blas")
    try:
        yield
    finally:
        with _lock:
            _users -= 1
            if not _users and _limit is not None:
                _limit.restore_original_limits()


@functools.lru_cache(maxsize=1)
def _blas() -> ThreadpoolController:
    return ThreadpoolController()  # looks through all loaded libraries


def _after_fork() -> None:
    """Resets the lock, because the threads that may hold it do not survive a fork."""
    global _lock, _users, _forked
    _lock, _users, _forked = threading.Lock(), 0, True


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
