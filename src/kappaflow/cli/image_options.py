"""Options of `kappaflow fit` that only images have."""

from dataclasses import dataclass
from typing import Annotated, Literal

from cyclopts import Parameter

from kappaflow.cli.of_models import PADDING
from kappaflow.cli.whole import Whole, Wholes

Flag = Parameter(negative=())


@dataclass(frozen=True)
class ImageOptions:
    """What to make of images, and the models of images.

    Parameters
    ----------
    size
        Bring all images to this height and width, such as: --size 32, or --size 48 32
    grey
        One channel; --no-grey makes it three. What is there if left out.
    crop
        Cut images of another aspect ratio to their central part before they are resized;
        --no-crop squeezes them.
    flip
        Mirror training images at random.
    by_class
        A density given the class of the image: the folder that it lies in.
    levels
        glow, real_nvp_image: scales; as many as the sides can be halved if left out, at most 3.
    steps
        glow: steps in each level (8).
    coupling
        glow: affine or additive (affine).
    dequantize
        What fills the steps between the values of a pixel (uniform).
    logit
        A margin, such as 0.05, puts a logit of the pixels in front.
    patch
        jet: side of a patch; 4, or less for small images.
    width
        jet: width of the transformers (64; 32 up to 16 x 16).
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
