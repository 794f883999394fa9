"""Options of `kappaflow fit` that only images have."""

from dataclasses import dataclass
from typing import Annotated, Literal

from cyclopts import Parameter

from kappaflow.cli.of_models import PADDING
from kappaflow.cli.whole import Whole, Wholes

Flag = Parameter(negative=())


@dataclass(frozen=True)
class ImageOptions:
    """How to read images, and options of models of images.

    Parameters
    ----------
    size
        Resize all images to this height and width, such as --size 32 or --size 48 32.
    grey
        Convert to one channel; --no-grey converts to three. Default: the channels of the images.
    crop
        Crop images of another aspect ratio to their center before resizing; --no-crop squeezes
        them instead.
    flip
        Mirror training images at random.
    by_class
        Fit a density given the class of an image, which is the name of its folder.
    levels
        glow, real_nvp_image: number of scales (as often as the sides can be halved, at most 3).
    steps
        glow: steps in each level (8).
    coupling
        glow: affine or additive (affine).
    dequantize
        Noise between the values of a pixel: uniform (the default) or variational (learned).
    logit
        Apply a logit to the pixels first, with this margin, such as 0.05.
    patch
        jet: side of a patch (4, or less for small images).
    width
        jet: width of the transformers (64; 32 for images up to 16 x 16).
    """

    size: Wholes | None = None
    grey: bool | None = None
    crop: bool | None = None
    flip: Annotated[bool, Flag] = False
    by_class: Annotated[bool, Flag] = False
    levels: Whole | None = None
    steps: Whole | None = None
    coupling: Literal["affine", "additive"] | None = None
    dequantize: Literal["uniform", "variational"] | None = None
    logit: float | None = None
    patch: Whole | None = None
    width: Whole | None = None


OF_SOURCE = ("size", "grey", "crop", "flip", "by_class")
EVERY_MODEL = ("scale_bound", "memory", "dequantize", "logit", *PADDING)
OF_MODELS = {
    "glow": (*EVERY_MODEL, "levels", "steps", "hidden", "mixing", "condition_bound", "coupling"),
    "real_nvp_image": (*EVERY_MODEL, "levels", "hidden"),
    "jet": (*EVERY_MODEL, "patch", "depth", "width"),
}
