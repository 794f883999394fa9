"""Locks of folders: one process at a time writes to a run folder."""

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
    """Holds the lock of a folder, so that no other process writes to it through this function.

    The folder is created if it is missing, and removed again if it is still empty at the end.
    Temporary files that a killed process left in it are removed. A file system without locks is
    used without one. The same thread may enter several times. Of several ranks the first holds the
    lock for all.
    """
    if not is_first():
        yield
        return
    path = Path(folder).resolve()
    created = [parent for parent in (path, *path.parents) if not parent.exists()]
    make_directory(folder)
    lock = FileLock(path / LOCK, timeout=0, is_singleton=True)
    try:
        lock.acquire()
    except Timeout:
        raise WriteError(
            f"{folder} is in use by {_holder(path / LOCK)}: wait until that has ended, or write "
            "to another folder."
        ) from None
    except OSError:
        pass
    try:
        if lock.lock_counter == 1:
            _write_holder(path / LOCK)
            remove_unfinished(path)
        yield
    finally:
        if (
            lock.lock_counter == 1
        ):  # before the release: who waits for this file looks for a new one
            with suppress(OSError):
                (path / LOCK).unlink(missing_ok=True)
        lock.release()
        for parent in created:
            with suppress(OSError):
                parent.rmdir()


def _write_holder(path: Path) -> None:
    """Writes who holds the lock, for the error message of other processes."""
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
