"""Paddings by a word and a number, as recipes and the command line take them."""

from collections.abc import Sequence

from kappaflow._checks import natural_int, one_of
from kappaflow.errors import ArgumentError
from kappaflow.flows.augment import Augmentation
from kappaflow.flows.pad import Pad, Padding, UniformPad, ZeroPad
from kappaflow.flows.pad_given import CopyPad, LearnedPad
from kappaflow.flows.padded import DequantizeAndPad
from kappaflow.nets import ConvNet

KINDS = ("gaussian", "uniform", "zero", "copy", "learned")
WITHOUT_SCALE = ("zero", "learned")
IMAGE_HIDDEN = 32


def checked_padding(padding: object) -> Padding | None:
    """Returns what a recipe's `padding` asks for: None and 0 for none, a number for Gaussian."""
    if padding is None or isinstance(padding, Padding):
        return padding
    features = natural_int("padding", padding, "or a Padding, such as kappaflow.ZeroPad(2).")
    return Pad(features) if features else None


def padding_features(padding: Padding | None) -> int:
    """Returns how many features a padding adds."""
    return 0 if padding is None else padding.features


def padding_of_kind(
    kind: str, features: int, event_shape: Sequence[int], *, scale: float | None = None
) -> Padding:
    """Returns a padding by its kind, for points of a shape.

    Args:
        kind: "gaussian", "uniform", "zero", "copy" or "learned".
        features: How many features it adds.
        event_shape: Shape of the points: (D,), or (C, H, W).
        scale: Of "gaussian", "uniform" and "copy"; their default if left out.

    Returns:
        The padding.

    Raises:
        ArgumentError: There is no such kind, or a number is out of its range or not wanted.

    Example:
        >>> padding_of_kind("uniform", 2, (3,), scale=0.5)
        UniformPad(features=2, scale=0.5)
    """
    one_of("padding_kind", kind, KINDS)
    if scale is not None and kind in WITHOUT_SCALE:
        raise ArgumentError(f"'padding_scale' should be left out for {kind} padding, got {scale}.")
    given = {} if scale is None else {"scale": scale}
    inputs, *places = event_shape
    match kind:
        case "gaussian":
            return Pad(features, **given)
        case "uniform":
            return UniformPad(features, **given)
        case "zero":
            return ZeroPad(features)
        case "copy":
            return CopyPad(inputs, features, **given)
    network = ConvNet(inputs, 2 * features, IMAGE_HIDDEN) if places else None
    return LearnedPad(inputs, features, network)


def padding_in(augment: Augmentation | None) -> Padding | None:
    """Returns the padding of what joins the points of a flow, None where there is none."""
    if isinstance(augment, DequantizeAndPad):
        return augment.padding
    return augment if isinstance(augment, Padding) else None
