"""Folders that one process at a time writes to; the lock of a process ends with it."""

import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from kappaflow.errors import WriteError
from kappaflow.ranks import is_first
from kappaflow.storage import make_directory, remove_unfinished

LOCK = ".lock"


@contextmanager
def locked(folder: str | Path) -> Iterator[None]:
    """Keeps other processes from writing to a folder inside the context.

    The folder is made if it is missing, with its parents, and these are removed if nothing was
    written to it; what was left in it by a process that was killed in the middle of a write is
    removed. Where a file system has no locks, or nothing can be written, there is nothing to be
    kept from. The thread that has entered may enter again. Under torchrun the first rank has the
    lock for all.

    Args:
        folder: For those who ask for a lock; others read and write as they like.

    Raises:
        WriteError: Another process has the folder, and which.
    """
    if not is_first():
        yield
        return
    place = Path(folder).resolve()
    missing = [one for one in (place, *place.parents) if not one.exists()]
    make_directory(folder)
    lock = FileLock(place / LOCK, timeout=0, is_singleton=True)
    try:
        lock.acquire()
    except Timeout:
        raise WriteError(
            f"{folder} is in use by {_holder(place / LOCK)}: wait until that has ended, or write "
            "to another folder."
        ) from None
    except OSError:
        pass
    try:
        if lock.lock_counter == 1:
            _sign(place / LOCK)
            remove_unfinished(place)
        yield
    finally:
        if lock.lock_counter == 1:  # removed first: who waits for this file looks for a new one
            with suppress(OSError):
                (place / LOCK).unlink(missing_ok=True)
        lock.release()
        for one in missing:
            with suppress(OSError):
                one.rmdir()


def _sign(path: Path) -> None:
    """Writes the holder of the lock, for the error message of other processes."""
    since = time.strftime("%Y-%m-%d %H:%M:%S %z")
    holder = {"pid": os.getpid(), "host": socket.gethostname(), "since": since}
    with suppress(OSError):  # no room, or locked files cannot be written to, as on Windows
        path.write_text(json.dumps(holder))


def _holder(path: Path) -> str:
    """Returns the holder of the lock as text."""
    try:
        holder = json.loads(path.read_bytes())
        return f"process {holder['pid']} on {holder['host']}, since {holder['since']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"
