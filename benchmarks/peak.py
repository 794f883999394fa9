"""Resident memory of one training step, in a process that does nothing else."""

import ctypes
import gc
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from benchmarks.row import ImageShape, Row, Shape

# Settings of the allocator of the measuring process: each tensor from 64 KB on has its own
# mapping, so freed memory is returned immediately, and the peak counts living tensors, not heap
# fragments.
ENVIRONMENT = {
    "MALLOC_MMAP_THRESHOLD_": "65536",
    "MALLOC_TRIM_THRESHOLD_": "65536",
    "MALLOC_TOP_PAD_": "0",
}
_STATUS = Path("/proc/self/status")


def peak_of_step(row: Row, shape: Shape | ImageShape) -> dict[str, int]:
    """Returns the memory of forward and backward of a flow beyond its weights and gradients.

    The first step is measured, after the gradients have been allocated and after a flow of depth 2
    (or of one step per level) has warmed up the library and torch. So buffers that a flow keeps
    between steps count, because they occupy memory, and so do temporary gradients that are added
    to the allocated ones. The optimizer does not count, because its state is the same for all. The
    noise is about 0.3 MB, since the kernel counts pages in batches for each processor.
    """
    torch.manual_seed(0)
    small = {"depth": 2} if isinstance(shape, Shape) else {"steps": 1}
    _step(row, replace(shape, **small))
    return _step(row, shape)


def _step(row: Row, shape: Shape | ImageShape) -> dict[str, int]:
    model, x = row.build(shape), shape.data()
    for parameter in model.module.parameters():
        parameter.grad = torch.ones_like(parameter).mul_(0)  # written, so that it is resident
    before = _resident_after_trim()
    Path("/proc/self/clear_refs").write_text("5")  # resets the high-water mark
    loss = -model.log_prob(x).mean()
    kept = _resident_after_trim() - before
    loss.backward()
    peak = _status_bytes("VmHWM") - before
    return {"peak_bytes": peak, "kept_bytes": kept}


def peak_of_call(call: Callable[[], object]) -> int:
    """Returns the peak memory of a call beyond the memory in use before it, in bytes."""
    before = _resident_after_trim()
    Path("/proc/self/clear_refs").write_text("5")
    call()
    return _status_bytes("VmHWM") - before


def _resident_after_trim() -> int:
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    return _status_bytes("VmRSS")


def _status_bytes(name: str) -> int:
    found = re.search(rf"^{name}:\s+(\d+) kB$", _STATUS.read_text(), re.MULTILINE)
    if found is None:
        raise OSError(f"{_STATUS} does not name {name}.")
    return int(found[1]) * 1024
