"""`split_images`: images to train on, to stop by, and to judge by."""

import numpy as np

from kappaflow.data.images.images import Images
from kappaflow.data.split import split
from kappaflow.data.table import Table
from kappaflow.errors import DataError


def split_images(
    images: Images, *, fractions: tuple[float, ...] = (0.8, 0.1, 0.1), seed: int = 0
) -> tuple[Images, ...]:
    """Returns parts of the images that share no image, copies included, and leave none out.

    As `split` does it with the rows of a table. Images of the same content, files of the same
    bytes say, go to the same part: a copy in the test part would be judged after it was seen.
    Files are read through for this, and not decoded.

    Args:
        images: At least one different image for each part.
        fractions: The shares of the parts, positive numbers that sum to 1; copies count once.
        seed: Seed of the permutation.

    Returns:
        As many parts as fractions, each in the order of the permutation.

    Raises:
        ArgumentError: If the fractions are not positive numbers that sum to 1.
        DataError: If there are fewer different images than parts.
        FileError: If a file cannot be read.

    Example:
        >>> from kappaflow.data import load_images, split_images
        >>> [len(part) for part in split_images(load_images("digits"))]
        [1437, 180, 180]
    """
    copies: dict[bytes, list[int]] = {}
    for position, content in enumerate(images.pixels.digests(images.index)):
        copies.setdefault(content, []).append(position)
    groups = list(copies.values())
    try:
        parts = split(_numbered(len(groups)), fractions=fractions, seed=seed)
    except DataError:
        raise DataError(
            f"{len(groups)} different images cannot be split into {len(fractions)} parts: give "
            f"at least {len(fractions)} of them."
        ) from None
    return tuple(
        images.subset([position for row in part.rows.tolist() for position in groups[row - 1]])
        for part in parts
    )


def _numbered(count: int) -> Table:
    """Returns a table of row numbers."""
    return Table(
        values=np.empty((count, 0)),
        columns=(),
        context=None,
        context_columns=(),
        rows=np.arange(1, count + 1),
        left_out=(),
        source="images",
        integer_columns=(),
    )
