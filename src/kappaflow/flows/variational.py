"""Variational dequantisation: the noise that fills a pixel is learned."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from kappaflow._checks import image_shape, positive_int
from kappaflow.bijection import Chain, Inverse, log_det_dtype
from kappaflow.bijections import AffineCoupling, Squeeze
from kappaflow.errors import ArgumentError
from kappaflow.flows.augment import Augmentation, below_one, check_whole
from kappaflow.flows.base import StandardNormal
from kappaflow.nets import ConvNet
from kappaflow.partition import Partition
from kappaflow.registry import register

LEAST = 1e-5  # how far noise stays from 0 and 1, where its logit would be infinite


@register("VariationalDequantize")
class VariationalDequantize(Augmentation):
    """Whole numbers 0 to values - 1 become intervals, y = x + e, with a learned density of e.

    e is the sigmoid of a small flow of N(0, I) whose couplings read x. It learns to leave y where
    the model of y finds it likely, and `Flow.log_prob` becomes a tighter bound than with
    `Dequantize`. With new parameters e is the sigmoid of N(0, I).

    Args:
        event_shape: (C, H, W) of the images; even H and W let neighbouring pixels learn together.
        values: How many values a pixel may have, such as 256.
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
        super().__init__()
        self.shape = image_shape("event_shape", event_shape)
        self.values = positive_int("values", values)
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

    def join(self, x: Tensor, e: Tensor) -> Tensor:
        return x + e

    def drop(self, joined: Tensor) -> tuple[Tensor, Tensor]:
        x = joined.floor().clamp(0, self.values - 1)
        return x, joined - x

    def event_shape(self, joint_shape: Sequence[int]) -> tuple[int, ...]:
        if tuple(joint_shape) != self.shape:
            raise ArgumentError(
                f"'augment' should fill images of the shape that the bijection takes, "
                f"{tuple(joint_shape)}, got one of {self.shape}."
            )
        return self.shape

    def _scaled(self, x: Tensor) -> Tensor:
        """Returns pixel values from -1 to 1, for networks to read."""
        return x * (2 / max(1, self.values - 1)) - 1

    def extra_repr(self) -> str:
        return f"values={self.values}"


def _coupling(channels: int, hidden: int, layer: int) -> AffineCoupling:
    """Returns a coupling of 2 * channels that changes half of the second, and reads the rest."""
    noise = range(channels, 2 * channels)
    changed = noise[layer % 2 :: 2] if channels > 1 else noise
    kept = tuple(sorted(set(range(2 * channels)) - set(changed)))
    network = ConvNet(len(kept), 2 * len(changed), hidden)
    return AffineCoupling(Partition(2 * channels, kept), network)


def _log_slope(u: Tensor) -> Tensor:
    """Returns the log of the derivative of the sigmoid, summed over the pixels, (B,)."""
    wide = u.to(log_det_dtype(u.dtype))
    return (logsigmoid(wide) + logsigmoid(-wide)).flatten(1).sum(1)
