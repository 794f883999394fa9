"""`Images`: a set of images of one shape, with labels, decoded on demand."""

import hashlib
import os
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from kappaflow.data.dataset import Model
from kappaflow.data.naming import IntArray
from kappaflow.errors import ArgumentError, DataError
from kappaflow.images.decode import (
    Form,
    PixelArray,
    Request,
    decode_file,
    explained,
    fitted,
    readable,
    require_pillow,
)

if TYPE_CHECKING:
    from torch import Tensor

    from kappaflow.images.batches import ImageBatches


class Origin(Protocol):
    """A sequence of images before they are brought to one form."""

    def __len__(self) -> int:
        """Returns the number of images."""
        ...

    def decode(self, position: int, form: Form) -> PixelArray:
        """Returns one image in a form, (channels, height, width)."""
        ...

    def name(self, position: int) -> str:
        """Returns the name of an image within its source."""
        ...

    def digest(self, position: int) -> bytes:
        """Returns the sha256 of the data of an image, regardless of its name."""
        ...


@dataclass(frozen=True)
class Files:
    """Image files below a folder, named by their paths from there."""

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


KEPT_BYTES = 512 * 2**20


class Pixels:
    """Images of one form by their position in the source, shared by all subsets of a set.

    Pixels are 0 to `values` - 1. `decoded` holds all images, if there is nothing to decode.
    `budget` is the number of bytes that may be kept.
    """

    def __init__(
        self,
        origin: Origin,
        form: Form,
        *,
        values: int = 256,
        decoded: PixelArray | None = None,
        budget: int = KEPT_BYTES,
    ) -> None:
        self.origin = origin
        self.form = form
        self.values = values
        each = int(np.prod(form.shape))
        self._room = len(origin) if decoded is not None else min(len(origin), budget // each)
        # memory that is not written to is not taken: the kept images fill it one by one
        self._kept = np.empty((self._room, *form.shape), np.uint8) if decoded is None else decoded
        self._is_kept = np.full(len(origin), decoded is not None)
        self._digests: dict[int, bytes] = {}

    def read(self, positions: IntArray) -> PixelArray:
        """Returns the images at these positions, (len(positions), channels, height, width)."""
        kept = self._is_kept[positions]
        if kept.all():
            return self._kept[positions]
        missing = np.unique(positions[~kept])
        fresh = self._decode(missing)
        images = np.empty((len(positions), *self.form.shape), np.uint8)
        images[kept] = self._kept[positions[kept]]
        images[~kept] = fresh[np.searchsorted(missing, positions[~kept])]
        self._keep(missing, fresh)
        return images

    def digests(self, positions: IntArray) -> list[bytes]:
        """Returns the sha256 of the data of each of these images, which is read once."""
        listed = positions.tolist()
        missing = np.array(sorted({*listed} - self._digests.keys()), dtype=np.int64)
        for part in in_threads(self._digests_of, missing):
            self._digests.update(part)
        return [self._digests[position] for position in listed]

    def _digests_of(self, positions: IntArray) -> dict[int, bytes]:
        return {position: self.origin.digest(position) for position in positions.tolist()}

    def _decode(self, positions: IntArray) -> PixelArray:
        """Returns the images at these positions, in ascending order, decoded again."""
        images = np.empty((len(positions), *self.form.shape), np.uint8)

        def fill(indices: NDArray[np.int64]) -> None:
            for index in indices.tolist():
                images[index] = self.origin.decode(int(positions[index]), self.form)

        in_threads(fill, np.arange(len(positions)))
        return images

    def _keep(self, positions: IntArray, images: PixelArray) -> None:
        """Keeps as many images as there is room for; marked last, so that readers find them."""
        fit = positions < self._room
        self._kept[positions[fit]] = images[fit]
        self._is_kept[positions[fit]] = True


T = TypeVar("T")

RUNS_PER_THREAD = 4  # files take different times; and a failure or Ctrl-C need not wait for all
LEAST_PER_THREAD = 8


def in_threads(work: Callable[[IntArray], T], positions: IntArray) -> list[T]:
    """Returns the results of `work` for runs of positions, in their order.

    The threads end with the call: starting them takes less than decoding one image, and a fork
    loses none.
    """
    threads = min(core_count(), len(positions) // LEAST_PER_THREAD)
    if threads <= 1:
        return [work(positions)]
    runs = np.array_split(positions, min(threads * RUNS_PER_THREAD, len(positions)))
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(work, runs))


def core_count() -> int:
    """Returns the number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@dataclass(frozen=True, eq=False, repr=False)
class Images:
    """Images of one shape with whole numbers as pixels, made by `load_images`.

    Files are decoded when a batch needs them, on all cores, and kept as long as they fit in 512 MB
    together. Subsets share them.

    Args:
        pixels: Where the pixels come from.
        index: Which of its images these are, int64 (N,).
        labels: The class of each image, int64 (N,), read-only, or None.
        classes: The names of the labels; () without.
        source: Where the images came from, for messages.
        left_out: How many other files lie in the folder.
        flip: Whether training mirrors each image with probability 1/2 each time it is read.

    Example:
        >>> from kappaflow.images import load_images
        >>> images = load_images("digits")
        >>> len(images), images.shape, images.values
        (1797, (1, 8, 8), 17)
    """

    pixels: Pixels
    index: IntArray
    labels: IntArray | None
    classes: tuple[str, ...]
    source: str
    left_out: int = field(default=0)
    flip: bool = False

    def __post_init__(self) -> None:
        """Protects the labels and the positions from being written to."""
        for array in (self.index, self.labels):
            if array is not None:
                array.flags.writeable = False

    @property
    def shape(self) -> tuple[int, int, int]:
        """The shape of each image, (channels, height, width), with 1 or 3 channels."""
        return self.pixels.form.shape

    @property
    def values(self) -> int:
        """The number of values that a pixel can have, the whole numbers 0 to `values` - 1."""
        return self.pixels.values

    def __len__(self) -> int:
        return len(self.index)

    def __repr__(self) -> str:
        parts = [f"{len(self)} of {' x '.join(map(str, self.shape))}", f"{self.values} values"]
        if self.labels is not None:
            parts.append(f"{len(self.classes)} classes")
        if self.left_out:
            parts.append(f"{self.left_out} other file{'s' * (self.left_out > 1)} left out")
        return f"Images({', '.join(parts)}, from '{readable(self.source)}')"

    def batch(self, index: "Sequence[int] | NDArray[Any] | Tensor") -> "Tensor":
        """Returns the pixels of the chosen images, decoded in parallel if they are not kept yet.

        Args:
            index: Positions counted from 0, in any order, also repeated; or a mask (N,).

        Returns:
            A new uint8 tensor (B, channels, height, width) on the CPU.

        Raises:
            ArgumentError: If a position lies outside of the images.
            FileError: If a file is damaged, or has gone; the message names it.

        Example:
            >>> from kappaflow.images import load_images
            >>> load_images("digits").batch([0, 1])[:, 0, 2]
            tensor([[ 0,  3, 15,  2,  0, 11,  8,  0],
                    [ 0,  0,  3, 15, 16,  6,  0,  0]], dtype=torch.uint8)
        """
        import torch

        return torch.from_numpy(self.pixels.read(self.index[_positions(index, len(self))]))

    def subset(self, index: "Sequence[int] | NDArray[Any] | Tensor") -> "Images":
        """Returns the chosen images with their labels; nothing is decoded.

        Args:
            index: Positions counted from 0, in any order, also repeated; or a mask (N,).

        Returns:
            Images that share what is decoded with these.

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

    def fingerprint(self) -> str:
        """Returns a sha256, in hex, of the source of the pixels, their names, labels and form.

        Files are read through once, and not decoded.

        Returns:
            The same 64 hex digits for the same images under the same names below their folder,
            in the same order, with the same labels, brought to the same form.

        Example:
            >>> from kappaflow.images import load_images
            >>> images = load_images("digits")
            >>> images.fingerprint() == images.subset(range(1797)).fingerprint()
            True
        """
        form = self.pixels.form
        digest = hashlib.sha256(repr((form, self.values, self.classes)).encode())
        if self.labels is not None:
            digest.update(self.labels.astype("<i8").tobytes())
        contents = self.pixels.digests(self.index)
        for position, content in zip(self.index.tolist(), contents, strict=True):
            name = self.pixels.origin.name(position).encode("utf-8", "surrogateescape")
            digest.update(name + b"\0" + content)
        return digest.hexdigest()

    def describe(self) -> dict[str, Any]:
        """Returns the names of the classes, and whether training mirrors the images."""
        return {"classes": list(self.classes), "flip": self.flip}

    @property
    def warnings(self) -> tuple[str, ...]:
        """None: notes on images keep no verdict from being green."""
        return ()

    def batches(self, flow: Model) -> "ImageBatches":
        """Returns the images in batches, decoded when they are needed."""
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


def of_array(
    pixels: PixelArray,
    request: Request,
    *,
    source: str,
    labels: IntArray | None = None,
    classes: tuple[str, ...] = (),
    values: int = 256,
) -> Images:
    """Returns images (N, channels, height, width) in memory, in the requested form."""
    form = request.form(*pixels.shape[2:], is_gray=pixels.shape[1] == 1)
    origin = Memory(pixels, values)
    as_they_are = pixels if form.shape == pixels.shape[1:] else None
    if as_they_are is None:
        require_pillow(f"another size or other channels of '{readable(source)}'")
    return Images(
        pixels=Pixels(origin, form, values=values, decoded=as_they_are),
        index=np.arange(len(pixels)),
        labels=labels,
        classes=classes,
        source=source,
    )


def _positions(index: Any, count: int) -> IntArray:  # noqa: ANN401 - checked here
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
