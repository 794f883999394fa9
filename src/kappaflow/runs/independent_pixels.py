"""What images cost with each pixel on its own: what any flow of images should beat."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kappaflow.data import Images

WEIGHTS = (1.0, 4.0, 16.0, 64.0, 256.0)
IMAGES_AT_ONCE = 1024

Counts = NDArray[np.float64]


def independent_bits(train: Images, validation: Images, test: Images) -> NDArray[np.float64]:
    """Returns the bits per dimension of each image under the histograms of its pixels.

    Each pixel is coded on its own, by how often its values occurred at its place among the
    training images, joined with how often they occurred anywhere. The weight of the second is the
    one that suits the validation images best.

    Args:
        train: Images that are counted.
        validation: Images that choose the weight.
        test: Images that are coded.

    Returns:
        For each test image, in bits for each number of it, (images,).

    Example:
        >>> from kappaflow.data import load_images
        >>> digits = load_images("digits")
        >>> parts = [digits.subset(range(start, start + 500)) for start in (0, 500, 1000)]
        >>> round(float(independent_bits(*parts).mean()), 2)
        2.51
    """
    counts = _counts(train)
    anywhere = counts.sum(0) + 1
    anywhere /= anywhere.sum()
    held_out = _counts(validation)
    best = min(WEIGHTS, key=lambda weight: _bits(counts, anywhere, weight, held_out))
    lengths = -np.log2(_share(counts, anywhere, best)).ravel()
    offsets = np.arange(len(counts)) * counts.shape[1]
    coded = [lengths[pixels + offsets].mean(1) for pixels in _batches(test)]
    return np.concatenate(coded)


def _counts(images: Images) -> Counts:
    """Returns how often each value occurs at each place, (places, values)."""
    places = int(np.prod(images.shape))
    found = np.zeros(places * images.values, np.int64)
    offsets = np.arange(places) * images.values
    for pixels in _batches(images):
        found += np.bincount((pixels + offsets).ravel(), minlength=len(found))
    return found.reshape(places, images.values).astype(np.float64)


def _bits(counts: Counts, anywhere: Counts, weight: float, coded: Counts) -> float:
    """Returns the mean code length of the counted pixels of some images."""
    return float(-(coded * np.log2(_share(counts, anywhere, weight))).sum() / coded.sum())


def _share(counts: Counts, anywhere: Counts, weight: float) -> Counts:
    """Returns the probability of each value at each place, (places, values)."""
    share = counts + weight * anywhere
    return share / share.sum(1, keepdims=True)


def _batches(images: Images) -> Iterator[NDArray[np.integer[Any]]]:
    """Yields the pixels of images, (n, places), some images at a time."""
    for start in range(0, len(images), IMAGES_AT_ONCE):
        index = range(start, min(start + IMAGES_AT_ONCE, len(images)))
        yield images.batch(index).numpy().reshape(len(index), -1)
