"""Padding options of the recipes, and padding for dequantized images."""

from collections.abc import Sequence
from typing import get_args

import torch
from torch import Tensor

from kappaflow._checks import natural_int, one_of
from kappaflow.errors import ArgumentError
from kappaflow.flows.augmentation import Augmentation, Dequantize
from kappaflow.flows.padding import CopyPad, LearnedPad, Pad, Padding, UniformPad, ZeroPad
from kappaflow.nets import ConvNet
from kappaflow.options import PaddingKind
from kappaflow.registry import register


@register("DequantizeAndPad")
class DequantizeAndPad(Augmentation):
    """Dequantizes pixels and adds padding.

    The augmentation e, (B, C + features, ...), holds the noise of the C channels of x, followed by
    the padding. Padding that depends on x reads the whole numbers without noise.

    Args:
        filling: The dequantization, a `Dequantize` or a `VariationalDequantize`.
        padding: A `Padding`, or the number of features to draw from N(0, 1).

    Raises:
        ArgumentError: `filling` is not a dequantization.

    Source:
        Dequantization: Ho, Chen, Srinivas, Duan, Abbeel 2019. Padding: Huang, Dinh, Courville
        2020.

    Example:
        >>> both = DequantizeAndPad(Dequantize(4), 2)
        >>> x = torch.tensor([[0.0], [3.0]])
        >>> joined = both.join(x, both.draw(x)[0])
        >>> joined.shape, both.drop(joined)[0].flatten()
        (torch.Size([2, 3]), tensor([0., 3.]))
    """

    def __init__(self, filling: Dequantize, padding: int | Padding) -> None:
        super().__init__()
        if not isinstance(filling, Dequantize):
            raise ArgumentError(
                "'filling' should be a Dequantize or a VariationalDequantize, got "
                f"{type(filling).__name__}."
            )
        self.filling = filling
        self.padding = padding if isinstance(padding, Padding) else Pad(padding)
        self.has_density = filling.has_density and self.padding.has_density

    @property
    def values(self) -> int:
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


KINDS: tuple[PaddingKind, ...] = get_args(PaddingKind)
WITHOUT_SCALE = ("zero", "learned")
IMAGE_HIDDEN = 32  # hidden channels of the network that draws learned padding of images


def checked_padding(padding: object) -> Padding | None:
    """Returns the padding for a `padding` argument; None and 0 give none, a number Gaussian."""
    if padding is None or isinstance(padding, Padding):
        return padding
    features = natural_int("padding", padding, "or a Padding, such as kappaflow.flows.ZeroPad(2).")
    return Pad(features) if features else None


def padding_features(padding: Padding | None) -> int:
    """Returns the number of features that a padding adds."""
    return 0 if padding is None else padding.features


def padding_of_kind(
    kind: str, features: int, event_shape: Sequence[int], *, scale: float | None = None
) -> Padding:
    """Returns a padding of a kind for points of a shape, (D,) or (C, H, W).

    The kinds are "gaussian", "uniform", "zero", "copy" and "learned"; the first, the second and
    the fourth have a scale.

    Raises:
        ArgumentError: The kind is unknown, or a number is out of range or unexpected.

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
    """Returns the padding in the augmentation of a flow, or None."""
    if isinstance(augment, DequantizeAndPad):
        return augment.padding
    return augment if isinstance(augment, Padding) else None
