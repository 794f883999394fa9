"""How much of a file is read: what fits in memory, and columns that can be fitted."""

import os
from gzip import GzipFile
from pathlib import Path
from typing import IO

from kappaflow.errors import FileError

COPIES = 4  # copies of a file's content: unpacked, parsed, as columns, as one array
MOST_COLUMNS = 100_000
_UNKNOWN = 2**33
_CHUNK = 2**20
_CGROUP = Path("/sys/fs/cgroup/memory.max")


def memory_bytes() -> int:
    """Returns the memory that this process may use: that of the machine, or a lower limit."""
    if os.name != "posix":
        return _UNKNOWN
    import resource

    results = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    results += [limit] if limit != resource.RLIM_INFINITY else []
    try:
        results.append(int(_CGROUP.read_text()))
    except (OSError, ValueError):  # no such group, or one without a limit
        pass
    return min(results)


def refuse_large(size: int, subject: str) -> None:
    """Raises FileError if memory cannot hold the content of a file of this many bytes."""
    most = memory_bytes() // COPIES
    if size > most:
        raise FileError(
            f"{subject} would unpack to {size / 2**30:.1f} GiB, which is more than the "
            f"{most / 2**30:.1f} GiB that there is room for: give a part of it."
        )


def refuse_wide(columns: int, subject: str) -> None:
    """Raises FileError if there are more columns than a flow can be fitted to."""
    if columns > MOST_COLUMNS:
        raise FileError(
            f"{subject} has {columns:,} columns, more than the {MOST_COLUMNS:,} that are read."
        )


def unpacked(stream: IO[bytes] | GzipFile, subject: str, most: int | None = None) -> bytes:
    """Returns the content of a stream, up to `most` bytes; raises FileError if it is too large."""
    parts, size, room = [], 0, memory_bytes() // COPIES
    while part := stream.read(_CHUNK if most is None else min(_CHUNK, most - size)):
        parts.append(part)
        size += len(part)
        if size > room:
            refuse_large(size, subject)
    return b"".join(parts)
