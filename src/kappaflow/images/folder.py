"""Loads a folder of image files."""

import math
import os
import re
import warnings
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path, PurePosixPath

import numpy as np

from kappaflow.data.limits import refuse_large
from kappaflow.data.naming import IntArray
from kappaflow.errors import DataError, FileError
from kappaflow.images.decode import (
    Form,
    FormRequest,
    Header,
    decode_file,
    explained,
    read_header,
    readable,
    require_pillow,
    shown,
)
from kappaflow.images.images import Images

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".pgm", ".ppm")
_NUMBER = re.compile("([0-9]+)")


def find_images(
    folder: Path, suffixes: tuple[str, ...] = SUFFIXES
) -> tuple[tuple[str, ...], list[str]]:
    """Returns the image files below a folder, folder by folder, and the other files."""
    images, others = [], []
    for name, can_be_read in _files(folder):
        is_image = can_be_read and name.lower().endswith(suffixes)
        (images if is_image else others).append(name)
    return tuple(sorted(images, key=order)), others


def order(name: str) -> list[tuple[tuple[str | int, ...], str]]:
    """Returns the sort key of a path: folder by folder, and 2 before 10."""
    chunks = [(_NUMBER.split(part), part) for part in name.split("/")]
    # every other chunk is a number, so that numbers are compared with numbers only
    return [
        (tuple(int(chunk) if i % 2 else chunk for i, chunk in enumerate(split)), part)
        for split, part in chunks
    ]


def holds_images(folder: Path) -> bool:
    """Returns whether there is an image file below a folder; stops at the first."""
    return any(can_be_read and is_image_name(name) for name, can_be_read in _files(folder))


def is_image_name(name: str) -> bool:
    """Returns whether a name has the suffix of an image."""
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
        current = folder / prefix
        with explained(current):
            status = current.stat()
            if (status.st_dev, status.st_ino) in entered:
                continue
            entered.add((status.st_dev, status.st_ino))
            with os.scandir(current) as entries:
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
    """Returns whether an entry is a file or a broken link: a pipe would block its reader."""
    return os.path.isfile(entry) or not os.path.exists(entry)


def load_folder(
    folder: Path, request: FormRequest, source: str, suffixes: tuple[str, ...] = SUFFIXES
) -> Images:
    """Returns the images below a folder; raises an error if they are no set."""
    names, others = find_images(folder, suffixes)
    if not names:
        raise FileError(_nothing_in(folder, others))
    require_pillow(f"reading {shown(folder)}")
    paths = [folder / name for name in names]
    with _threads() as pool:
        form = _form(paths, list(pool.map(read_header, paths)), request)
        refuse_large(len(paths) * math.prod(form.shape), f"the pixels of {shown(folder)}")
        pixels = np.empty((len(paths), *form.shape), np.uint8)
        for position, image in enumerate(pool.map(partial(decode_file, form=form), paths)):
            pixels[position] = image
    labels, classes = _labels(names)
    return Images(
        pixels=pixels,
        index=np.arange(len(paths)),
        labels=labels,
        classes=classes,
        source=source,
        names=names,
        left_out=len(others),
    )


@contextmanager
def _threads() -> Iterator[ThreadPoolExecutor]:
    """Yields threads for Pillow, whose remarks on metadata are not shown."""
    from PIL import Image

    with warnings.catch_warnings(), ThreadPoolExecutor() as pool:
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield pool


def _nothing_in(folder: Path, others: list[str]) -> str:
    known = ", ".join(suffix[1:] for suffix in SUFFIXES)
    if not others:
        return f"{shown(folder)} holds no files: give a folder with images ({known})."
    endings = Counter(PurePosixPath(name).suffix or "without suffix" for name in others)
    listed = ", ".join(readable(ending) for ending, _ in endings.most_common(3))
    return (
        f"{shown(folder)} holds no images among its files ({listed}): give a folder with "
        f"{known}, with idx files, or with CIFAR-10 batches."
    )


def _form(paths: list[Path], headers: list[Header], request: FormRequest) -> Form:
    """Returns the form for all files, by the header of each."""
    first = headers[0]
    sizes = [(header.height, header.width) for header in headers]
    other = next((i for i, size in enumerate(sizes) if size != sizes[0]), None)
    if request.size is None and other is not None:
        second = headers[other]
        raise DataError(
            f"the images have different sizes, {shown(paths[0])} {first.height} x {first.width} "
            f"and {shown(paths[other])} {second.height} x {second.width} pixels (height x width): "
            "give the size to bring them to, as in size=32 or size=(48, 32)."
        )
    is_gray = all(header.is_gray for header in headers)
    return request.form(first.height, first.width, is_gray=is_gray)


def _labels(names: tuple[str, ...]) -> tuple[IntArray | None, tuple[str, ...]]:
    """Returns labels by the first folder below, where all images lie in one of several."""
    parents = [name.partition("/")[0] if "/" in name else None for name in names]
    classes = sorted({parent for parent in parents if parent is not None}, key=order)
    if None in parents or len(classes) < 2:
        return None, ()
    number = {name: label for label, name in enumerate(classes)}
    labels = np.array([number[parent] for parent in parents if parent is not None])
    return labels.astype(np.int64), tuple(readable(name) for name in classes)
