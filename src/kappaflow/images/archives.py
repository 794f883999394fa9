"""Loads files that hold many images: idx files as of MNIST, and the binary batches of CIFAR-10."""

import gzip
import math
import os
import re
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kappaflow.data.limits import unpacked
from kappaflow.data.naming import IntArray
from kappaflow.errors import DataError, FileError
from kappaflow.images.decode import FormRequest, explained, shown
from kappaflow.images.images import Images, images_from_array

_IMAGES = re.compile(r"(.*)images([-.])idx3-ubyte(\.gz)?", re.IGNORECASE)


def is_idx_name(name: str) -> bool:
    """Returns whether a name is that of an idx file of images, such as of MNIST."""
    return _IMAGES.fullmatch(name) is not None


def idx_files(folder: Path) -> list[Path]:
    """Returns the idx files of images in a folder, those to train on before all others."""
    with explained(folder):
        results = [
            path for path in folder.iterdir() if is_idx_name(path.name) and os.path.isfile(path)
        ]
    return sorted(results, key=lambda path: ("train" not in path.name, path.name))


def load_idx(files: list[Path], request: FormRequest, source: str) -> Images:
    """Returns the images of idx files one after the other, with labels where all have them."""
    parts = [_read_idx(path, 3) for path in files]
    for path, part in zip(files, parts, strict=True):
        if part.shape[1:] != parts[0].shape[1:]:
            raise DataError(
                f"the images have different sizes, {_size(parts[0])} in {shown(files[0])} and "
                f"{_size(part)} in {shown(path)}: load one of the files."
            )
    labels = _labels(files, [len(part) for part in parts])
    classes = () if labels is None else tuple(map(str, range(int(labels.max()) + 1)))
    pixels = np.concatenate(parts)[:, None]
    return images_from_array(pixels, request, source=source, labels=labels, classes=classes)


def _size(images: NDArray[np.uint8]) -> str:
    return f"{images.shape[1]} x {images.shape[2]}"


def _labels(files: list[Path], counts: list[int]) -> IntArray | None:
    """Returns the labels in the same folder, or None if a file has none."""
    results = [_labels_file(path) for path in files]
    parts = []
    for path, label_file, count in zip(files, results, counts, strict=True):
        if label_file is None:
            return None
        labels = _read_idx(label_file, 1)
        if len(labels) != count:
            raise FileError(
                f"{shown(label_file)} holds {len(labels)} labels for the {count} images of "
                f"{shown(path)}: they belong to different sets."
            )
        parts.append(labels)
    return np.concatenate(parts).astype(np.int64)


def _labels_file(images: Path) -> Path | None:
    """Returns the file of labels with the usual name, gzipped or not."""
    match = _IMAGES.fullmatch(images.name)
    if match is None:
        return None
    stem, sign = match.group(1), match.group(2)
    plain = images.with_name(f"{stem}labels{sign}idx1-ubyte")
    zipped = plain.with_name(plain.name + ".gz")
    return next((path for path in (plain, zipped) if os.path.isfile(path)), None)


def _read_idx(path: Path, axes: int) -> NDArray[np.uint8]:
    """Returns the bytes of an idx file with this number of axes."""
    with explained(path), path.open("rb") as file:
        if path.stat().st_size == 0:
            raise FileError(f"{shown(path)} is empty (0 bytes).")
        zipped = path.name.lower().endswith(".gz")
        stream = gzip.GzipFile(fileobj=file) if zipped else file
        header = stream.read(4 + 4 * axes)
        _check_header(path, header, axes)
        shape = tuple(int(side) for side in np.frombuffer(header, ">u4", offset=4))
        if 0 in shape and axes == 3:
            raise FileError(f"{shown(path)} holds no pixels: its shape is {shape}.")
        content = unpacked(stream, shown(path), math.prod(shape) + 1)
    if len(content) != math.prod(shape):
        missing = len(content) < math.prod(shape)
        raise FileError(
            f"{shown(path)} is damaged: it promises {' x '.join(map(str, shape))} bytes and holds "
            f"{f'only {len(content)}' if missing else 'more'}, so copy it again."
        )
    return np.frombuffer(content, np.uint8).reshape(shape)


def _check_header(path: Path, header: bytes, axes: int) -> None:
    """Raises FileError unless a file begins as an idx file of bytes with these axes."""
    magic = bytes([0, 0, 8, axes])
    if header[:4] == magic and len(header) == 4 + 4 * axes:
        return
    raise FileError(
        f"{shown(path)} is no idx file of {'images' if axes == 3 else 'labels'}: it should begin "
        f"with the bytes {magic.hex(' ')} and {axes} sizes."
    )


_BATCH = re.compile(r"(data_batch_[1-5]|test_batch)(\.bin)?")
_SHAPE = (3, 32, 32)
_ROW = 1 + math.prod(_SHAPE)  # bytes of an image, after its label


def is_batch_name(name: str) -> bool:
    """Returns whether a name is that of a CIFAR-10 batch."""
    return _BATCH.fullmatch(name) is not None


def batch_files(folder: Path) -> list[Path]:
    """Returns the CIFAR-10 batches in a folder, the one to test on last."""
    with explained(folder):
        files = [path for path in folder.iterdir() if is_batch_name(path.name)]
    files = sorted(path for path in files if os.path.isfile(path))
    return [path for path in files if path.suffix == ".bin"] or files


def load_batches(files: list[Path], request: FormRequest, source: str) -> Images:
    """Returns the images of batches one after the other, with their labels."""
    rows = np.concatenate([_read_batch(path) for path in files])
    labels = rows[:, 0].astype(np.int64)
    return images_from_array(
        rows[:, 1:].reshape(-1, *_SHAPE),
        request,
        source=source,
        labels=labels,
        classes=tuple(str(label) for label in range(int(labels.max()) + 1)),
    )


def _read_batch(path: Path) -> NDArray[np.uint8]:
    """Returns the rows of one batch, (images, 3073): the label, then the pixels."""
    if path.suffix != ".bin":
        raise FileError(
            f"{shown(path)} is a batch of CIFAR-10 for Python, a pickle, which is not read: "
            f"download the binary release of CIFAR-10, whose batches are called {path.name}.bin."
        )
    with explained(path):
        content = np.fromfile(path, np.uint8)
    if content.size == 0 or content.size % _ROW:
        raise FileError(
            f"{shown(path)} is not a batch of CIFAR-10: it should hold {_ROW} bytes for each "
            f"image, it holds {content.size:,} bytes."
        )
    return content.reshape(-1, _ROW)
