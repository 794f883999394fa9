"""Small disks in memory that can be filled and made read-only, if mounting is allowed."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

MEGABYTES = 8


def can_mount(folder: Path) -> bool:
    """Returns whether this process may mount a disk in a folder."""
    try:
        with disk(folder / "probe"):
            return True
    except (OSError, subprocess.CalledProcessError):
        return False


@contextmanager
def disk(place: Path) -> Iterator[Path]:
    """Mounts a small disk while the context is active."""
    place.mkdir(parents=True, exist_ok=True)
    _run("mount", "-t", "tmpfs", "-o", f"size={MEGABYTES}m", "tmpfs", place)
    try:
        yield place
    finally:
        _run("umount", place)
        place.rmdir()


@contextmanager
def filled(place: Path, *, room: int) -> Iterator[None]:
    """Leaves only `room` bytes free on a disk while the context is active."""
    found = subprocess.run(
        ["df", "--output=avail", "-B1", place], capture_output=True, text=True, check=True
    )
    ballast = place / "ballast"
    ballast.write_bytes(bytes(max(0, int(found.stdout.split()[-1]) - room)))
    try:
        yield
    finally:
        ballast.unlink()


@contextmanager
def read_only(place: Path) -> Iterator[None]:
    """Makes a disk read-only while the context is active."""
    _run("mount", "-o", "remount,ro", place)
    try:
        yield
    finally:
        _run("mount", "-o", "remount,rw", place)


def _run(*words: str | Path) -> None:
    subprocess.run(words, check=True, capture_output=True)
