"""What may be unpacked: a small file can promise, or hold, more than there is memory."""

import os
from pathlib import Path
from typing import Protocol

from kappaflow.errors import FileError

COPIES = 4  # of the content of a file: unpacked, parsed, as columns, as one array
MOST_COLUMNS = 100_000
_UNKNOWN = 2**33
_CHUNK = 2**20
_CGROUP = Path("/sys/fs/cgroup/memory.max")


class Stream(Protocol):
    """What bytes are read from."""

    def read(self, size: int, /) -> bytes:
        """Returns up to `size` bytes."""
        ...


def memory_bytes() -> int:
    """Returns how much memory this process may have: of the machine, or what it is limited to."""
    if os.name != "posix":
        return _UNKNOWN
    import resource

    found = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    found += [limit] if limit != resource.RLIM_INFINITY else []
    try:
        found.append(int(_CGROUP.read_text()))
    except (OSError, ValueError):  # no such group, or one without a limit
        pass
    return min(found)


def refuse_large(size: int, subject: str) -> None:
    """Raises FileError if there is no room for what a file of so many bytes is read into."""
    most = memory_bytes() // COPIES
    if size > most:
        raise FileError(
            f"{subject} would unpack to {size / 2**30:.1f} GiB, which is more than the "
            f"{most / 2**30:.1f} GiB that there is room for: give a part of it."
        )


def refuse_wide(columns: int, subject: str) -> None:
    """Raises FileError if there are more columns than any flow is fitted to."""
    if columns > MOST_COLUMNS:
        raise FileError(
            f"{subject} has {columns:,} columns, more than the {MOST_COLUMNS:,} that are read."
        )


def unpacked(stream: Stream, subject: str, most: int | None = None) -> bytes:
    """Returns what a stream holds, up to `most` bytes, as far as there is room for it."""
    parts, size, room = [], 0, memory_bytes() // COPIES
    while most is None or size < most:
        part = stream.read(_CHUNK if most is None else min(_CHUNK, most - size))
        if not part:
            break
        parts.append(part)
        size += len(part)
        if size > room:
            refuse_large(size, subject)
    return b"".join(parts)
