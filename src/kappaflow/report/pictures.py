"""Pictures of a page, and how pixel arrays are encoded as PNG."""

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

    Source: ISO/IEC 15948, Portable Network Graphics.
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


def _check_png(text: str) -> str:
    """Returns text if it is a PNG file in base64, because the page embeds it unchanged."""
    try:
        size_of(base64.b64decode(text, validate=True))
    except (binascii.Error, ValueError):
        raise ValueError("it should hold a PNG file in base64") from None
    return text


class Picture(Part):
    """A sheet of images with its texts, for a page."""

    title: str
    alt: str  # description for readers who cannot see the picture
    caption: str  # one or two sentences on what to look for
    columns: int  # number of images per row
    rows: list[str] = []  # label of each row, from the top; may be empty
    # The PNG file in base64, with one pixel for each pixel of the images
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
