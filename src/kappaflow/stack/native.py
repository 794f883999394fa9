"""Loads the native backend, which executes recorded operations in C.

Python threads compete for the interpreter lock at each of the small operations of a chunk. The
native backend executes a whole chunk without the lock. `hatch_build.py` compiles it when the
package is built. Without it, the same operations run in Python.
"""

import ctypes
import functools
import os
import struct
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from itertools import zip_longest

import numpy as np
import torch
from threadpoolctl import ThreadpoolController
from torch import Tensor

from kappaflow.native import Library, address_in_torch, library
from kappaflow.stack.operations import Entry
from kappaflow.stack.tape import Executor, Job, Work, entries_of
from kappaflow.stack.threads import run_all

_STEP = struct.Struct("=q" + "qiiii" * 7 + "3d")  # as in tapes.c


def executor(tensors: Sequence[Tensor], product_dtype: torch.dtype) -> Executor:
    """Returns the executor of recorded operations: native, or Python."""
    device = tensors[0].device.type
    fits = device == "cpu" and product_dtype == torch.float32
    fits = fits and all(t.dtype == torch.float32 and t.is_contiguous() for t in tensors)
    native = backend() if fits else None
    return Executor(device) if native is None else NativeExecutor(native)


class NativeExecutor(Executor):
    """Executes tapes with the native backend."""

    moves = True

    def __init__(self, backend: "Backend") -> None:
        super().__init__("cpu")
        self._backend = backend

    def run(self, lanes: Sequence[Sequence[Work]]) -> None:
        with self.default_modes():
            for works in zip_longest(*lanes):
                running = [work() for work in works if work is not None]
                while jobs := [job for work in running if (job := next(work, None))]:
                    tapes = [job.tapes.get("native", job, self._record) for job in jobs]
                    for tape, job in zip(tapes, jobs, strict=True):
                        tape.move(job.moved)
                    self._backend.execute(tapes)

    def _record(self, job: Job) -> "Tape":
        return Tape(entries_of(job, self._backend.codes))


def backend() -> "Backend | None":
    """Returns the native backend; None if there is none, or if KAPPAFLOW_NATIVE is 0."""
    loaded = library()
    return None if loaded is None else _backend_of(loaded)


class Backend:
    """Executes tapes by the library.

    Matrix products are those of torch where it exports them, as with MKL on Linux, otherwise
    those of scipy. Tapes run on torch's threads with MKL, otherwise on threads of Python.
    """

    def __init__(self, library: Library) -> None:
        self._library = library
        self.codes = {name: code for code, name in enumerate(library.text("names").split())}
        products = address_in_torch("sgemm_")
        self._set_threads = address_in_torch("MKL_Set_Num_Threads_Local") if products else None
        self._limit = nullcontext if self._set_threads else _single_blas
        addresses = {"sgemm": products or _address_in_scipy(), "set_threads": self._set_threads}
        for name, address in addresses.items():
            ctypes.c_void_p.in_dll(library.functions, name).value = address

    @property
    def loop(self) -> int | None:
        """The address of the loop over torch's threads; None without them or without MKL."""
        return self._library.parallel_for if self._set_threads else None

    def execute(self, tapes: Sequence["Tape"]) -> None:
        """Executes tapes in parallel, without the interpreter."""
        count = len(tapes)
        table = (ctypes.c_int64 * (2 * count))(*(n for tape in tapes for n in tape.place))
        functions, loop = self._library.functions, self.loop
        if loop is not None and 1 < count <= torch.get_num_threads():
            functions.execute_all(ctypes.c_void_p(loop), ctypes.c_int64(count), table)
            return

        def run(index: int) -> None:
            functions.execute(ctypes.c_int64(index), ctypes.c_int64(index + 1), table)

        with self._limit():
            run_all([functools.partial(run, index) for index in range(count)])


_backend_of = functools.lru_cache(maxsize=1)(Backend)


class Tape:
    """Recorded operations for the library. It keeps the memory of their tensors alive."""

    def __init__(self, entries: Sequence[Entry]) -> None:
        storages = (o.untyped_storage() for e in entries for o in e if isinstance(o, Tensor))
        self._alive = {storage.data_ptr(): storage for storage in storages}
        packed = b"".join(map(_step, entries))
        self._steps = ctypes.create_string_buffer(packed, len(packed) or 1)
        self.place = ctypes.addressof(self._steps), len(entries)
        words = np.frombuffer(memoryview(self._steps), np.int64, len(entries) * _STEP.size // 8)
        self._addresses = words.reshape(len(entries), -1)[:, 1:22:3]
        self._recorded = self._addresses.copy()

    def move(self, pairs: Sequence[tuple[Tensor, Tensor]]) -> None:
        """Uses the memory of the second tensor of each pair in place of the first one's."""
        for recorded, used in pairs:
            offset = self._recorded - recorded.data_ptr()
            inside = (offset >= 0) & (offset < recorded.nbytes)
            self._addresses[inside] = offset[inside] + used.data_ptr()


def _step(entry: Entry) -> bytes:
    code, *operands = entry
    numbers = [o for o in operands if isinstance(o, int | float)]
    arrays = [n for o in operands if o is None or isinstance(o, Tensor) for n in _array(o)]
    padding = [0] * (35 - len(arrays)), [0.0] * (3 - len(numbers))
    return _STEP.pack(code, *arrays, *padding[0], *numbers, *padding[1])


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
    global _lock, _users
    _lock, _users = threading.Lock(), 0


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
