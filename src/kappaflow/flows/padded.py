"""Pixels that are filled, beside channels that are added."""

from collections.abc import Sequence

import torch
from torch import Tensor

from kappaflow.errors import ArgumentError
from kappaflow.flows.augment import Augmentation, Dequantize
from kappaflow.flows.pad import Pad, Padding
from kappaflow.flows.variational import VariationalDequantize
from kappaflow.registry import register


@register("DequantizeAndPad")
class DequantizeAndPad(Augmentation):
    """Fills the steps between pixel values, then adds features: both in turn.

    e is (B, C + features, ...): the noise of the C channels of x, and behind it what is added. A
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
