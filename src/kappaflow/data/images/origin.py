"""Where pixels come from: files of a folder, or an array in memory."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from kappaflow.data.images.decode import PixelArray, decode_file, fitted
from kappaflow.data.images.errors import explained
from kappaflow.data.images.form import Form


class Origin(Protocol):
    """A sequence of images before they are brought to one form."""

    def __len__(self) -> int:
        """Returns the number of images."""
        ...

    def decode(self, position: int, form: Form) -> PixelArray:
        """Returns one image in a form, (channels, height, width)."""
        ...

    def name(self, position: int) -> str:
        """Returns what an image is called within its source."""
        ...

    def digest(self, position: int) -> bytes:
        """Returns the sha256 of what an image is made from, whatever it is called."""
        ...


@dataclass(frozen=True)
class Files:
    """Image files below a folder, each called by its path from there."""

    folder: Path
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.names)

    def path(self, position: int) -> Path:
        """Returns the file of an image."""
        return self.folder / self.names[position]

    def decode(self, position: int, form: Form) -> PixelArray:
        return decode_file(self.path(position), form)

    def name(self, position: int) -> str:
        return self.names[position]

    def digest(self, position: int) -> bytes:
        path = self.path(position)
        with explained(path), path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").digest()


@dataclass(frozen=True, eq=False)
class Memory:
    """Images of one size, (images, channels, height, width), of values 0 to `values` - 1."""

    pixels: PixelArray
    values: int = 256

    def __len__(self) -> int:
        return len(self.pixels)

    def decode(self, position: int, form: Form) -> PixelArray:
        from PIL import Image

        image = self.pixels[position]
        plane = image[0] if len(image) == 1 else np.ascontiguousarray(image.transpose(1, 2, 0))
        # the filter of a resize overshoots at edges; Pillow cuts that off at 255 only
        return np.minimum(fitted(Image.fromarray(plane), form), self.values - 1)

    def name(self, position: int) -> str:
        return ""

    def digest(self, position: int) -> bytes:
        return hashlib.sha256(self.pixels[position].tobytes()).digest()
