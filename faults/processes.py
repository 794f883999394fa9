"""What a process holds, as Linux tells it."""

import re
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Held:
    """What a process holds at a moment.

    Attributes:
        memory_bytes: In memory.
        peak_bytes: The most that was in memory.
        files: Open ones.
        threads: How many.
    """

    memory_bytes: int
    peak_bytes: int
    files: int
    threads: int


def held_by(pid: int) -> Held | None:
    """Returns what a process holds; None where it has ended, or this is not Linux."""
    place = Path("/proc") / str(pid)
    try:
        text, files = (place / "status").read_text(), len(list((place / "fd").iterdir()))
    except OSError:
        return None
    numbers = dict(re.findall(r"^(VmRSS|VmHWM|Threads):\s+(\d+)", text, re.MULTILINE))
    if "VmRSS" not in numbers:  # it is ending
        return None
    memory, peak = int(numbers["VmRSS"]) * 1024, int(numbers["VmHWM"]) * 1024
    return Held(memory, peak, files, int(numbers["Threads"]))
