"""Samples of images to files: one picture, a folder of pictures, or an array."""

import io
import math
import os
from pathlib import Path

import numpy as np

from kappaflow.errors import ArgumentError, FileError
from kappaflow.report.pictures import Pixels, enlarged, grid, png, shown
from kappaflow.storage import whole_directory, write_bytes

PICTURE, ARRAY = ".png", ".npy"
MOST_IN_TURNS = 20  # classes that a column each is wide enough for


def check_image_path(path: str) -> None:
    """Refuses a path that `write_images` could not write, before the work is done.

    Args:
        path: Ends in .png or .npy, or has no suffix and is a folder to be.

    Raises:
        ArgumentError: It is none of these, or a folder that is there already.
        FileError: The folder that it would be in does not exist.
    """
    target = Path(path)
    suffix = target.suffix.lower()
    if path == "-" or suffix not in (PICTURE, ARRAY, ""):
        raise ArgumentError(
            "'out' should end in .png for one picture or in .npy for an array, or be a new folder "
            f"for a picture of each sample, got {path!r}."
        )
    if not suffix and os.path.lexists(target):
        raise ArgumentError(f"'out' should be a new folder, {path} is there already.")
    if target.is_dir():
        raise ArgumentError(f"'out' should be a file, {path} is a folder.")
    if not target.parent.is_dir():
        raise FileError(f"{path} cannot be written: there is no folder {target.parent}.")


def write_images(images: Pixels, path: str, *, values: int = 256, turns: int = 1) -> None:
    """Writes images to one picture, to a folder of pictures, or to an array.

    Args:
        images: (N, channels, height, width) of whole numbers from 0 to `values` - 1.
        path: As for `check_image_path`. A picture shows all of them side by side, enlarged to at
            least 512 pixels, and a folder has one each, as large as they are; both from black to
            white. An array holds the numbers as they are, uint8.
        values: How many values a pixel may have.
        turns: How many kinds take turns, for columns of one kind.
    """
    check_image_path(path)
    target = Path(path)
    suffix = target.suffix.lower()
    if suffix == ARRAY:
        buffer = io.BytesIO()
        np.save(buffer, images, allow_pickle=False)
        write_bytes(target, buffer.getvalue())
    elif suffix == PICTURE:
        whole = grid(shown(images, values), columns_for(len(images), turns))
        write_bytes(target, png(enlarged(whole)))
    else:
        digits = len(str(len(images)))
        with whole_directory(target) as place:
            for number, image in enumerate(shown(images, values), start=1):
                (place / f"{number:0{digits}}.png").write_bytes(png(image))


def columns_for(count: int, turns: int = 1) -> int:
    """Returns how many of some images stand in a row: a column a kind, or about a square.

    Example:
        >>> columns_for(64), columns_for(10), columns_for(30, turns=10)
        (8, 4, 10)
    """
    if 1 < turns <= min(count, MOST_IN_TURNS):
        return turns
    return math.ceil(math.sqrt(count))
