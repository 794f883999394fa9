"""What images cost with each pixel on its own: what any flow of images should beat."""

import numpy as np
from numpy.typing import NDArray

from kappaflow.data import Images

WEIGHTS = (1.0, 4.0, 16.0, 64.0, 256.0)
IMAGES_AT_ONCE = 1024

Counts = NDArray[np.float64]


def independent_bits(train: Images, validation: Images, test: Images) -> float:
    """Returns the bits per dimension of images under the histograms of their pixels.

    Each pixel is coded on its own, by how often its values occurred at its place among the
    training images, joined with how often they occurred anywhere. The weight of the second is the
    one that suits the validation images best.

    Args:
        train: Images that are counted.
        validation: Images that choose the weight.
        test: Images that are coded.

    Returns:
        The mean over the test images, in bits for each number of an image.

    Example:
        >>> from kappaflow.data import load_images
        >>> digits = load_images("digits")
        >>> parts = [digits.subset(range(start, start + 500)) for start in (0, 500, 1000)]
        >>> round(independent_bits(*parts), 2)
        2.51
    """
    counts = _counts(train)
    anywhere = counts.sum(0) + 1
    anywhere /= anywhere.sum()
    held_out, judged = _counts(validation), _counts(test)
    best = min(WEIGHTS, key=lambda weight: _bits(counts, anywhere, weight, held_out))
    return _bits(counts, anywhere, best, judged)


def _counts(images: Images) -> Counts:
    """Returns how often each value occurs at each place, (places, values)."""
    places = int(np.prod(images.shape))
    found = np.zeros(places * images.values, np.int64)
    offsets = np.arange(places) * images.values
    for start in range(0, len(images), IMAGES_AT_ONCE):
        index = range(start, min(start + IMAGES_AT_ONCE, len(images)))
        pixels = images.batch(index).numpy().reshape(-1, places)
        found += np.bincount((pixels + offsets).ravel(), minlength=len(found))
    return found.reshape(places, images.values).astype(np.float64)


def _bits(counts: Counts, anywhere: Counts, weight: float, coded: Counts) -> float:
    """Returns the mean code length of the counted pixels of some images."""
    share = counts + weight * anywhere
    share /= share.sum(1, keepdims=True)
    return float(-(coded * np.log2(share)).sum() / coded.sum())
