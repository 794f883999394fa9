"""Multi-scale maps of images: after each scale a part of the channels is done."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from kappaflow._checks import batch
from kappaflow.bijection import Bijection, Chain, zero_log_det
from kappaflow.bijections.permutation import Permutation
from kappaflow.bijections.tail import Flatten, Tail
from kappaflow.errors import ArgumentError
from kappaflow.linearization import Linearization
from kappaflow.partition import Partition
from kappaflow.registry import register

Shape = tuple[int, ...]


@register("MultiScale")
class MultiScale(Bijection):
    """Bijections scale by scale: behind each but the last, half of the channels are factored out.

    The first half of the channels (rounded down) goes on to the next scale. The latent is one flat
    tensor (B, D): what was factored out at the finest scale comes first, the coarsest scale last,
    each part flattened as (channels, height, width); `latents` is the view by scale. Nothing is
    lost, and `inverse` restores the image.

    Args:
        event_shape: (C, H, W) of the images.
        scales: A bijection for each scale, usually a `Chain` that begins with a `Squeeze`. If what
            is factored out is to have a learned density given what goes on, it ends with a
            coupling of `Partition.half`.

    Attributes:
        shapes: Of the parts of the latent, one (c, h, w) a scale.
        shapes_in: Of what reaches each scale.

    Raises:
        ArgumentError: There is no scale, one does not fit the shape of what reaches it, or leaves
            a single channel, of which no half could go on.

    Source:
        Dinh, Sohl-Dickstein, Bengio 2017 (RealNVP), section 3.6; a learned density of what is
        factored out: Kingma, Dhariwal 2018 (Glow).

    Example:
        >>> import kappaflow as kf
        >>> scales = [kf.Chain([kf.Squeeze(), kf.ActNorm(4)]), kf.Squeeze()]
        >>> two = MultiScale((1, 8, 8), scales)
        >>> two.shapes
        ((2, 4, 4), (8, 2, 2))
        >>> two(torch.zeros(5, 1, 8, 8))[0].shape
        torch.Size([5, 64])
    """

    def __init__(self, event_shape: Sequence[int], scales: Sequence[Bijection]) -> None:
        super().__init__()
        for scale in scales:
            if not isinstance(scale, Bijection):
                raise ArgumentError(f"'scales' should be bijections, got {type(scale).__name__}.")
        if not len(scales):
            raise ArgumentError("'scales' should hold one bijection or more, got none.")
        self.event_shape = tuple(event_shape)
        self.scales = nn.ModuleList(scales)
        self.context_features = max(scale.context_features for scale in scales)
        self._splits, self.shapes_in, self.shapes = self._plan()
        self._sizes = [torch.Size(shape).numel() for shape in self.shapes]

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        h, log_det = batch("x", x, self.event_shape), zero_log_det(x)
        done = []
        for scale, split in zip(self, self._splits, strict=True):
            h, part = scale(h, context)
            log_det = log_det + part
            if split is not None:
                h, out = split.split(h)
                done.append(out.flatten(1))
        return torch.cat([*done, h.flatten(1)], 1), log_det

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        h, log_det = None, zero_log_det(z)
        parts = [*zip(self, self._splits, self.latents(z), strict=True)]
        for scale, split, out in reversed(parts):
            h = out if h is None or split is None else split.merge(h, out)
            h, part = scale.inverse(h, context)
            log_det = log_det + part
        return h, log_det  # pyright: ignore[reportReturnType]

    def latents(self, z: Tensor) -> tuple[Tensor, ...]:
        """Returns the parts of a latent (B, D) as images (B, c, h, w), the finest scale first."""
        self.data_shape(batch("z", z).shape[1:])
        parts = z.split(self._sizes, 1)
        return tuple(
            part.unflatten(1, shape) for part, shape in zip(parts, self.shapes, strict=True)
        )

    def linearize(self, x: Tensor, context: Tensor | None = None) -> Linearization:
        return self.plain().linearize(batch("x", x, self.event_shape), context)

    def plain(self) -> Chain:
        """Returns the same map layer by layer, on a flat state of which each changes the end.

        What measures layers sees this chain; its parts are those of the scales.
        """
        found: list[Bijection] = [Flatten(self.event_shape)]
        shape, first = self.event_shape, 0
        for number, (scale, split) in enumerate(zip(self, self._splits, strict=True), start=1):
            layers = list(scale) if isinstance(scale, Chain) else [scale]
            if split is not None:
                layers.append(Permutation(split.changed + split.kept))
            for layer in layers:
                found.append(Tail(layer, shape, first=first, scale=number))
                shape = layer.latent_shape(shape)
            if split is not None:
                first, shape = first + self._sizes[number - 1], (len(split.kept), *shape[1:])
        return Chain(found)

    def latent_shape(self, event_shape: Sequence[int]) -> Shape:
        if tuple(event_shape) != self.event_shape:
            raise ArgumentError(
                f"'x' should have shape (batch, {', '.join(map(str, self.event_shape))}), got "
                f"events of shape {tuple(event_shape)}."
            )
        return (sum(self._sizes),)

    def data_shape(self, latent_shape: Sequence[int]) -> Shape:
        if tuple(latent_shape) != (sum(self._sizes),):
            raise ArgumentError(
                f"'z' should have shape (batch, {sum(self._sizes)}), got events of shape "
                f"{tuple(latent_shape)}."
            )
        return self.event_shape

    def __iter__(self) -> Iterator[Bijection]:
        return iter(self.scales)  # pyright: ignore[reportReturnType]

    def _plan(self) -> tuple[list[Partition | None], tuple[Shape, ...], tuple[Shape, ...]]:
        """Returns what goes on behind each scale, and the shapes that `__init__` holds."""
        shape, splits, before, shapes = self.event_shape, [], [], []
        *others, last = self
        for number, scale in enumerate(others, start=1):
            before.append(shape)
            shape = scale.latent_shape(shape)
            if len(shape) != 3 or shape[0] < 2:
                raise ArgumentError(
                    f"scale {number} should leave images of two channels or more, of which half "
                    f"go on, it leaves shape {shape}."
                )
            split = Partition.half(shape[0])
            splits.append(split)
            shapes.append((len(split.changed), *shape[1:]))
            shape = (len(split.kept), *shape[1:])
        return [*splits, None], (*before, shape), (*shapes, last.latent_shape(shape))

    def extra_repr(self) -> str:
        return f"event_shape={self.event_shape}"
