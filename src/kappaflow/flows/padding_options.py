"""Padding by name, and padding of dequantized pixels."""

from collections.abc import Sequence

import torch
from torch import Tensor

from kappaflow._checks import natural_int, one_of
from kappaflow.errors import ArgumentError
from kappaflow.flows.augmentation import Augmentation, Dequantize, VariationalDequantize
from kappaflow.flows.padding import CopyPad, LearnedPad, Pad, Padding, UniformPad, ZeroPad
from kappaflow.nets import ConvNet
from kappaflow.registry import register


@register("DequantizeAndPad")
class DequantizeAndPad(Augmentation):
    """Fills the steps between pixel values, then adds features: both in turn.

    e is (B, C + features, ...): the noise of the C channels of x, then the padding. A
    padding that reads x reads the values that are not filled.

    Args:
        filling: What fills the steps, `Dequantize` or `VariationalDequantize`.
        padding: What is added: a `Padding`, or how many features drawn from N(0, 1).

    Raises:
        ArgumentError: `filling` is something else.

    Source:
        Ho, Chen, Srinivas, Duan, Abbeel 2019, for the filling; Huang, Dinh, Courville 2020, for
        the padding.

    Example:
        >>> both = DequantizeAndPad(Dequantize(4), 2)
        >>> x = torch.tensor([[0.0], [3.0]])
        >>> joined = both.join(x, both.draw(x)[0])
        >>> joined.shape, both.drop(joined)[0].flatten()
        (torch.Size([2, 3]), tensor([0., 3.]))
    """

    def __init__(
        self, filling: Dequantize | VariationalDequantize, padding: int | Padding
    ) -> None:
        super().__init__()
        if not isinstance(filling, Dequantize | VariationalDequantize):
            raise ArgumentError(
                "'filling' should be a Dequantize or a VariationalDequantize, got "
                f"{type(filling).__name__}."
            )
        self.filling = filling
        self.padding = padding if isinstance(padding, Padding) else Pad(padding)
        self.has_density = filling.has_density and self.padding.has_density

    @property
    def values(self) -> int:
        """How many values a pixel may have."""
        return self.filling.values

    def fit(self, x: Tensor, weights: Tensor | None = None) -> None:
        self.filling.fit(x, weights)
        self.padding.fit(x, weights)

    def draw(
        self, x: Tensor, *, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        noise, log_noise = self.filling.draw(x, generator=generator)
        added, log_added = self.padding.draw(x, generator=generator)
        return torch.cat((noise, added), 1), log_noise + log_added

    def log_prob(self, e: Tensor, x: Tensor) -> Tensor:
        noise, added = self.padding.drop(e)
        return self.filling.log_prob(noise, x) + self.padding.log_prob(added, x)

    def join(self, x: Tensor, e: Tensor) -> Tensor:
        noise, added = self.padding.drop(e)
        return self.padding.join(self.filling.join(x, noise), added)

    def drop(self, joined: Tensor) -> tuple[Tensor, Tensor]:
        filled, added = self.padding.drop(joined)
        x, noise = self.filling.drop(filled)
        return x, torch.cat((noise, added), 1)

    def event_shape(self, joint_shape: Sequence[int]) -> tuple[int, ...]:
        return self.filling.event_shape(self.padding.event_shape(joint_shape))


KINDS = ("gaussian", "uniform", "zero", "copy", "learned")
WITHOUT_SCALE = ("zero", "learned")
IMAGE_HIDDEN = 32


def checked_padding(padding: object) -> Padding | None:
    """Returns what a recipe's `padding` asks for: None and 0 for none, a number for Gaussian."""
    if padding is None or isinstance(padding, Padding):
        return padding
    features = natural_int("padding", padding, "or a Padding, such as kappaflow.flows.ZeroPad(2).")
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
        ArgumentError: There is no such kind, or a number is out of range or unexpected.

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
