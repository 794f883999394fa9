"""What the recipes of images share: how pixels come in, and what fills them."""

from collections.abc import Sequence

from kappaflow._checks import one_of, positive_int
from kappaflow.bijection import Bijection, Chain
from kappaflow.bijections import Logit, Standardize
from kappaflow.errors import ArgumentError
from kappaflow.flows.augment import Augmentation, Dequantize
from kappaflow.flows.base import StandardNormal
from kappaflow.flows.flow import Flow
from kappaflow.flows.variational import VariationalDequantize
from kappaflow.nets import StandardizeInputs

DEQUANTIZATIONS = (None, "uniform", "variational")


def image_flow(
    shape: Sequence[int],
    bijection: Bijection,
    *,
    dequantize: str | None,
    values: int,
    logit: float | None,
    context_features: int,
) -> Flow:
    """Returns the flow of a bijection of images behind the units of the pixels.

    Args:
        shape: (C, H, W) of the images.
        bijection: Of images of that shape.
        dequantize: None, "uniform" or "variational".
        values: How many values a pixel may have.
        logit: Margin of a logit of the pixels; None for a standardisation of the channels.
        context_features: Width of the context, 0 for none.

    Returns:
        The flow.
    """
    units = (
        Standardize(shape[0])
        if logit is None
        else Logit(0.0, float(positive_int("values", values)), margin=logit)
    )
    before = {}
    if context_features:
        before["embedding"] = StandardizeInputs(context_features)
        before["context_features"] = context_features
    augment: Augmentation | None = None
    if one_of("dequantize", dequantize, DEQUANTIZATIONS) == "uniform":
        augment = Dequantize(values)
    elif dequantize == "variational":
        augment = VariationalDequantize(shape, values)
    base = StandardNormal(bijection.latent_shape(shape))
    return Flow(base, Chain([units, bijection], **before), augment)


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
