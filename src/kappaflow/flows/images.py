"""What the recipes of images share: how pixels come in, and what fills them."""

from kappaflow._checks import one_of, positive_int
from kappaflow.bijection import Bijection, Chain
from kappaflow.bijections import Logit, Standardize
from kappaflow.errors import ArgumentError
from kappaflow.flows.augment import Augmentation, Dequantize
from kappaflow.flows.base import StandardNormal
from kappaflow.flows.flow import Flow
from kappaflow.flows.pad import Padding
from kappaflow.flows.pad_kinds import checked_padding, padding_features
from kappaflow.flows.padded import DequantizeAndPad
from kappaflow.flows.variational import VariationalDequantize
from kappaflow.nets import StandardizeInputs

DEQUANTIZATIONS = (None, "uniform", "variational")


def padded_shape(
    shape: tuple[int, int, int], padding: int | Padding | None
) -> tuple[int, int, int]:
    """Returns the shape of images with the channels of a padding behind their own."""
    channels, height, width = shape
    return channels + padding_features(checked_padding(padding)), height, width


def image_flow(
    shape: tuple[int, int, int],
    bijection: Bijection,
    *,
    dequantize: str | None,
    values: int,
    logit: float | None,
    padding: int | Padding | None,
    context_features: int,
) -> Flow:
    """Returns the flow of a bijection of images behind the units of the pixels.

    Args:
        shape: (C, H, W) of the images.
        bijection: Of images of that shape, with the padding channels behind its own.
        dequantize: None, "uniform" or "variational".
        values: How many values a pixel may have.
        logit: Margin of a logit of the pixels; None for a standardisation of the channels.
        padding: A `Padding`, or how many Gaussian channels are added; None for none.
        context_features: Width of the context, 0 for none.

    Returns:
        The flow.
    """
    joint_shape = padded_shape(shape, padding)
    added = joint_shape[0] - shape[0]
    units = (
        Standardize(joint_shape[0], padding=added)
        if logit is None
        else Logit(0.0, float(positive_int("values", values)), margin=logit, padding=added)
    )
    before = {}
    if context_features:
        before["embedding"] = StandardizeInputs(context_features)
        before["context_features"] = context_features
    base = StandardNormal(bijection.latent_shape(joint_shape))
    augment = _augmentation(shape, dequantize, values, checked_padding(padding))
    return Flow(base, Chain([units, bijection], **before), augment)


def _augmentation(
    shape: tuple[int, int, int], dequantize: str | None, values: int, padding: Padding | None
) -> Augmentation | None:
    """Returns what fills the pixels, or adds channels, or both, or neither."""
    if one_of("dequantize", dequantize, DEQUANTIZATIONS) is None:
        return padding
    filling = (
        Dequantize(values) if dequantize == "uniform" else VariationalDequantize(shape, values)
    )
    return filling if padding is None else DequantizeAndPad(filling, padding)


def check_levels(shape: tuple[int, int, int], levels: int, *, squeezes: int) -> None:
    """Refuses levels that squeeze images more often than their sides can be halved."""
    _, *sides = shape
    positive_int("levels", levels)
    if squeezes and any(side % 2 for side in sides):
        raise ArgumentError(
            f"the sides of the images should divide by 2 to be squeezed, got {sides[0]} x "
            f"{sides[1]} pixels: crop, pad or resize them."
        )
    if any(side % 2**squeezes for side in sides):
        most = min((side & -side).bit_length() - 1 for side in sides) + levels - squeezes
        raise ArgumentError(
            f"'levels' should be at most {most} for images of {sides[0]} x {sides[1]} pixels, "
            f"got {levels}: levels halve both sides."
        )
