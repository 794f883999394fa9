"""Noise that fills the gaps between whole pixel values, alone or next to padding."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from kappaflow._checks import batch, image_shape, positive_int
from kappaflow.bijection import Chain, Inverse, log_det_dtype, zero_log_det
from kappaflow.bijections import AffineCoupling, Squeeze
from kappaflow.errors import ArgumentError
from kappaflow.flows.augmentation import Augmentation, uniform_like
from kappaflow.flows.base import StandardNormal
from kappaflow.flows.padding import Pad, Padding
from kappaflow.nets import ConvNet
from kappaflow.partition import Partition
from kappaflow.registry import register

LARGEST_BLIND_PART = 0.1  # largest part of an interval that may be lost to rounding


@register("Dequantize")
class Dequantize(Augmentation):
    """Adds uniform noise to whole numbers from 0 to values - 1: y = x + e with e on [0, 1).

    The density of y, integrated over the interval of a number, is the probability of that number.
    `Flow.log_prob` is on average a lower bound on its logarithm. So log_prob is in nats of the
    discrete x, and -log_prob / (D log 2) is in bits per dimension.

    Args:
        values: Number of values of a pixel, such as 256.

    Source:
        Theis, van den Oord, Bethge 2016, A note on the evaluation of generative models, 3.1.

    Example:
        >>> e, log_q = Dequantize(4).draw(torch.tensor([[0.0, 3.0]]))
        >>> bool(((0 <= e) & (e < 1)).all()), log_q
        (True, tensor([0.]))
    """

    def __init__(self, values: int = 256) -> None:
        super().__init__()
        self.values = positive_int("values", values)

    def draw(
        self, x: Tensor, *, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        check_whole(x, self.values)
        return below_one(uniform_like(x, generator), self.values), zero_log_det(x)

    def log_prob(self, e: Tensor, x: Tensor) -> Tensor:
        inside = ((e >= 0) & (e < 1)).flatten(1).all(1)
        return zero_log_det(e).masked_fill(~inside, -math.inf)

    def join(self, x: Tensor, e: Tensor) -> Tensor:
        return x + e

    def drop(self, joined: Tensor) -> tuple[Tensor, Tensor]:
        x = joined.floor().clamp(0, self.values - 1)
        return x, joined - x

    def extra_repr(self) -> str:
        return f"values={self.values}"


def check_whole(x: Tensor, values: int) -> None:
    """Raises an error unless x holds whole numbers from 0 to values - 1.

    Otherwise bits per dimension would be wrong. Also raises an error for a dtype in which a pixel
    plus noise rounds to the pixel.
    """
    if _blind_part(batch("x", x).dtype, values) > LARGEST_BLIND_PART:
        raise ArgumentError(
            f"'x' should have a wider dtype than {x.dtype}, which cannot resolve noise on pixels "
            f"with {values} values: use float32."
        )
    if x.numel() and not ((x == x.floor()) & (x >= 0) & (x < values)).all():
        raise ArgumentError(
            f"'x' should hold whole numbers from 0 to {values - 1}, as the dequantization of this "
            "flow expects: pass raw pixel values, not scaled ones."
        )


def below_one(e: Tensor, values: int) -> Tensor:
    """Returns e clamped below 1, so that x + e is less than x + 1 even after rounding."""
    return e.clamp_max(1 - _blind_part(e.dtype, values))


def _blind_part(dtype: torch.dtype, values: int) -> float:
    """Returns the part of [0, 1) next to 1 in which a pixel plus noise may round up."""
    return 2 * values * torch.finfo(dtype).eps


LEAST = 1e-5  # smallest distance of the noise from 0, where its logit would be infinite


@register("VariationalDequantize")
class VariationalDequantize(Dequantize):
    """Adds noise with a learned density to whole numbers from 0 to values - 1: y = x + e.

    The noise e is the sigmoid of a small flow of N(0, I) whose couplings read x. It learns to
    place y where the model of y is dense, which makes `Flow.log_prob` a tighter bound than with
    `Dequantize`. Before training, e is the sigmoid of N(0, I).

    Args:
        event_shape: Shape (C, H, W) of the images. With even H and W the couplings see
            neighboring pixels together.
        values: Number of values of a pixel, such as 256.
        depth: Number of couplings.
        hidden: Channels of their networks.

    Source:
        Ho, Chen, Srinivas, Duan, Abbeel 2019 (Flow++), section 3.1.

    Example:
        >>> filling = VariationalDequantize((1, 4, 4), 16, depth=2, hidden=4)
        >>> x = torch.zeros(2, 1, 4, 4)
        >>> e, log_q = filling.draw(x)
        >>> torch.allclose(filling.log_prob(e, x), log_q, atol=1e-3)
        True
    """

    def __init__(
        self, event_shape: Sequence[int], values: int = 256, *, depth: int = 4, hidden: int = 32
    ) -> None:
        super().__init__(values)
        self.shape = image_shape("event_shape", event_shape)
        channels, *sides = self.shape
        squeeze = Squeeze(1 if any(side % 2 for side in sides) else 2)
        self.map = Chain([
            squeeze,
            *(
                _coupling(channels * squeeze.factor**2, positive_int("hidden", hidden), layer)
                for layer in range(positive_int("depth", depth))
            ),
            Inverse(squeeze),
        ])

    def draw(
        self, x: Tensor, *, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        check_whole(x, self.values)
        base = StandardNormal(self.shape)
        noise = base.sample(len(x), dtype=x.dtype, device=x.device, generator=generator)
        joined, log_det = self.map(torch.cat((self._scaled(x), noise), 1))
        u = joined[:, x.shape[1] :]
        e = below_one(torch.sigmoid(u).clamp_min(LEAST), self.values)
        return e, base.log_prob(noise) - log_det - _log_slope(u)

    def log_prob(self, e: Tensor, x: Tensor) -> Tensor:
        outside = (e <= 0) | (e >= 1)
        u = torch.logit(e.masked_fill(outside, 0.5))
        joined, log_det = self.map.inverse(torch.cat((self._scaled(x), u), 1))
        noise = joined[:, x.shape[1] :]
        inside = StandardNormal(self.shape).log_prob(noise) + log_det - _log_slope(u)
        return inside.masked_fill(outside.flatten(1).any(1), -math.inf)

    def event_shape(self, joint_shape: Sequence[int]) -> tuple[int, ...]:
        if tuple(joint_shape) != self.shape:
            raise ArgumentError(
                f"'augment' should be for images of the shape {tuple(joint_shape)} that the "
                f"bijection takes, got one for {self.shape}."
            )
        return self.shape

    def _scaled(self, x: Tensor) -> Tensor:
        """Returns pixel values scaled to [-1, 1] for the networks."""
        return x * (2 / max(1, self.values - 1)) - 1


def _coupling(channels: int, hidden: int, layer: int) -> AffineCoupling:
    """Returns a coupling on 2 * channels that changes half of the noise channels."""
    noise = range(channels, 2 * channels)
    changed = noise[layer % 2 :: 2] if channels > 1 else noise
    kept = tuple(sorted(set(range(2 * channels)) - set(changed)))
    network = ConvNet(len(kept), 2 * len(changed), hidden)
    return AffineCoupling(Partition(2 * channels, kept), network)


def _log_slope(u: Tensor) -> Tensor:
    """Returns the log of the derivative of the sigmoid, summed over the pixels, (B,)."""
    logits = u.to(log_det_dtype(u.dtype))
    return (logsigmoid(logits) + logsigmoid(-logits)).flatten(1).sum(1)


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
