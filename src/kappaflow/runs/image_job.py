"""What a run on images is asked to do: the images that follow from it, and the flow."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from kappaflow._checks import one_of
from kappaflow.data import Images, load_images, split_images
from kappaflow.errors import ArgumentError
from kappaflow.flows import Flow, glow, jet, real_nvp_image
from kappaflow.runs.job import FRACTIONS
from kappaflow.runs.padded import with_padding

RECIPES: dict[str, Callable[..., Flow]] = {
    "glow": glow,
    "real_nvp_image": real_nvp_image,
    "jet": jet,
}
MOST_LEVELS = 3
LEAST_SIDE = 2  # of what the coarsest scale sees
PATCHES = (4, 2, 1)
STORED_SIDE = 32
# Channels of the networks, for images of at most so many pixels a side. A Glow of 8 steps on the
# 1,797 digits has held-out bits per dimension of 2.21 with 32 channels, 2.23 with 64 and with 128,
# after 80, 85 and 125 seconds on one core: more channels only learn the images by heart sooner.
SMALL_SIDE, SMALL_HIDDEN, HIDDEN = 16, 32, 64
SMALL_JET = {"depth": 8, "width": 32}
DECODED_AT_ONCE = 256


@dataclass(frozen=True)
class ImageSource:
    """Where the images of a run come from.

    Attributes:
        data: A folder, a file or the name of a set, as `kappaflow.load_images` takes it.
        size: The height and width to bring all to, or one number for both; None to keep them.
        grey: True for one channel, False for three, None to keep what is there.
        crop: Cut images of another aspect ratio before the resize; squeeze them if False.
        by_class: The density is one given the class of the image.
        split_seed: Decides which images train (80 %), validate (10 %) and test (10 %).
    """

    data: str
    size: int | tuple[int, int] | None = None
    grey: bool | None = None
    crop: bool = True
    by_class: bool = False
    split_seed: int = 0


@dataclass(frozen=True)
class ImageParts:
    """The images of a run, by what they are for, and what was said about them."""

    train: Images
    validation: Images
    test: Images
    notes: tuple[str, ...]

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes; none where the images have none."""
        return self.train.classes


def image_parts(source: ImageSource) -> ImageParts:
    """Returns the images of a run, split; copies of one image are all in one part.

    Args:
        source: Where they come from.

    Returns:
        Images to train on, to stop by, and to judge by.

    Raises:
        ArgumentError: The density should be one given the class, and there are no classes.
    """
    images = load_images(source.data, size=source.size, grey=source.grey, crop=source.crop)
    if source.by_class and len(images.classes) < 2:
        raise ArgumentError(
            f"'by_class' should be left out: {images.source} has no two classes; put the images "
            "of each class into a folder of its own."
        )
    train, validation, test = split_images(images, fractions=FRACTIONS, seed=source.split_seed)
    notes = ()
    if images.left_out:
        said = "1 other file" if images.left_out == 1 else f"{images.left_out:,} other files"
        notes += (f"{said} of the folder {'is' if images.left_out == 1 else 'are'} left out",)
    unseen = _unseen(train)
    if source.by_class and unseen:
        notes += (f"no image of {', '.join(unseen)} is among those to train on",)
    return ImageParts(train, validation, test, notes)


def decode_all(parts: ImageParts) -> None:
    """Decodes each image once, so that a damaged file is named before a run has begun.

    What fits into memory is kept, so that the first epoch finds it there.

    Args:
        parts: The images of the run.

    Raises:
        FileError: A file cannot be decoded; the message names it.
    """  # noqa: DOC502 - raised by the images
    for part in (parts.train, parts.validation, parts.test):
        for start in range(0, len(part), DECODED_AT_ONCE):
            part.batch(range(start, min(start + DECODED_AT_ONCE, len(part))))


def _unseen(images: Images) -> list[str]:
    """Returns the classes of which there is no image."""
    there = set() if images.labels is None else set(images.labels.tolist())
    return [name for number, name in enumerate(images.classes) if number not in there]


def image_flow(
    recipe: str, arguments: dict[str, Any], images: Images, *, by_class: bool, seed: int
) -> Flow:
    """Returns a fresh flow for images, initialised from the seed alone.

    Args:
        recipe: "glow", "real_nvp_image" or "jet".
        arguments: Of the recipe; what is left out takes a default for this size of images.
        images: Whose shape and values it is for.
        by_class: Read the class as a context.
        seed: Of the initial weights.

    Returns:
        The flow.

    Raises:
        ArgumentError: An argument is wrong, or the model is too large for this machine.
    """
    make = RECIPES[one_of("model", recipe, tuple(RECIPES))]
    given = given_and_default(recipe, arguments, images)
    refuse_odd_sides(recipe, given.get("levels", 1), images)
    context = len(images.classes) if by_class else 0
    try:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            given = with_padding(given, images.shape)
            return make(images.shape, values=images.values, context_features=context, **given)
    except (RuntimeError, MemoryError) as error:
        raise ArgumentError(f"a model of this size cannot be built here: {error}") from None


def given_and_default(recipe: str, arguments: dict[str, Any], images: Images) -> dict[str, Any]:
    """Returns the arguments of a recipe, those that follow from the images filled in."""
    return {"dequantize": "uniform", **defaults(recipe, images.shape), **arguments}


def defaults(recipe: str, shape: tuple[int, int, int]) -> dict[str, Any]:
    """Returns the arguments of a recipe that follow from the shape of the images.

    As many levels as the sides can be halved, down to 2 pixels, and at most 3; patches of 4 x 4
    pixels where they fit often enough; narrow networks for tiny images; everything kept for the
    backward pass while that is little.

    Example:
        >>> [defaults("glow", (1, side, side))["levels"] for side in (8, 28, 32)]
        [2, 2, 3]
        >>> defaults("jet", (1, 28, 28))
        {'memory': 'store', 'patch': 4}
    """
    sides = shape[1:]
    found: dict[str, Any] = {"memory": "store" if max(sides) <= STORED_SIDE else "recompute"}
    if recipe == "jet":
        fits = [p for p in PATCHES if all(side % p == 0 and side >= 4 * p for side in sides)]
        sizes = SMALL_JET if max(sides) <= SMALL_SIDE else {}
        return {**found, **sizes, "patch": next(iter(fits), 1)}
    levels = 0
    while levels < MOST_LEVELS and all(
        side % 2 ** (levels + 1) == 0 and side >= LEAST_SIDE * 2 ** (levels + 1) for side in sides
    ):
        levels += 1
    hidden = SMALL_HIDDEN if max(sides) <= SMALL_SIDE else HIDDEN
    return {**found, "hidden": hidden, "levels": max(1, levels)}


def refuse_odd_sides(recipe: str, levels: object, images: Images) -> None:
    """Says which size to ask for where the sides cannot be halved at all."""
    _, height, width = images.shape
    squeezes = recipe == "glow" or (recipe == "real_nvp_image" and levels != 1)
    if squeezes and (height % 2 or width % 2):
        near = " ".join(str(max(4, side // 4 * 4)) for side in (height, width))
        raise ArgumentError(
            f"'size' should be given for {recipe}: the sides of the images, {height} x {width} "
            f"pixels, should divide by 2, as with --size {near}."
        )


def with_classes(images: Images, classes: tuple[str, ...]) -> Images:
    """Returns images whose labels count the given classes, matched by their names.

    Args:
        images: Images with labels.
        classes: What the labels should count.

    Returns:
        The same images.

    Raises:
        ArgumentError: They have no classes, or one that is not among the given.
    """
    listed = ", ".join(classes[:12]) + (", ..." if len(classes) > 12 else "")
    if images.labels is None:
        raise ArgumentError(
            f"'images' should have classes, {images.source} has none: the run is one given the "
            f"class, so put the images into folders called {listed}."
        )
    place = {name: number for number, name in enumerate(classes)}
    used = [images.classes[label] for label in np.unique(images.labels)]
    for name in used:
        if name not in place:
            raise ArgumentError(
                f"'images' should have the classes of the run, {listed}; {images.source} has "
                f"{name!r}."
            )
    renamed = np.array([place.get(name, 0) for name in images.classes], dtype=np.int64)
    return replace(images, labels=renamed[images.labels], classes=classes)
