"""How much of a file is read: what fits in memory, also decompressed, and what can be fitted."""

import os
import zipfile
from collections.abc import Sequence
from gzip import GzipFile
from importlib import import_module
from pathlib import Path
from typing import IO

from kappaflow.errors import FileError

COPIES = 4  # copies of a file's content: unpacked, parsed, as columns, as one array
MOST_COLUMNS = 100_000
LISTED = 12  # tables of a file that an error names
OPENERS = {".gz": "gzip", ".bz2": "bz2", ".xz": "lzma"}  # not every Python has them all
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


def decompressed(path: Path, subject: str, table: str | None = None) -> bytes:
    """Returns the content of a compressed file; of a zip archive that of its file `table`."""
    suffix = path.suffix.lower()
    with path.open("rb") as packed:
        try:
            if suffix == ".zip":
                with zipfile.ZipFile(packed) as archive:
                    names = [name for name in archive.namelist() if not name.endswith("/")]
                    files = [name for name in names if not name.startswith("__MACOSX/")]
                    with archive.open(choose_table(files, table, subject, "files")) as stream:
                        return unpacked(stream, subject)
            with import_module(OPENERS[suffix]).open(packed) as stream:
                return unpacked(stream, subject)
        except (FileError, ImportError, MemoryError, RuntimeError):  # also of a password
            raise
        except Exception:
            raise FileError(
                f"{subject} is not a complete {suffix} file: compress or copy it again."
            ) from None


def choose_table(
    names: Sequence[str], table: str | None, subject: str, kind: str = "tables"
) -> str:
    """Returns the name of the table to read, the only one or `table`; an error lists them."""
    if table in names or (table is None and len(names) == 1):
        return names[0] if table is None else table
    if not names:
        raise FileError(f"{subject} holds no {kind.removesuffix('s')} that can be read.")
    listed = ", ".join(f"'{name}'" for name in names[:LISTED])
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    if table is not None:
        raise FileError(f"{subject} names none of the {kind} {listed}{more}.")
    raise FileError(
        f"{subject} holds {len(names)} {kind}, {listed}{more}: name one after the path, such as "
        f"{subject[:-1]}::{names[0]}'."
    )
