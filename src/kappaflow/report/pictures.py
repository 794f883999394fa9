"""Encodes pixel arrays as PNG, arranges images in sheets, and describes pictures of a page."""

import base64
import binascii
import struct
import zlib
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator

from kappaflow.results import Part

Pixels = NDArray[np.uint8]

SIGNATURE = b"\x89PNG\r\n\x1a\n"
GRAY, COLOR = 0, 2  # color types of the PNG format

# Width in CSS pixels of a sheet of images in a three-column and in a two-column layout.
NARROW, WIDE = 290, 460


def png(pixels: Pixels) -> bytes:
    """Returns pixels, (1 or 3, height, width), as the bytes of a PNG file, 8 bits per channel.

    Source:
        ISO/IEC 15948, Portable Network Graphics.

    Example:
        >>> png(np.zeros((1, 2, 2), np.uint8))[1:4]
        b'PNG'
    """
    channels, height, width = pixels.shape
    rows = np.ascontiguousarray(pixels.transpose(1, 2, 0)).reshape(height, width * channels)
    unfiltered = np.zeros((height, 1), np.uint8)
    kind = GRAY if channels == 1 else COLOR
    header = struct.pack(">IIBBBBB", width, height, 8, kind, 0, 0, 0)
    content = zlib.compress(np.hstack([unfiltered, rows]).tobytes(), 9)
    chunks = _chunk(b"IHDR", header) + _chunk(b"IDAT", content) + _chunk(b"IEND", b"")
    return SIGNATURE + chunks


def encoded(pixels: Pixels) -> str:
    """Returns a picture (channels, height, width) as a PNG file in base64."""
    return base64.b64encode(png(pixels)).decode()


def size_of(content: bytes) -> tuple[int, int]:
    """Returns width and height from the bytes of a PNG file; raises ValueError for others."""
    if not content.startswith(SIGNATURE) or len(content) < 24:
        raise ValueError("these are not the bytes of a PNG file")
    width, height = struct.unpack(">II", content[16:24])
    return width, height


def _chunk(kind: bytes, content: bytes) -> bytes:
    check = zlib.crc32(kind + content)
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", check)


def shown(pixels: Pixels, values: int) -> Pixels:
    """Returns pixels rescaled from the range 0 to `values` - 1 to the range 0 to 255.

    Example:
        >>> shown(np.array([0, 8, 16], np.uint8), 17)
        array([  0, 128, 255], dtype=uint8)
    """
    if values == 256:
        return pixels
    return np.rint(pixels * (255 / max(1, values - 1))).astype(np.uint8)


def grid(images: Pixels, columns: int, *, gap: int = 1, ground: int = 128) -> Pixels:
    """Returns images (N, channels, height, width) in a grid, with gray lines between them.

    There is no outer border; the last row may have empty cells.

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
    """Returns a picture enlarged by the smallest whole factor that makes it `least` wide.

    Each pixel becomes a square of one color, without smoothing.

    Example:
        >>> enlarged(np.zeros((1, 17, 26), np.uint8)).shape
        (1, 340, 520)
    """
    factor = max(1, -(-least // pixels.shape[2]))
    return pixels.repeat(factor, axis=1).repeat(factor, axis=2)


def _check_png(text: str) -> str:
    """Returns text if it is a PNG file in base64, because the page embeds it unchanged."""
    try:
        size_of(base64.b64decode(text, validate=True))
    except (binascii.Error, ValueError):
        raise ValueError("it should hold a PNG file in base64") from None
    return text


class Picture(Part):
    """A sheet of images with its texts, for a page.

    Attributes:
        alt: Description for readers who cannot see the picture.
        caption: One or two sentences on what to look for.
        columns: Number of images per row.
        rows: Label of each row, from the top; may be empty.
        under: Label below each column; may be empty.
        png: The PNG file in base64, with one pixel for each pixel of the images.
    """

    title: str
    alt: str
    caption: str
    columns: int
    rows: list[str] = []
    under: list[str] = []
    png: Annotated[str, AfterValidator(_check_png)]

    @property
    def width(self) -> int:
        return size_of(base64.b64decode(self.png))[0]

    @property
    def height(self) -> int:
        return size_of(base64.b64decode(self.png))[1]


@dataclass(frozen=True)
class Shown:
    """A picture, enlarged by the largest whole factor that fits `room` CSS pixels."""

    content: Picture
    room: int

    @property
    def factor(self) -> int:
        return max(1, self.room // self.content.width)

    @property
    def width(self) -> int:
        """Width in CSS pixels."""
        return self.factor * self.content.width

    @property
    def height(self) -> int:
        """Height in CSS pixels."""
        return self.factor * self.content.height

    @property
    def is_enlarged(self) -> bool:
        """Whether a browser should not smooth the picture."""
        return self.factor > 1
