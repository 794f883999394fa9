"""Reads an image file with Pillow: its header alone, or its pixels in a given size and mode."""

import importlib
import importlib.util
import os
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, SupportsIndex

import numpy as np
from numpy.typing import NDArray

from kappaflow.data import files
from kappaflow.errors import ArgumentError, FileError

if TYPE_CHECKING:
    from PIL import Image


def explained(path: Path) -> AbstractContextManager[None]:
    """Returns a context that turns any exception of a reader of images into a FileError."""

    def sentence(kind: str, reason: str) -> str:
        if kind.startswith("DecompressionBomb"):
            return (
                f"{shown(path)} has more pixels than Pillow's limit against decompression bombs: "
                "make it smaller, or raise PIL.Image.MAX_IMAGE_PIXELS if you trust it."
            )
        if os.path.isfile(path) and path.stat().st_size == 0:
            return f"{shown(path)} is empty (0 bytes)."
        if kind == "UnidentifiedImageError":
            return f"{shown(path)} is no image that can be read, whatever its suffix says."
        return f"{shown(path)} is damaged ({reason}): replace it, or leave it out."

    return files.explained(path, shown(path), sentence)


def shown(path: Path | str) -> str:
    """Returns a readable path in quotes."""
    return f"'{readable(path)}'"


def readable(path: Path | str) -> str:
    """Returns a path as text, with undecodable bytes replaced."""
    return os.fsencode(path).decode("utf-8", "replace")


INSTALL = "pip install 'kappaflow[images]'"


def module_of(package: str, module: str, needed_for: str) -> ModuleType:
    """Returns an imported module of an optional package; the error says how to install it."""
    try:
        return importlib.import_module(module)
    except ImportError:
        raise _missing(package, needed_for) from None


def folder_of(package: str, needed_for: str) -> Path:
    """Returns the folder of an optional package, without importing it."""
    result = importlib.util.find_spec(package)
    if result is None or not result.submodule_search_locations:
        raise _missing(package, needed_for)
    return Path(next(iter(result.submodule_search_locations)))


def _missing(package: str, needed_for: str) -> FileError:
    return FileError(f"{needed_for} needs the package {package}: {INSTALL}.")


@dataclass(frozen=True)
class Form:
    """The shape of all images of a set; `crop` says how those of another shape are changed."""

    channels: int
    height: int
    width: int
    crop: bool

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.channels, self.height, self.width


@dataclass(frozen=True)
class FormRequest:
    """The form that a user requests; None where the source decides."""

    size: tuple[int, int] | None = None
    gray: bool | None = None
    crop: bool = True

    def form(self, height: int, width: int, *, is_gray: bool) -> Form:
        """Returns the form for a source of images of this size, gray or not."""
        channels = 1 if (is_gray if self.gray is None else self.gray) else 3
        return Form(channels, *(self.size or (height, width)), self.crop)


def sides_of(size: object) -> tuple[int, int] | None:
    """Returns a size as (height, width); None for None."""
    from kappaflow._checks import positive_int

    if size is None:
        return None
    if isinstance(size, SupportsIndex):
        side = positive_int("size", size)
        return side, side
    if isinstance(size, Sequence) and not isinstance(size, str) and len(size) == 2:
        return positive_int("size", size[0]), positive_int("size", size[1])
    raise ArgumentError(
        f"'size' should be a number of pixels or a pair (height, width), got {size!r}."
    )


PixelArray = NDArray[np.uint8]

# Listed explicitly, so that Pillow tries no other decoder: some of those start programs.
FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF", "PPM")
_GRAY_MODES = ("1", "L", "LA", "La")
_DEEP_MODES = ("I;16", "I;16L", "I;16B", "I;16N")
_COLOR_MODES = ("P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr")
# The Pillow transposition that undoes each value of the EXIF tag Orientation.
_TURNS = {
    2: "FLIP_LEFT_RIGHT",
    3: "ROTATE_180",
    4: "FLIP_TOP_BOTTOM",
    5: "TRANSPOSE",
    6: "ROTATE_270",
    7: "TRANSVERSE",
    8: "ROTATE_90",
}
_ORIENTATION = 0x0112
_ENOUGH = 3  # times as large as requested: a JPEG may be decoded at a fraction of its size


@dataclass(frozen=True)
class Header:
    """Size and color of an image, read without decoding; the size is that after rotation."""

    height: int
    width: int
    is_gray: bool


def read_header(path: Path) -> Header:
    """Returns the header of a file, without decoding its pixels."""
    with _opened(path) as image:
        width, height = image.size
        if _orientation(image) in (5, 6, 7, 8):
            width, height = height, width
        return Header(height, width, _is_gray(image))


def decode_file(path: Path, form: Form) -> PixelArray:
    """Returns the pixels of a file in the given form, (channels, height, width).

    Pillow decodes a large JPEG at 1/2, 1/4 or 1/8 of its size if 8 divides its sides, which
    changes pixels of photographs by 0.4 of 255.
    """
    with _opened(path) as image:
        orientation = _orientation(image)
        if image.width % 8 == image.height % 8 == 0:
            side = _ENOUGH * max(form.height, form.width)
            image.draft(None, (side, side))
        image.load()
        return fitted(_turned(_flat(image), orientation), form)


def fitted(image: "Image.Image", form: Form) -> PixelArray:
    """Returns the pixels of an image of mode L or RGB, resized or cropped to a form."""
    from PIL import Image

    image = _in_mode("L" if form.channels == 1 else "RGB", image)
    size = (form.width, form.height)
    if image.size != size:
        part = _central(image, form) if form.crop else image
        image = part.resize(size, Image.Resampling.LANCZOS)
    pixels = np.asarray(image)
    return pixels[None] if form.channels == 1 else pixels.transpose(2, 0, 1)


def _central(image: "Image.Image", form: Form) -> "Image.Image":
    """Returns the largest central crop of an image with the aspect ratio of a form."""
    width, height = image.size
    across = min(width, max(1, round(height * form.width / form.height)))
    down = min(height, max(1, round(width * form.height / form.width)))
    left, top = (width - across) // 2, (height - down) // 2
    return image.crop((left, top, left + across, top + down))


@contextmanager
def _opened(path: Path) -> Iterator["Image.Image"]:
    """Yields an image with a supported pixel format, without decoding it.

    Pillow gets an open file, because it would map the file of a path into memory. Rotated TIFF
    files would then be sheared, and a truncated file would crash the process.
    """
    from PIL import Image

    with explained(path), path.open("rb") as file:
        image = Image.open(file, formats=FORMATS)
        # Pillow reads 16-bit PNG and PNM as mode I; elsewhere I means 32 bits of unknown scale
        deep = image.mode in _DEEP_MODES or (image.mode == "I" and image.format in ("PNG", "PPM"))
        if not deep and image.mode not in _GRAY_MODES + _COLOR_MODES:
            raise FileError(
                f"{shown(path)} holds pixels of Pillow's mode {image.mode}, whose range is not "
                "known: save it with 8 or 16 bits a channel."
            )
        yield image


def _orientation(image: "Image.Image") -> int:
    """Returns the EXIF orientation, 1 to 8; 1 if Pillow turns the image, or would decode it."""
    if image.format == "TIFF" or (image.format == "PNG" and "exif" not in image.info):
        return 1
    return image.getexif().get(_ORIENTATION, 1)


def _turned(image: "Image.Image", orientation: int) -> "Image.Image":
    from PIL import Image

    if orientation not in _TURNS:
        return image
    return image.transpose(Image.Transpose[_TURNS[orientation]])


def _is_gray(image: "Image.Image") -> bool:
    """Returns whether an image is gray; for a palette, whether all of its colors are."""
    if image.mode == "P":
        colors = np.reshape(image.getpalette("RGB") or [], (-1, 3))
        return bool((colors == colors[:, :1]).all())
    return image.mode in _GRAY_MODES or image.mode.startswith("I")


def _flat(image: "Image.Image") -> "Image.Image":
    """Returns an image as L or RGB: the upper 8 of 16 bits, and transparency on white."""
    from PIL import Image

    if image.mode.startswith("I"):
        deep, clear = np.asarray(image), image.info.get("transparency")
        if isinstance(clear, int):
            deep = np.where(deep == clear, 0xFFFF, deep)
        return Image.fromarray((deep >> 8).astype(np.uint8))
    mode = "L" if image.mode in _GRAY_MODES else "RGB"
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        white.alpha_composite(image)
        image = white
    return _in_mode(mode, image)


def _in_mode(mode: str, image: "Image.Image") -> "Image.Image":
    """Returns an image in a mode, without a copy if it already has it."""
    return image if image.mode == mode else image.convert(mode)


def require_pillow(needed_for: str) -> None:
    """Raises FileError with installation instructions if Pillow is missing."""
    module_of("pillow", "PIL.Image", needed_for)
