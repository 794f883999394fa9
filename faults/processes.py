"""The resources of a process, from Linux."""

import re
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Held:
    """The resources of a process at one moment.

    Attributes:
        memory_bytes: Resident memory.
        peak_bytes: Peak of the resident memory.
        files: Number of open files.
        threads: Number of threads.
    """

    memory_bytes: int
    peak_bytes: int
    files: int
    threads: int


def held_by(pid: int) -> Held | None:
    """Returns the resources of a process; None if it has ended, or if this is not Linux."""
    place = Path("/proc") / str(pid)
    try:
        text, files = (place / "status").read_text(), len(list((place / "fd").iterdir()))
    except OSError:
        return None
    numbers = dict(re.findall(r"^(VmRSS|VmHWM|Threads):\s+(\d+)", text, re.MULTILINE))
    if "VmRSS" not in numbers:  # the process is ending
        return None
    memory, peak = int(numbers["VmRSS"]) * 1024, int(numbers["VmHWM"]) * 1024
    return Held(memory, peak, files, int(numbers["Threads"]))
