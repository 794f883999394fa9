"""The image files below a folder, in an order that does not depend on the file system."""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from kappaflow.data.images.errors import explained

SUFFIXES = (
    ".png",
    ".jpg",
    ".jpeg",
    ".bmp",
    ".gif",
    ".webp",
    ".tif",
    ".tiff",
    ".pgm",
    ".ppm",
)
_NUMBER = re.compile("([0-9]+)")


@dataclass(frozen=True)
class Found:
    """What lies below a folder: image files, by their paths from there, and others."""

    images: tuple[str, ...]
    others: tuple[str, ...]


def find_images(folder: Path, suffixes: tuple[str, ...] = SUFFIXES) -> Found:
    """Returns the files below a folder, sorted folder by folder; hidden ones do not count."""
    images, others = [], []
    for name, can_be_read in _files(folder):
        is_image = can_be_read and name.lower().endswith(suffixes)
        (images if is_image else others).append(name)
    return Found(tuple(sorted(images, key=order)), tuple(sorted(others, key=order)))


def order(name: str) -> list[tuple[tuple[str | int, ...], str]]:
    """Returns what names are sorted by: folder by folder, and 2 before 10."""
    chunks = [(_NUMBER.split(part), part) for part in name.split("/")]
    # every other chunk is a number, so that numbers are compared with numbers only
    return [
        (tuple(int(chunk) if place % 2 else chunk for place, chunk in enumerate(split)), part)
        for split, part in chunks
    ]


def holds_images(folder: Path) -> bool:
    """Returns whether an image file lies below a folder, looking no further than the first."""
    return any(can_be_read and is_image_name(name) for name, can_be_read in _files(folder))


def is_image_name(name: str) -> bool:
    """Returns whether a file is called as images are."""
    return name.lower().endswith(SUFFIXES)


def _files(folder: Path) -> Iterator[tuple[str, bool]]:
    """Yields the paths of files from a folder on, and whether each can be read.

    Links to folders are followed after all folders, and no folder is entered twice: a loop of
    links ends, and what lies below keeps its own name.
    """
    waiting = [""]
    entered: set[tuple[int, int]] = set()
    while waiting:
        prefix = waiting.pop()
        here = folder / prefix
        with explained(here):
            status = here.stat()
            if (status.st_dev, status.st_ino) in entered:
                continue
            entered.add((status.st_dev, status.st_ino))
            with os.scandir(here) as entries:
                listed = sorted(entries, key=lambda entry: entry.name, reverse=True)
        for entry in listed:
            name = prefix + entry.name
            if entry.name.startswith("."):
                continue
            if os.path.isdir(entry):
                waiting.insert(0 if entry.is_symlink() else len(waiting), name + "/")
            else:
                yield name, _can_be_read(entry)


def _can_be_read(entry: os.DirEntry[str]) -> bool:
    """Returns whether an entry is a file, or a broken link, which its reader will complain of.

    A pipe would keep its reader waiting.
    """
    return os.path.isfile(entry) or not os.path.exists(entry)
