"""Resident memory of one training step, in a process that does nothing else."""

import ctypes
import gc
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from benchmarks.row import ImageShape, Row, Shape

# The allocator of the measuring process: every tensor from 64 KB on is mapped on its own, so that
# what is freed goes back at once and the peak is that of living tensors, not of holes in a heap.
ENVIRONMENT = {
    "MALLOC_MMAP_THRESHOLD_": "65536",
    "MALLOC_TRIM_THRESHOLD_": "65536",
    "MALLOC_TOP_PAD_": "0",
}
_STATUS = Path("/proc/self/status")


def peak_of_step(row: Row, shape: Shape | ImageShape) -> dict[str, int]:
    """Returns what forward and backward of a flow need beyond its weights and gradients.

    The first step is measured, after the gradients have been allocated by hand, and after a flow
    of depth 2, or of a step a level, has warmed up the library and torch: buffers that a flow
    keeps from one step to the next count, as they occupy memory. So do temporary gradients that
    are added to those allocated. The optimiser does not: its state is the same for all. The noise
    is some 0.3 MB, since the kernel counts pages in batches for each processor.

    Args:
        row: Which flow.
        shape: Of the flow.

    Returns:
        "peak_bytes", and "kept_bytes": what is held between forward and backward.

    Raises:
        OSError: This is not Linux, or /proc may not be written.
    """
    torch.manual_seed(0)
    small = {"depth": 2} if isinstance(shape, Shape) else {"steps": 1}
    _step(row, replace(shape, **small))
    return _step(row, shape)


def _step(row: Row, shape: Shape | ImageShape) -> dict[str, int]:
    model, x = row.build(shape), shape.data()
    for parameter in model.module.parameters():
        parameter.grad = torch.ones_like(parameter).mul_(0)  # written, therefore resident
    before = _resident_after_trim()
    Path("/proc/self/clear_refs").write_text("5")  # the high-water mark starts again from here
    loss = -model.log_prob(x).mean()
    kept = _resident_after_trim() - before
    loss.backward()
    peak = _status_bytes("VmHWM") - before
    return {"peak_bytes": peak, "kept_bytes": kept}


def peak_of_call(call: Callable[[], object]) -> int:
    """Returns the most that a call has in memory beyond what was there before, in bytes."""
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
