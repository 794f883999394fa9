"""Arranges images in one picture."""

import numpy as np

from kappaflow.report.pictures import Pixels


def shown(pixels: Pixels, values: int) -> Pixels:
    """Returns pixels rescaled from the range 0 to `values` - 1 to the range 0 to 255."""
    if values == 256:
        return pixels
    return np.rint(pixels * (255 / max(1, values - 1))).astype(np.uint8)


def grid(images: Pixels, columns: int, *, gap: int = 1, ground: int = 128) -> Pixels:
    """Returns images (N, channels, height, width) in a grid, with gray lines between them.

    There is no outer border; the last row may have empty cells.
    """
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
