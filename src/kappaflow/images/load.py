"""`load_images` and `split_images`."""

import os
import warnings
from pathlib import Path

import numpy as np

from kappaflow.data.load import no_such_file
from kappaflow.data.split import sizes_of_parts, split_generator
from kappaflow.errors import ArgumentError, DataError, DataWarning, FileError
from kappaflow.images.archives import (
    batch_files,
    idx_files,
    is_batch_name,
    is_idx_name,
    load_batches,
    load_idx,
)
from kappaflow.images.decode import FormRequest, readable, shown, sides_of
from kappaflow.images.folder import holds_images, is_image_name, load_folder
from kappaflow.images.images import Images
from kappaflow.images.shipped import image_sets, load_set


def split_images(
    images: Images, *, fractions: tuple[float, ...] = (0.8, 0.1, 0.1), seed: int = 0
) -> tuple[Images, ...]:
    """Returns parts of the images that share no image, copies included, and leave none out.

    Images with the same pixels go to the same part, so that no test image is a copy of a training
    image, as `split` does with the rows of a table.

    Args:
        images: At least one different image for each part.
        fractions: The shares of the parts, positive numbers that sum to 1; copies count once.
        seed: Seed of the permutation.

    Returns:
        As many parts as fractions, each in the order of the permutation.

    Raises:
        ArgumentError: If the fractions are not positive numbers that sum to 1.
        DataError: If there are fewer different images than parts.

    Example:
        >>> from kappaflow.images import load_images, split_images
        >>> [len(part) for part in split_images(load_images("digits"))]
        [1437, 180, 180]
    """
    copies: dict[bytes, list[int]] = {}
    for position, content in enumerate(images.digests()):
        copies.setdefault(content, []).append(position)
    groups = list(copies.values())
    try:
        sizes = sizes_of_parts(len(groups), fractions)
    except DataError:
        raise DataError(
            f"{len(groups)} different images cannot be split into {len(fractions)} parts: give "
            f"at least {len(fractions)} of them."
        ) from None
    order = split_generator(seed).permutation(len(groups))
    return tuple(
        images.subset([position for group in part.tolist() for position in groups[group]])
        for part in np.split(order, np.cumsum(sizes)[:-1])
    )


def load_images(
    source: str | os.PathLike[str],
    *,
    size: int | tuple[int, int] | None = None,
    gray: bool | None = None,
    crop: bool = True,
    skip_unreadable: bool = False,
) -> Images:
    """Returns the images of a source, of one shape, in memory.

    The images of a folder (png, jpg, jpeg, bmp, gif, webp, tif, tiff, pgm, ppm) include those in
    all folders below, in the order of their paths. Hidden files are skipped, and other files are
    counted. If all images lie in one of several subfolders, the first folder of its path is the
    label of an image.

    Images are turned as their EXIF orientation says; transparency becomes white; of 16 bits the
    upper 8 are kept; of several frames or pages the first. Gray is 0.299 R + 0.587 G + 0.114 B.
    JPEG files at least six times as large as requested are decoded at a half to an eighth of their
    size, if 8 divides their sides.

    Args:
        source: The name of a set, "digits", "mnist-5k" or "faces" (see `image_sets`), where no
            file of that name exists; or a path: to a folder of image files; to idx files as of
            MNIST, gzipped or not, one or a folder of them; or to batches of the binary release of
            CIFAR-10, one or a folder of them. In folders of the last two kinds the training images
            come first. "./faces" is a folder, whatever sets are called.
        size: The height and width to bring all images to (Lanczos filter), or one number for
            both. If None, all should have one size.
        gray: True for one channel, False for three, None to keep what is there: one channel where
            all images are stored as gray, else three.
        crop: Whether images of another aspect ratio are cut to their central part before the
            resize; they are squeezed if False.
        skip_unreadable: Leave out the image files of a folder that cannot be read, instead of an
            error; `Images.unreadable` is their number.

    Returns:
        The images, with labels where the source has some.

    Raises:
        ArgumentError: If an argument has no usable value.
        DataError: If the images have different sizes, and no size is given.
        FileError: If the source is missing or holds no images, a file is damaged, the pixels need
            more than a quarter of the memory, or a package should be installed.

    Example:
        >>> load_images("digits", size=(16, 12), gray=False)
        Images(1797 of 3 x 16 x 12, 17 values, 10 classes, from 'digits')
    """
    if gray is not None and not isinstance(gray, bool):
        raise ArgumentError(f"'gray' should be True, False or None, got {gray!r}.")
    for name, value in (("crop", crop), ("skip_unreadable", skip_unreadable)):
        if not isinstance(value, bool):
            raise ArgumentError(f"'{name}' should be True or False, got {value!r}.")
    request = FormRequest(sides_of(size), gray, crop)
    if not isinstance(source, (str, os.PathLike)):
        raise ArgumentError(
            "'source' should be a path or the name of a set of images, got "
            f"{type(source).__name__}."
        )
    if _is_set(source):
        _warn_of_folder(os.fspath(source))
        return load_set(os.fspath(source), request)
    path = _path(source)
    if os.fspath(source) and os.path.isdir(path):  # an empty one would be here
        return _load_below(path, request, os.fspath(source), skip_unreadable=skip_unreadable)
    if not os.fspath(source) or not os.path.exists(path):
        raise FileError(
            f"{readable(no_such_file(path, _set_names()))}: give a folder of images, or the name "
            f"of a set ({', '.join(_set_names())})."
        )
    return _load_file(path, request, os.fspath(source))


def is_images(source: object) -> bool:
    """Returns whether a source is one of images, for `load_images`, without decoding anything."""
    if not isinstance(source, (str, os.PathLike)) or not os.fspath(source):
        return False
    if _is_set(source):
        return True
    path = _path(source)
    if os.path.isdir(path):
        return bool(batch_files(path) or idx_files(path)) or holds_images(path)
    names = (is_batch_name, is_idx_name, is_image_name)
    return os.path.isfile(path) and any(is_known(path.name) for is_known in names)


def _is_set(source: str | os.PathLike[str]) -> bool:
    """Returns whether a source is the name of a set, and no file has this name."""
    return isinstance(source, str) and source in _set_names() and not os.path.isfile(source)


def _warn_of_folder(name: str) -> None:
    """Warns if a folder of images has the name of the set that is loaded."""
    if os.path.isdir(name) and holds_images(Path(name)):
        warnings.warn(
            f"'{name}' is loaded as the set of that name; the folder here is './{name}'.",
            DataWarning,
            stacklevel=3,
        )


def _set_names() -> tuple[str, ...]:
    return tuple(images.name for images in image_sets())


def _path(source: str | os.PathLike[str]) -> Path:
    return Path(os.fsdecode(os.fspath(source))).expanduser()


def _load_below(
    folder: Path, request: FormRequest, source: str, *, skip_unreadable: bool
) -> Images:
    """Returns the images of a folder: batches, or else idx files, or else image files."""
    if batches := batch_files(folder):
        return load_batches(batches, request, source)
    if files := idx_files(folder):
        return load_idx(files, request, source)
    return load_folder(folder, request, source, skip_unreadable=skip_unreadable)


def _load_file(path: Path, request: FormRequest, source: str) -> Images:
    """Returns the images of one file that holds many."""
    if is_batch_name(path.name):
        return load_batches([path], request, source)
    if is_idx_name(path.name):
        return load_idx([path], request, source)
    if is_image_name(path.name):
        raise FileError(f"{shown(path)} is one image: give a folder of them.")
    raise FileError(
        f"{shown(path)} is no set of images: give a folder of them, a CIFAR-10 batch "
        "(data_batch_1.bin say), or an idx file (train-images-idx3-ubyte say, gzipped or not)."
    )
