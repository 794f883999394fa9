"""The pixels of a source: decoded on demand by threads, and cached within a budget."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from kappaflow.data.images.decode import PixelArray
from kappaflow.data.images.form import Form
from kappaflow.data.images.origin import Origin
from kappaflow.data.table import IntArray

KEPT_BYTES = 512 * 2**20


class Pixels:
    """Images of one form by their position in the source; all subsets of a set share them.

    Args:
        origin: Where they come from.
        form: What they are brought to.
        values: Pixels are 0 to `values` - 1.
        decoded: All of them, where nothing is left to decode.
        budget: How many bytes may be kept.
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
        """Returns the sha256 of what each of these images is made from, read once."""
        requested = positions.tolist()
        missing = np.array(sorted({*requested} - self._digests.keys()), dtype=np.int64)
        for part in in_threads(self._digests_of, missing):
            self._digests.update(part)
        return [self._digests[position] for position in requested]

    def _digests_of(self, positions: IntArray) -> dict[int, bytes]:
        return {position: self.origin.digest(position) for position in positions.tolist()}

    def _decode(self, positions: IntArray) -> PixelArray:
        """Returns the images at these positions, in ascending order, decoded again."""
        images = np.empty((len(positions), *self.form.shape), np.uint8)

        def fill(places: NDArray[np.int64]) -> None:
            for place in places.tolist():
                images[place] = self.origin.decode(int(positions[place]), self.form)

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
    """Returns what `work` returns for runs of positions, in their order.

    The threads end with the call: starting them takes less than decoding one image, and none is
    left over that a fork would lose.
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
