"""Samples of a flow of images as pixels, and grids of samples during training."""

import io
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kappaflow.errors import ArgumentError, NumericalError
from kappaflow.flows import Flow
from kappaflow.images.batches import class_context
from kappaflow.report.pictures import Pixels, png
from kappaflow.storage import atomic_directory, check_place, make_directory, write_bytes
from kappaflow.training import Batch, Callback


def shown(pixels: Pixels, values: int) -> Pixels:
    """Returns pixels rescaled from the range 0 to `values` - 1 to the range 0 to 255."""
    if values == 256:
        return pixels
    return np.rint(pixels * (255 / max(1, values - 1))).astype(np.uint8)


def grid(images: Pixels, columns: int, *, gap: int = 1, ground: int = 128) -> Pixels:
    """Returns images (N, channels, height, width) in a grid, with gray lines between them."""
    count, channels, height, width = images.shape
    rows = -(-count // columns)
    total_height, total_width = rows * (height + gap) - gap, columns * (width + gap) - gap
    picture = np.full((channels, total_height, total_width), ground, np.uint8)
    for position, image in enumerate(images):
        top, left = position // columns * (height + gap), position % columns * (width + gap)
        picture[:, top : top + height, left : left + width] = image
    return picture


def enlarged(pixels: Pixels, least: int = 512) -> Pixels:
    """Returns a picture enlarged to squares by the smallest factor that makes it `least` wide."""
    factor = max(1, -(-least // pixels.shape[2]))
    return pixels.repeat(factor, axis=1).repeat(factor, axis=2)


FOLDER, BEST = "samples", "best.png"
PICTURE, ARRAY = ".png", ".npy"
MOST_IN_TURNS = 20  # classes that can have a column each
TEMPERATURE = 0.8
SIDE = 8  # a grid has 8 x 8 samples; by class, 8 in each row
MOST_ROWS = 16
NUMBERS_AT_ONCE = 2**20  # of pixels, which networks make many times as many of


@dataclass(frozen=True)
class Sheet:
    """Images in one picture."""

    images: Pixels  # (N, channels, height, width), from 0 to 255
    columns: int
    rows: tuple[str, ...]  # the class of each row; empty without classes

    @property
    def picture(self) -> Pixels:
        """The picture, with one pixel for each pixel of the images."""
        return grid(self.images, self.columns)


def values_of(flow: Flow) -> int:
    """Returns the number of values that a pixel of a flow can have."""
    return int(getattr(flow.augment, "values", 256))


def draw_pixels(
    flow: Flow,
    n: int,
    *,
    labels: np.ndarray | None = None,
    temperature: float = 1.0,
    seed: int = 0,
) -> Pixels:
    """Returns n samples of a flow of images as whole numbers, (n, channels, height, width).

    They are from 0 to `values_of(flow)` - 1. `labels` are the classes, (n,), for a flow that reads
    the class.
    """
    generator = torch.Generator().manual_seed(seed)
    at_once = max(1, NUMBERS_AT_ONCE // math.prod(flow.event_shape))
    parts = []
    for start in range(0, n, at_once):
        count = min(at_once, n - start)
        if labels is None:
            drawn = flow.sample(count, temperature=temperature, generator=generator)
        else:
            context = class_context(labels[start : start + count], flow)
            drawn = flow.sample(1, context, temperature=temperature, generator=generator)[0]
        parts.append(_whole(drawn, flow))
    return np.concatenate(parts)


def sample_sheet(
    flow: Flow, classes: tuple[str, ...], *, temperature: float = TEMPERATURE
) -> Sheet:
    """Returns 64 samples for a grid, or 8 of each class, with the same latents in each call."""
    if flow.context_features:
        rows = classes[:MOST_ROWS]
        labels = np.arange(len(rows)).repeat(SIDE)
        drawn = draw_pixels(flow, len(labels), labels=labels, temperature=temperature)
    else:
        rows = ()
        drawn = draw_pixels(flow, SIDE * SIDE, temperature=temperature)
    return Sheet(shown(drawn, values_of(flow)), SIDE, rows)


def is_shown(epoch: int, last: int) -> bool:
    """Returns whether an epoch has a grid: 1, 2, 5, 10, 20, 50, 100, ... and the last."""
    return epoch == last or str(epoch).rstrip("0") in {"1", "2", "5"}


class SampleSheets(Callback):
    """Writes a grid of samples to a run folder after some of at most `max_epochs` epochs."""

    def __init__(self, folder: Path, classes: tuple[str, ...], max_epochs: int) -> None:
        self.folder, self.classes, self.max_epochs = folder, classes, max_epochs

    def on_epoch(self, flow: Flow, figures: dict[str, Any]) -> None:
        epoch = int(figures["epoch"])
        if is_shown(epoch, self.max_epochs):
            write_sheet(flow, self.classes, self.folder, f"epoch-{epoch:04d}.png")


def write_sheet(flow: Flow, classes: tuple[str, ...], folder: Path, name: str) -> None:
    """Writes an enlarged grid of samples, or none if a sample is not finite."""
    try:
        sheet = sample_sheet(flow, classes)
    except NumericalError:
        return  # training reports it, and may recover
    write_bytes(make_directory(folder / FOLDER) / name, png(enlarged(sheet.picture)))


def _whole(drawn: Tensor, flow: Flow) -> Pixels:
    """Returns samples (N, ...) as pixels."""
    bad = int((~torch.isfinite(drawn).flatten(1).all(1)).sum())
    if bad:
        raise NumericalError(
            f"{bad} of {len(drawn)} samples are not finite and have no pixels: kappaflow doctor "
            "names the layer."
        )
    return drawn.round().clamp(0, values_of(flow) - 1).cpu().numpy().astype(np.uint8)


def sample_batch(flow: Flow, count: int) -> Batch:
    """Returns samples of a flow as a batch, with its classes in turn as contexts."""
    width = flow.context_features
    labels = np.arange(count) % width if width else None
    x = torch.from_numpy(draw_pixels(flow, count, labels=labels)).to(flow.device, flow.dtype)
    return Batch(x, None if labels is None else class_context(labels, flow))


def check_image_path(path: str) -> None:
    """Raises an error unless a path is a .png file, a .npy file or a new folder."""
    target = Path(path)
    suffix = target.suffix.lower()
    if path == "-" or suffix not in (PICTURE, ARRAY, ""):
        raise ArgumentError(
            "'out' should end in .png for one picture or in .npy for an array, or be a new folder "
            f"for a picture of each sample, got {path!r}."
        )
    if not suffix and os.path.lexists(target):
        raise ArgumentError(f"'out' should be a new folder, {path} is there already.")
    check_place("out", target)


def write_images(images: Pixels, path: str, *, values: int = 256, turns: int = 1) -> None:
    """Writes images to one picture, to a folder of pictures, or to an array.

    The images, (N, channels, height, width), are whole numbers from 0 to `values` - 1. A .png file
    shows all of them in a grid, enlarged to at least 512 pixels; a folder holds one .png file per
    image, not enlarged. Both scale the values from black to white. A .npy file holds the unscaled
    numbers, uint8. Each of `turns` classes that take turns gets its own columns.
    """
    check_image_path(path)
    target = Path(path)
    suffix = target.suffix.lower()
    if suffix == ARRAY:
        buffer = io.BytesIO()
        np.save(buffer, images, allow_pickle=False)
        write_bytes(target, buffer.getvalue())
    elif suffix == PICTURE:
        picture = grid(shown(images, values), columns_for(len(images), turns))
        write_bytes(target, png(enlarged(picture)))
    else:
        digits = len(str(len(images)))
        with atomic_directory(target) as directory:
            for number, image in enumerate(shown(images, values), start=1):
                (directory / f"{number:0{digits}}.png").write_bytes(png(image))


def columns_for(count: int, turns: int = 1) -> int:
    """Returns the number of images in a row: one column per class, or about a square."""
    if 1 < turns <= min(count, MOST_IN_TURNS):
        return turns
    return math.ceil(math.sqrt(count))
