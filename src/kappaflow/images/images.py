"""`Images`: a set of images of one shape in memory, with labels."""

import hashlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from kappaflow.data.dataset import Model
from kappaflow.data.naming import IntArray
from kappaflow.errors import ArgumentError, DataError
from kappaflow.images.decode import FormRequest, PixelArray, fitted, readable, require_pillow

if TYPE_CHECKING:
    from torch import Tensor

    from kappaflow.images.batches import ImageBatches


@dataclass(frozen=True, eq=False, repr=False)
class Images:
    """Images of one shape with whole numbers as pixels, made by `load_images`.

    Subsets share the pixels of the set that they come from.

    Args:
        pixels: The pixels of all images of the source, uint8 (M, channels, height, width).
        index: Which of them these images are, int64 (N,).
        labels: The class of each image, int64 (N,), read-only, or None.
        classes: The names of the labels; () without.
        source: Where the images came from, for messages.
        values: The number of values that a pixel can have, the whole numbers 0 to `values` - 1.
        names: The file of each image of the source, below its folder; () for a set in memory.
        left_out: How many other files lie in the folder.
        unreadable: How many images of the folder cannot be read, and were left out.
        flip: Whether training mirrors each image with probability 1/2 each time it is read.

    Example:
        >>> from kappaflow.images import load_images
        >>> images = load_images("digits")
        >>> len(images), images.shape, images.values
        (1797, (1, 8, 8), 17)
    """

    pixels: PixelArray
    index: IntArray
    labels: IntArray | None
    classes: tuple[str, ...]
    source: str
    values: int = 256
    names: tuple[str, ...] = ()
    left_out: int = 0
    unreadable: int = 0
    flip: bool = False

    def __post_init__(self) -> None:
        """Protects the arrays from being written to."""
        for array in (self.pixels, self.index, self.labels):
            if array is not None:
                array.flags.writeable = False

    @property
    def shape(self) -> tuple[int, int, int]:
        """The shape of each image, (channels, height, width), with 1 or 3 channels."""
        _, channels, height, width = self.pixels.shape
        return channels, height, width

    def __len__(self) -> int:
        return len(self.index)

    def __repr__(self) -> str:
        parts = [f"{len(self)} of {' x '.join(map(str, self.shape))}", f"{self.values} values"]
        if self.labels is not None:
            parts.append(f"{len(self.classes)} classes")
        if self.unreadable:
            files = f"{self.unreadable} unreadable file{'s' * (self.unreadable > 1)}"
            parts.append(f"{files} left out")
        if self.left_out:
            parts.append(f"{self.left_out} other file{'s' * (self.left_out > 1)} left out")
        return f"Images({', '.join(parts)}, from '{readable(self.source)}')"

    def batch(self, index: "Sequence[int] | NDArray[Any] | Tensor") -> "Tensor":
        """Returns the pixels of the chosen images.

        Args:
            index: Positions counted from 0, in any order, also repeated; or a mask (N,).

        Returns:
            A new uint8 tensor (B, channels, height, width) on the CPU.

        Raises:
            ArgumentError: If a position lies outside of the images.

        Example:
            >>> from kappaflow.images import load_images
            >>> load_images("digits").batch([0, 1])[:, 0, 2]
            tensor([[ 0,  3, 15,  2,  0, 11,  8,  0],
                    [ 0,  0,  3, 15, 16,  6,  0,  0]], dtype=torch.uint8)
        """
        import torch

        return torch.from_numpy(self.pixels[self.index[_positions(index, len(self))]])

    def subset(self, index: "Sequence[int] | NDArray[Any] | Tensor") -> "Images":
        """Returns the chosen images with their labels, without a copy of their pixels.

        Args:
            index: Positions counted from 0, in any order, also repeated; or a mask (N,).

        Raises:
            ArgumentError: If a position lies outside of the images.

        Example:
            >>> from kappaflow.images import load_images
            >>> images = load_images("digits")
            >>> images.subset(images.labels == 7).labels[:3]
            array([7, 7, 7])
        """
        chosen = _positions(index, len(self))
        labels = None if self.labels is None else self.labels[chosen]
        return replace(self, index=self.index[chosen], labels=labels)

    def digests(self) -> list[bytes]:
        """Returns the sha256 of the pixels of each image."""
        return [hashlib.sha256(self.pixels[i].tobytes()).digest() for i in self.index.tolist()]

    def fingerprint(self) -> str:
        """Returns a sha256, in hex, of the pixels, values, labels and names, in their order."""
        digest = hashlib.sha256(repr((self.shape, self.values, self.classes)).encode())
        if self.labels is not None:
            digest.update(self.labels.astype("<i8").tobytes())
        if self.names:
            names = "\0".join(self.names[i] for i in self.index.tolist())
            digest.update(names.encode("utf-8", "surrogateescape"))
        for content in self.digests():
            digest.update(content)
        return digest.hexdigest()

    def describe(self) -> dict[str, Any]:
        """Returns the names of the classes, and whether training mirrors the images."""
        return {"classes": list(self.classes), "flip": self.flip}

    @property
    def warnings(self) -> tuple[str, ...]:
        """None: notes on images keep no verdict from being green."""
        return ()

    def batches(self, flow: Model) -> "ImageBatches":
        """Returns the images in batches, in the dtype and on the device of a flow."""
        from kappaflow.images.batches import ImageBatches

        return ImageBatches(self, flow)

    def check(self, flow: Model, *, held_out: bool = False) -> None:
        """Raises DataError for training images whose pixels have more values than a flow takes."""
        values = getattr(flow.augment, "values", self.values)
        if self.values > values and not held_out:
            raise DataError(
                f"{self.source} has pixels of {self.values} values, the flow expects {values}: "
                f"build it with values={self.values}."
            )


def images_from_array(
    pixels: PixelArray,
    request: FormRequest,
    *,
    source: str,
    labels: IntArray | None = None,
    classes: tuple[str, ...] = (),
    values: int = 256,
) -> Images:
    """Returns images of an array (N, channels, height, width), in the requested form."""
    form = request.form(*pixels.shape[2:], is_gray=pixels.shape[1] == 1)
    if form.shape != pixels.shape[1:]:
        require_pillow(f"another size or other channels of '{readable(source)}'")
        from PIL import Image

        planes = pixels[:, 0] if pixels.shape[1] == 1 else pixels.transpose(0, 2, 3, 1)
        resized = np.stack([fitted(Image.fromarray(plane), form) for plane in planes])
        # the filter of a resize overshoots at edges; Pillow cuts that off at 255 only
        pixels = np.minimum(resized, values - 1)
    return Images(pixels, np.arange(len(pixels)), labels, classes, source, values)


def _positions(index: Any, count: int) -> IntArray:  # checked here
    """Returns positions or a mask as positions among `count` images; raises ArgumentError."""
    torch = sys.modules.get("torch")
    is_tensor = torch is not None and isinstance(index, torch.Tensor)
    chosen = np.asarray(index.cpu() if is_tensor else index)
    if chosen.size == 0 and chosen.ndim == 1:
        return np.zeros(0, dtype=np.int64)
    if chosen.dtype == np.bool_ and chosen.shape == (count,):
        return np.flatnonzero(chosen)
    if chosen.ndim != 1 or not np.issubdtype(chosen.dtype, np.integer):
        raise ArgumentError(
            f"'index' should hold positions in one axis, or be a mask of {count} images, got "
            f"{chosen.dtype} of shape {chosen.shape}."
        )
    outside = chosen[(chosen < 0) | (chosen >= count)]
    if outside.size:
        raise ArgumentError(
            f"'index' should hold positions from 0 to {count - 1}, got {outside[0]}."
        )
    return chosen.astype(np.int64)
