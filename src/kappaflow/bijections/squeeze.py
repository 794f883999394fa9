"""Squeeze: the pixels of small squares become channels."""

from collections.abc import Sequence

from torch import Tensor
from torch.nn.functional import pixel_shuffle, pixel_unshuffle

from kappaflow._checks import batch, positive_int
from kappaflow.bijection import Bijection, zero_log_det
from kappaflow.errors import ArgumentError
from kappaflow.linearization import Linearization, RearrangedLinearization
from kappaflow.registry import register


@register("Squeeze")
class Squeeze(Bijection):
    """(C, H, W) to (C f^2, H / f, W / f): each f x f square of pixels becomes channels.

    Channel c f^2 + i f + j of the latent is channel c of the pixels in row i and column j of the
    squares: all pixels of the first channel come first, row by row, then those of the second.
    `Inverse(Squeeze())` takes channels back to pixels.

    Args:
        factor: f, the side of a square.

    Note:
        The order is that of `torch.nn.functional.pixel_unshuffle`. Other code orders the channels
        otherwise: pixels first, (i f + j) C + c, or f = 2 with the two diagonals one after the
        other (the figure of RealNVP). A permutation of the channels takes one to the other.

    Source:
        Dinh, Sohl-Dickstein, Bengio 2017 (RealNVP), section 3.6.

    Example:
        >>> import torch
        >>> x = torch.arange(8.0).reshape(1, 2, 2, 2)  # channels 0 to 3 and 4 to 7
        >>> Squeeze()(x)[0].flatten().tolist()
        [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]
        >>> Squeeze()(torch.zeros(1, 3, 32, 16))[0].shape
        torch.Size([1, 12, 16, 8])
    """

    def __init__(self, factor: int = 2) -> None:
        super().__init__()
        self.factor = positive_int("factor", factor)

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        self.latent_shape(batch("x", x).shape[1:])
        return self._to_channels(x), zero_log_det(x)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        self.data_shape(batch("z", z).shape[1:])
        return self._to_pixels(z), zero_log_det(z)

    def linearize(self, x: Tensor, context: Tensor | None = None) -> Linearization:
        self.latent_shape(batch("x", x).shape[1:])
        return RearrangedLinearization(x, self._to_channels, self._to_pixels)

    def latent_shape(self, event_shape: Sequence[int]) -> tuple[int, ...]:
        shape, factor = tuple(event_shape), self.factor
        if len(shape) != 3 or shape[1] % factor or shape[2] % factor:
            raise ArgumentError(
                f"'x' should be images (channels, height, width) whose height and width divide by "
                f"{factor} to be squeezed, got shape {shape}."
            )
        return shape[0] * factor**2, shape[1] // factor, shape[2] // factor

    def data_shape(self, latent_shape: Sequence[int]) -> tuple[int, ...]:
        shape, factor = tuple(latent_shape), self.factor
        if len(shape) != 3 or shape[0] % factor**2:
            raise ArgumentError(
                f"'z' should be images whose channels divide by {factor**2}, got shape {shape}."
            )
        return shape[0] // factor**2, shape[1] * factor, shape[2] * factor

    def _to_channels(self, x: Tensor) -> Tensor:
        if not x.numel():  # which torch would return in the shape that it has
            return x.reshape(*x.shape[:-3], *self.latent_shape(x.shape[-3:]))
        return pixel_unshuffle(x, self.factor)

    def _to_pixels(self, z: Tensor) -> Tensor:
        if not z.numel():
            return z.reshape(*z.shape[:-3], *self.data_shape(z.shape[-3:]))
        return pixel_shuffle(z, self.factor)

    def extra_repr(self) -> str:
        return f"factor={self.factor}"
