"""CIFAR-10 in its usual Python batches, which are pickles and are read as plain data."""

import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kappaflow.data.images.errors import explained, shown
from kappaflow.data.images.form import Request
from kappaflow.data.images.images import Images, of_array
from kappaflow.data.images.plain_pickle import Refused, read_plain_pickle
from kappaflow.data.table import IntArray
from kappaflow.errors import FileError

_NAMES = (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch")
_CLASSES = "batches.meta"
_SHAPE = (3, 32, 32)


def is_batch_name(name: str) -> bool:
    """Returns whether a file is called as a CIFAR-10 batch is."""
    return name in _NAMES


def batch_files(folder: Path) -> list[Path]:
    """Returns the CIFAR-10 batches in a folder, the one to test on last."""
    return [folder / name for name in _NAMES if os.path.isfile(folder / name)]


def load_batches(files: list[Path], request: Request, source: str) -> Images:
    """Returns the images of batches one after the other, with their labels."""
    parts = [_read_batch(path) for path in files]
    labels = np.concatenate([labels for _, labels in parts])
    return of_array(
        np.concatenate([pixels for pixels, _ in parts]),
        request,
        source=source,
        labels=labels,
        classes=_classes(files[0].with_name(_CLASSES), int(labels.max()) + 1),
    )


def _read_batch(path: Path) -> tuple[NDArray[np.uint8], IntArray]:
    """Returns the images and labels of one batch, or says what is wrong with it."""
    content = _read(path)
    pixels, labels = content.get("data"), content.get("labels")
    width = int(np.prod(_SHAPE))
    if not isinstance(pixels, np.ndarray) or pixels.ndim != 2 or pixels.shape[1] != width:
        raise FileError(
            f"{shown(path)} is no CIFAR-10 batch: it should hold 'data', an array of bytes with "
            f"{width} columns."
        )
    if not isinstance(labels, list) or not all(type(label) is int for label in labels):
        raise FileError(f"{shown(path)} is no CIFAR-10 batch: it should hold a list of 'labels'.")
    if not len(pixels) == len(labels) > 0 or not 0 <= min(labels) <= max(labels) < 256:
        raise FileError(
            f"{shown(path)} is damaged: it holds {len(labels)} labels, which should be 0 to 255, "
            f"for {len(pixels)} images."
        )
    return pixels.reshape(-1, *_SHAPE), np.array(labels, dtype=np.int64)


def _classes(path: Path, count: int) -> tuple[str, ...]:
    """Returns the class names stored next to the batches, or their numbers."""
    names = _read(path).get("label_names") if os.path.isfile(path) else None
    if isinstance(names, list) and len(names) >= count:
        with explained(path):
            return tuple(_text(name) for name in names)
    return tuple(str(label) for label in range(count))


def _read(path: Path) -> dict[str, Any]:
    """Returns what a batch holds by its keys, whether Python 2 or 3 wrote it."""
    with explained(path):
        try:
            content = read_plain_pickle(path.read_bytes())
        except Refused as refused:
            raise FileError(
                f"{shown(path)} asks for {refused}, which is no part of a CIFAR-10 batch: nothing "
                "in it was run, and it is not read."
            ) from None
        if not isinstance(content, dict):
            raise FileError(f"{shown(path)} is no CIFAR-10 batch: it holds no dict.")
        return {_text(key): value for key, value in content.items()}


def _text(value: object) -> str:
    if not isinstance(value, str | bytes):
        raise ValueError("a text is missing")
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value
