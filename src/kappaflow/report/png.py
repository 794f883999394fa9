"""Pictures as PNG files: whole numbers in, bytes out; no package is needed for it."""

import struct
import zlib

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]

SIGNATURE = b"\x89PNG\r\n\x1a\n"
GREY, COLOUR = 0, 2  # colour types of the format


def png(pixels: Pixels) -> bytes:
    """Returns a picture as the bytes of a PNG file.

    Args:
        pixels: (1, height, width) for grey or (3, height, width) for colour.

    Returns:
        The file, with 8 bits a channel.

    Source:
        ISO/IEC 15948, Portable Network Graphics.

    Example:
        >>> png(np.zeros((1, 2, 2), np.uint8))[1:4]
        b'PNG'
    """
    channels, height, width = pixels.shape
    rows = np.ascontiguousarray(pixels.transpose(1, 2, 0)).reshape(height, width * channels)
    unfiltered = np.zeros((height, 1), np.uint8)
    kind = GREY if channels == 1 else COLOUR
    header = struct.pack(">IIBBBBB", width, height, 8, kind, 0, 0, 0)
    content = zlib.compress(np.hstack([unfiltered, rows]).tobytes(), 9)
    chunks = _chunk(b"IHDR", header) + _chunk(b"IDAT", content) + _chunk(b"IEND", b"")
    return SIGNATURE + chunks


def size_of(content: bytes) -> tuple[int, int]:
    """Returns the width and height that a PNG file says it has, or raises ValueError."""
    if not content.startswith(SIGNATURE) or len(content) < 24:
        raise ValueError("these are not the bytes of a PNG file")
    width, height = struct.unpack(">II", content[16:24])
    return width, height


def _chunk(kind: bytes, content: bytes) -> bytes:
    check = zlib.crc32(kind + content)
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", check)


def shown(pixels: Pixels, values: int) -> Pixels:
    """Returns pixels of the whole numbers 0 to `values` - 1 on the scale of a picture, 0 to 255.

    Example:
        >>> shown(np.array([0, 8, 16], np.uint8), 17)
        array([  0, 128, 255], dtype=uint8)
    """
    if values == 256:
        return pixels
    return np.rint(pixels * (255 / max(1, values - 1))).astype(np.uint8)


def grid(images: Pixels, columns: int, *, gap: int = 1, ground: int = 128) -> Pixels:
    """Returns images side by side, row by row, with lines of one grey between them.

    Args:
        images: (N, channels, height, width).
        columns: How many stand in a row; places of the last row may stay empty.
        gap: Width of the lines, in pixels; there are none around the whole.
        ground: Their grey.

    Returns:
        (channels, height, width) of the whole.

    Example:
        >>> grid(np.zeros((5, 1, 8, 8), np.uint8), 3).shape
        (1, 17, 26)
    """
    count, channels, height, width = images.shape
    rows = -(-count // columns)
    tall, wide = rows * (height + gap) - gap, columns * (width + gap) - gap
    whole = np.full((channels, tall, wide), ground, np.uint8)
    for place, image in enumerate(images):
        top, left = place // columns * (height + gap), place % columns * (width + gap)
        whole[:, top : top + height, left : left + width] = image
    return whole


def enlarged(pixels: Pixels, least: int = 512) -> Pixels:
    """Returns a picture enlarged by a whole factor, the smallest that makes it so wide.

    Pixels become squares of one colour: nothing is smoothed.

    Example:
        >>> enlarged(np.zeros((1, 17, 26), np.uint8)).shape
        (1, 340, 520)
    """
    factor = max(1, -(-least // pixels.shape[2]))
    return pixels.repeat(factor, axis=1).repeat(factor, axis=2)
