"""`ImageConfig` and `ImageData`: which images a run uses, these images, and flows for them."""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from kappaflow._checks import one_of
from kappaflow.errors import ArgumentError, DataWarning
from kappaflow.flows import Flow
from kappaflow.flows.recipe import from_options
from kappaflow.images.content import image_content
from kappaflow.images.images import Images
from kappaflow.images.jet import jet
from kappaflow.images.load import load_images, split_images
from kappaflow.images.recipes import glow, real_nvp_image
from kappaflow.images.samples import BEST, SampleSheets, values_of, write_sheet
from kappaflow.report.numbers import count
from kappaflow.runs.content import Content
from kappaflow.runs.kinds import DataConfig, RunData
from kappaflow.runs.recipes import ModelConfig, all_arguments, with_padding
from kappaflow.runs.table_data import FRACTIONS
from kappaflow.training import Callback, FitResult, Settings

RECIPES: dict[str, Callable[..., Flow]] = {
    "glow": glow,
    "real_nvp_image": real_nvp_image,
    "jet": jet,
}
MOST_LEVELS = 3
LEAST_SIDE = 2  # pixels at the coarsest scale
PATCHES = (4, 2, 1)
STORED_SIDE = 32
# Channels of the networks, for images of at most so many pixels a side. A Glow of 8 steps on the
# 1,797 digits has held-out bits per dimension of 2.21 with 32 channels, 2.23 with 64 and with 128,
# after 80, 85 and 125 seconds on one core: more channels only overfit sooner.
SMALL_SIDE, SMALL_HIDDEN, HIDDEN = 16, 32, 64
SMALL_JET = {"depth": 8, "width": 32}


@dataclass(frozen=True)
class ImageConfig(DataConfig):
    """Which images a run uses. `load` and `opened` return them.

    Attributes:
        data: A folder, a file or the name of a set, as for `kappaflow.load_images`, which also
            describes `size`, `gray`, `crop` and `skip_unreadable`.
        flip: Mirror training images at random.
        by_class: Fit a density given the class of the image.
        split_seed: Decides which images train (80 %), validate (10 %) and test (10 %).
    """

    kind: ClassVar[str] = "images"
    training_defaults: ClassVar[dict[str, Any]] = {"max_epochs": 60, "batch_size": 64}

    data: str
    size: int | tuple[int, int] | None = None
    gray: bool | None = None
    crop: bool = True
    skip_unreadable: bool = False
    flip: bool = False
    by_class: bool = False
    split_seed: int = 0

    def load(self) -> "ImageData":
        """Returns the images, split; copies of one image are all in one part."""
        images = load_images(
            self.data,
            size=self.size,
            gray=self.gray,
            crop=self.crop,
            skip_unreadable=self.skip_unreadable,
        )
        if self.by_class and len(images.classes) < 2:
            raise ArgumentError(
                f"'by_class' should be left out: {images.source} has no two classes. Put the "
                "images of each class into a folder."
            )
        train, validation, test = split_images(images, fractions=FRACTIONS, seed=self.split_seed)
        notes = ()
        if images.unreadable:
            notes += (skipped(images),)
        if images.left_out:
            notes += (f"left out of the folder: {count(images.left_out, 'other file')}",)
        unseen = _unseen(train)
        if self.by_class and unseen:
            notes += (f"no image of {', '.join(unseen)} is among those to train on",)
        return ImageData(
            self, train, validation, test, notes=notes, fingerprint=images.fingerprint()
        )


@dataclass(frozen=True)
class ImageData(RunData):
    """The images of a run, split."""

    config: ImageConfig
    train: Images
    validation: Images
    test: Images

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes that the flow is given; () if it is given none."""
        return self.train.classes if self.config.by_class else ()

    @property
    def trained_on(self) -> Images:
        """The training images, mirrored at random if the configuration says so."""
        return replace(self.train, flip=self.config.flip)

    @property
    def to_store(self) -> dict[str, Any]:
        """Entries of config.json that the configuration does not contain."""
        return {"classes": list(self.classes), "unreadable": self.train.unreadable}

    def build_flow(self, model: ModelConfig, seed: int) -> Flow:
        """Returns a new flow for the images."""
        return image_flow(model, self.train, by_class=self.config.by_class, seed=seed)

    def callbacks(self, folder: Path, settings: Settings) -> Sequence[Callback]:
        """Returns the callback that writes grids of samples."""
        epochs = settings.max_epochs or self.config.training_defaults["max_epochs"]
        return (SampleSheets(folder, self.classes, epochs),)

    def model_facts(self, model: ModelConfig) -> dict[str, Any]:
        """Returns the arguments of a model for a report, with the defaults for the images."""
        arguments = with_image_defaults(model, self.train)
        return all_arguments(ModelConfig(model.recipe, arguments))

    def form(self) -> list[tuple[str, str]]:
        """Returns the shape and the values of an image, and whether the flow reads its class."""
        return [
            ("shape", " x ".join(map(str, self.test.shape))),
            ("values of a pixel", str(self.test.values)),
            ("given the class", "yes" if self.config.by_class else "no"),
        ]

    def content(self, result: FitResult, budget: float | None) -> Content:
        """Returns what is measured of a flow on the test images."""
        return image_content(result, self)

    def write_files(self, flow: Flow, folder: Path) -> None:
        """Writes a grid of samples."""
        write_sheet(flow, self.classes, folder, BEST)

    def facts(self) -> list[tuple[str, str]]:
        """Returns the facts about the images for a report, as labels and values."""
        train, counts = (
            self.train,
            [len(part) for part in (self.train, self.validation, self.test)],
        )
        return [
            ("source", self.config.data),
            ("images", f"{sum(counts):,} of {' x '.join(map(str, train.shape))}"),
            ("values of a pixel", f"{train.values}"),
            ("images to train / validate / test", " / ".join(f"{n:,}" for n in counts)),
            ("classes", ", ".join(train.classes) or "none"),
            ("given the class", "yes" if self.config.by_class else "no"),
            ("mirrored at random", "yes" if self.config.flip else "no"),
        ]


def _unseen(images: Images) -> list[str]:
    """Returns the classes without an image."""
    seen = set() if images.labels is None else set(images.labels.tolist())
    return [name for number, name in enumerate(images.classes) if number not in seen]


def image_flow(model: ModelConfig, images: Images, *, by_class: bool, seed: int) -> Flow:
    """Returns a new flow for images, from the seed alone; with `by_class` it reads the class."""
    make = RECIPES[one_of("model", model.recipe, tuple(RECIPES))]
    arguments = with_image_defaults(model, images)
    context = len(images.classes) if by_class else 0
    try:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            arguments = with_padding(arguments, images.shape)
            arguments |= {"values": images.values, "context_features": context}
            return from_options(make, images.shape, **arguments)
    except (RuntimeError, MemoryError) as error:
        raise ArgumentError(f"a model of this size cannot be built here: {error}") from None


def with_image_defaults(model: ModelConfig, images: Images) -> dict[str, Any]:
    """Returns the arguments of a model, with those that follow from the images filled in."""
    return {"dequantize": "uniform", **defaults(model.recipe, images.shape), **model.arguments}


def defaults(recipe: str, shape: tuple[int, int, int]) -> dict[str, Any]:
    """Returns the arguments of a recipe that follow from the shape of the images.

    There are as many levels as the sides can be halved, down to 2 pixels, and at most 3. Patches
    have 4 x 4 pixels if they fit often enough. Tiny images get narrow networks. Small images store
    everything for the backward pass.
    """
    sides = shape[1:]
    result: dict[str, Any] = {"memory": "store" if max(sides) <= STORED_SIDE else "recompute"}
    if recipe == "jet":
        fits = [p for p in PATCHES if all(side % p == 0 and side >= 4 * p for side in sides)]
        sizes = SMALL_JET if max(sides) <= SMALL_SIDE else {}
        return {**result, **sizes, "patch": next(iter(fits), 1)}
    levels = 0
    while levels < MOST_LEVELS and all(
        side % 2 ** (levels + 1) == 0 and side >= LEAST_SIDE * 2 ** (levels + 1) for side in sides
    ):
        levels += 1
    hidden = SMALL_HIDDEN if max(sides) <= SMALL_SIDE else HIDDEN
    return {**result, "hidden": hidden, "levels": max(1, levels)}


def with_classes(images: Images, classes: tuple[str, ...]) -> Images:
    """Returns images whose labels refer to the given classes, matched by name."""
    listed = ", ".join(classes[:12]) + (", ..." if len(classes) > 12 else "")
    if images.labels is None:
        raise ArgumentError(
            f"'images' should have classes, {images.source} has none: the flow of the run "
            f"reads the class, so put the images into folders called {listed}."
        )
    numbers = {name: number for number, name in enumerate(classes)}
    used = [images.classes[label] for label in np.unique(images.labels)]
    for name in used:
        if name not in numbers:
            raise ArgumentError(
                f"'images' should have the classes of the run, {listed}; {images.source} has "
                f"{name!r}."
            )
    renamed = np.array([numbers.get(name, 0) for name in images.classes], dtype=np.int64)
    return replace(images, labels=renamed[images.labels], classes=classes)


def skipped(images: Images) -> str:
    """Returns a note on the images that cannot be read."""
    return f"left out of the folder: {count(images.unreadable, 'image')} that cannot be read"


def images_for(
    flow: Flow, data: str, *, crop: bool, skip_unreadable: bool, classes: tuple[str, ...]
) -> Images:
    """Returns images in the form that a flow takes, with the classes that it reads."""
    channels, height, width = flow.event_shape
    images = load_images(
        data,
        size=(height, width),
        gray=channels == 1,
        crop=crop,
        skip_unreadable=skip_unreadable,
    )
    if images.unreadable:
        warnings.warn(skipped(images), DataWarning, stacklevel=3)
    values = values_of(flow)
    if images.values > values:
        raise ArgumentError(
            f"'images' should have pixels of {values} values, as the run has; those of {data} "
            f"have {images.values}."
        )
    return with_classes(images, classes) if classes else images
