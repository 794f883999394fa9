"""Loads a folder of image files."""

import math
import os
import re
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path, PurePosixPath
from typing import TypeVar

import numpy as np

from kappaflow.data.limits import refuse_large
from kappaflow.data.naming import SHOWN_ROWS, IntArray
from kappaflow.data.raw import quoted
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
from kappaflow.options import COMMAND, PYTHON, option

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".pgm", ".ppm")
T = TypeVar("T")
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
    folder: Path,
    request: FormRequest,
    source: str,
    suffixes: tuple[str, ...] = SUFFIXES,
    *,
    skip_unreadable: bool = False,
) -> Images:
    """Returns the images below a folder; raises an error if they are no set."""
    names, others = find_images(folder, suffixes)
    if not names:
        raise FileError(_nothing_in(folder, others))
    require_pillow(f"reading {shown(folder)}")
    errors: dict[str, FileError] = {}
    with _threads() as pool:

        def results(read: Callable[[Path], T]) -> Iterator[tuple[str, T]]:
            """Yields the names and results of files that can be read, and keeps other errors."""
            left = [name for name in names if name not in errors]
            paths = (folder / name for name in left)
            for name, result in zip(left, pool.map(_tried(read), paths), strict=True):
                if isinstance(result, FileError):
                    errors[name] = result
                else:
                    yield name, result

        headers = dict(results(read_header))
        if not headers:
            raise _unreadable(errors, len(names))
        form = _form(folder, headers, request)
        refuse_large(len(headers) * math.prod(form.shape), f"the pixels of {shown(folder)}")
        pixels, kept = np.empty((len(headers), *form.shape), np.uint8), []
        for name, image in results(partial(decode_file, form=form)):
            pixels[len(kept)] = image
            kept.append(name)
    if errors and (not skip_unreadable or len(errors) == len(names)):
        raise _unreadable(errors, len(names))
    labels, classes = _labels(tuple(kept))
    return Images(
        pixels=pixels[: len(kept)],
        index=np.arange(len(kept)),
        labels=labels,
        classes=classes,
        source=source,
        names=tuple(kept),
        left_out=len(others),
        unreadable=len(errors),
    )


def _tried(read: Callable[[Path], T]) -> Callable[[Path], T | FileError]:
    """Returns a reader that returns its FileError."""

    def tried(path: Path) -> T | FileError:
        try:
            return read(path)
        except FileError as error:
            return error

    return tried


def _unreadable(errors: dict[str, FileError], files: int) -> FileError:
    """Returns the error that names the images that cannot be read, and says why for the first."""
    names = sorted(errors, key=order)
    text = str(errors[names[0]])
    if len(names) > 1:
        listed = quoted([readable(name) for name in names], SHOWN_ROWS)
        text = f"{len(names):,} of {files:,} images cannot be read, {listed}; the first: {text}"
    if len(names) == files:
        return FileError(text)
    if COMMAND.get() == PYTHON:
        text = f"{text[:-1]}; load_images(..., skip_unreadable=True) leaves out such files."
    elif COMMAND.get().split()[1:2] == ["fit"]:
        text = f"{text[:-1]}; {option('skip_unreadable')} leaves out such files."
    return FileError(text)


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


def _form(folder: Path, headers: dict[str, Header], request: FormRequest) -> Form:
    """Returns the form for all files, by the header of each."""
    (name, first), *others = headers.items()
    size = first.height, first.width
    other = next((pair for pair in others if (pair[1].height, pair[1].width) != size), None)
    if request.size is None and other is not None:
        second = other[1]
        raise DataError(
            f"the images have different sizes, {shown(folder / name)} {first.height} x "
            f"{first.width} and {shown(folder / other[0])} {second.height} x {second.width} "
            "pixels (height x width): give the size to bring them to, as in size=32 or "
            "size=(48, 32)."
        )
    is_gray = all(header.is_gray for header in headers.values())
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
