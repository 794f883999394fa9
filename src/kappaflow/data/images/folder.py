"""A folder of image files as `Images`: headers read at once, pixels later."""

import warnings
from collections import Counter
from pathlib import Path, PurePosixPath

import numpy as np

from kappaflow.data.images.decode import Header, read_header, require_pillow
from kappaflow.data.images.errors import readable, shown
from kappaflow.data.images.form import Form, Request
from kappaflow.data.images.images import Images
from kappaflow.data.images.origin import Files
from kappaflow.data.images.pixels import Pixels, in_threads
from kappaflow.data.images.walk import SUFFIXES, Found, find_images, order
from kappaflow.data.table import IntArray
from kappaflow.errors import DataError, FileError


def load_folder(
    folder: Path, request: Request, source: str, suffixes: tuple[str, ...] = SUFFIXES
) -> Images:
    """Returns the images below a folder, or says in one sentence why they are no set."""
    found = find_images(folder, suffixes)
    if not found.images:
        raise FileError(_nothing_in(folder, found))
    require_pillow(f"reading {shown(folder)}")
    files = Files(folder, found.images)
    form = _form(files, request)
    labels, classes = _labels(found.images)
    return Images(
        pixels=Pixels(files, form),
        index=np.arange(len(files)),
        labels=labels,
        classes=classes,
        source=source,
        left_out=len(found.others),
    )


def _nothing_in(folder: Path, found: Found) -> str:
    known = ", ".join(suffix[1:] for suffix in SUFFIXES)
    if not found.others:
        return f"{shown(folder)} holds no files: give a folder with images ({known})."
    endings = Counter(PurePosixPath(name).suffix or "without suffix" for name in found.others)
    listed = ", ".join(readable(ending) for ending, _ in endings.most_common(3))
    return (
        f"{shown(folder)} holds no images among its files ({listed}): give a folder with "
        f"{known}, with idx files, or with CIFAR-10 batches."
    )


def _form(files: Files, request: Request) -> Form:
    """Returns the form for all files after a look at the header of each."""
    headers = _headers(files)
    first = headers[0]
    sizes = [(header.height, header.width) for header in headers]
    other = next((place for place, size in enumerate(sizes) if size != sizes[0]), None)
    if request.size is None and other is not None:
        one, two = headers[0], headers[other]
        raise DataError(
            f"the images have different sizes, {shown(files.path(0))} {one.height} x {one.width} "
            f"and {shown(files.path(other))} {two.height} x {two.width} pixels (height x width): "
            "give the size to bring them to, as in size=32 or size=(48, 32)."
        )
    is_grey = all(header.is_grey for header in headers)
    return request.form(first.height, first.width, is_grey=is_grey)


def _headers(files: Files) -> list[Header]:
    from PIL import Image

    def read(positions: IntArray) -> list[Header]:
        return [read_header(files.path(position)) for position in positions.tolist()]

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # remarks on metadata, which are not used
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        parts = in_threads(read, np.arange(len(files)))
    return [header for part in parts for header in part]


def _labels(names: tuple[str, ...]) -> tuple[IntArray | None, tuple[str, ...]]:
    """Returns labels by the first folder below, where all images lie in one of several."""
    parents = [name.partition("/")[0] if "/" in name else None for name in names]
    classes = sorted({parent for parent in parents if parent is not None}, key=order)
    if None in parents or len(classes) < 2:
        return None, ()
    number = {name: label for label, name in enumerate(classes)}
    labels = np.array([number[parent] for parent in parents if parent is not None])
    return labels.astype(np.int64), tuple(readable(name) for name in classes)
