"""Maps of images: squeeze, flatten and multi-scale."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import pixel_shuffle, pixel_unshuffle

from kappaflow._checks import batch, positive_int
from kappaflow.bijection import Bijection, Chain, zero_log_det
from kappaflow.bijections.permutation import Permutation
from kappaflow.errors import ArgumentError
from kappaflow.linearization import Linearization, RearrangedLinearization
from kappaflow.partition import Partition
from kappaflow.registry import register


@register("Squeeze")
class Squeeze(Bijection):
    """Maps (C, H, W) to (C f^2, H / f, W / f): each f x f square of pixels becomes channels.

    Channel c f^2 + i f + j of the latent is channel c of the pixels in row i and column j of the
    squares. All pixels of the first channel come first, row by row, then those of the second
    channel. `Inverse(Squeeze())` maps channels back to pixels.

    Args:
        factor: The side f of a square.

    Note:
        The order is the same as in `torch.nn.functional.pixel_unshuffle`. Some implementations
        put pixels first, (i f + j) C + c, or use the two diagonals one after the other (the figure
        of RealNVP). A permutation of the channels converts between them.

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
        if not x.numel():  # torch would return an empty tensor in its old shape
            return x.reshape(*x.shape[:-3], *self.latent_shape(x.shape[-3:]))
        return pixel_unshuffle(x, self.factor)

    def _to_pixels(self, z: Tensor) -> Tensor:
        if not z.numel():
            return z.reshape(*z.shape[:-3], *self.data_shape(z.shape[-3:]))
        return pixel_shuffle(z, self.factor)

    def extra_repr(self) -> str:
        return f"factor={self.factor}"


@register("Flatten")
class Flatten(Bijection):
    """Maps (C, H, W) to (C H W,), in the order of memory.

    Args:
        event_shape: Shape of one image, (C, H, W).
    """

    def __init__(self, event_shape: Sequence[int]) -> None:
        super().__init__()
        self.event_shape = tuple(event_shape)

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return batch("x", x, self.event_shape).flatten(1), zero_log_det(x)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        self.data_shape(batch("z", z).shape[1:])
        return z.unflatten(1, self.event_shape), zero_log_det(z)

    def linearize(self, x: Tensor, context: Tensor | None = None) -> Linearization:
        return RearrangedLinearization(
            batch("x", x, self.event_shape),
            lambda v: v.flatten(1),
            lambda v: v.unflatten(1, self.event_shape),
        )

    def latent_shape(self, event_shape: Sequence[int]) -> tuple[int, ...]:
        if tuple(event_shape) != self.event_shape:
            raise ArgumentError(
                f"'x' should hold events of shape {self.event_shape}, got {tuple(event_shape)}."
            )
        return (torch.Size(self.event_shape).numel(),)

    def data_shape(self, latent_shape: Sequence[int]) -> tuple[int, ...]:
        size = torch.Size(self.event_shape).numel()
        if tuple(latent_shape) != (size,):
            raise ArgumentError(
                f"'z' should hold events of {size} numbers, got shape {tuple(latent_shape)}."
            )
        return self.event_shape

    def extra_repr(self) -> str:
        return f"event_shape={self.event_shape}"


class ScaleLayer(Bijection):
    """A layer that acts on images at the end of a flat state, (B, D); the rest stays unchanged.

    The images have the shape (c, h, w) and begin at entry `first` of the state. `scale` is the
    number of the layer's scale, counted from 1.
    """

    def __init__(self, layer: Bijection, shape: Sequence[int], *, first: int, scale: int) -> None:
        super().__init__()
        self.layer, self.shape, self.first, self.scale = layer, tuple(shape), first, scale
        self.context_features = layer.context_features

    def layer_name(self) -> str:
        return f"{self.layer.layer_name()}, scale {self.scale}"

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        z, log_det = self.layer(self._images(x, self.shape), context)
        return self._joined(x, z), log_det

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        shape = self.layer.latent_shape(self.shape)
        x, log_det = self.layer.inverse(self._images(z, shape), context)
        return self._joined(z, x), log_det

    def linearize(self, x: Tensor, context: Tensor | None = None) -> Linearization:
        inner = self.layer.linearize(self._images(x, self.shape), context)
        return _ScaleLinearization(inner, self._joined(x, inner.value), self.first, self.shape)

    def _images(self, state: Tensor, shape: tuple[int, ...]) -> Tensor:
        return state[:, self.first :].unflatten(1, shape)

    def _joined(self, state: Tensor, images: Tensor) -> Tensor:
        return torch.cat((state[:, : self.first], images.flatten(1)), 1)


class _ScaleLinearization(Linearization):
    """The derivative of a `ScaleLayer`: the identity, then the derivative of the layer."""

    def __init__(
        self, inner: Linearization, value: Tensor, first: int, shape: tuple[int, ...]
    ) -> None:
        self.value, self.log_det = value, inner.log_det
        self._inner, self._first = inner, first
        self._shapes = shape, tuple(inner.value.shape[1:])

    def jv(self, v: Tensor) -> Tensor:
        return self._joined(v, self._inner.jv(self._images(v, 0)))

    def vjp(self, u: Tensor) -> Tensor:
        return self._joined(u, self._inner.vjp(self._images(u, 1)))

    def inverse_jv(self, w: Tensor) -> Tensor:
        return self._joined(w, self._inner.inverse_jv(self._images(w, 1)))

    def inverse_vjp(self, y: Tensor) -> Tensor:
        return self._joined(y, self._inner.inverse_vjp(self._images(y, 0)))

    def matrix(self, x: Tensor) -> Tensor:
        return self._beside_identity(self._inner.matrix(self._images(x, 0)))

    def matrices(self, x: Tensor) -> tuple[Tensor, Tensor]:
        forward, back = self._inner.matrices(self._images(x, 0))
        return self._beside_identity(forward), self._beside_identity(back)

    def _beside_identity(self, inner: Tensor) -> Tensor:
        jacobians = torch.eye(self._first + inner.shape[1]).to(inner).repeat(len(inner), 1, 1)
        jacobians[:, self._first :, self._first :] = inner
        return jacobians

    def _images(self, vectors: Tensor, side: int) -> Tensor:
        return vectors[..., self._first :].unflatten(-1, self._shapes[side])

    def _joined(self, vectors: Tensor, images: Tensor) -> Tensor:
        flat = images.flatten(vectors.dim() - 1)
        return torch.cat((vectors[..., : self._first], flat), -1)


Shape = tuple[int, ...]


@register("MultiScale")
class MultiScale(Bijection):
    """A bijection for each scale; after each scale half of the channels are factored out.

    The first half of the channels (rounded down) continues to the next scale, and the last scale
    keeps all. The latent is one flat tensor, (B, D). The channels factored out at the finest scale
    come first, and the coarsest scale comes last. Each part is flattened as (channels, height,
    width); `latents` returns the parts as images. `inverse` restores the image.

    Args:
        event_shape: Shape (C, H, W) of the images.
        scales: A bijection for each scale, usually a `Chain` that begins with a `Squeeze`. For a
            learned density of the factored-out channels given the rest, end the scale with a
            coupling of `Partition.half`.

    Attributes:
        shapes: Shape (c, h, w) of the latent of each scale.
        shapes_in: Shape of the input of each scale.

    Raises:
        ArgumentError: There is no scale, or a scale does not fit the shape of its input or leaves
            a single channel, which cannot be halved.

    Source:
        Dinh, Sohl-Dickstein, Bengio 2017 (RealNVP), section 3.6; a learned density of the
        factored-out channels: Kingma, Dhariwal 2018 (Glow).

    Example:
        >>> import kappaflow as kf
        >>> squeeze = kf.bijections.Squeeze()
        >>> scales = [kf.Chain([squeeze, kf.bijections.ActNorm(4)]), squeeze]
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
        """Returns the parts of a latent, (B, D), as images, (B, c, h, w), finest scale first."""
        self.data_shape(batch("z", z).shape[1:])
        parts = z.split(self._sizes, 1)
        return tuple(
            part.unflatten(1, shape) for part, shape in zip(parts, self.shapes, strict=True)
        )

    def linearize(self, x: Tensor, context: Tensor | None = None) -> Linearization:
        return self.plain().linearize(batch("x", x, self.event_shape), context)

    def plain(self) -> Chain:
        """Returns the same map as a chain of single layers that act on the end of a flat state.

        Diagnostics use it to measure each layer. It shares the layers of the scales.
        """
        parts: list[Bijection] = [Flatten(self.event_shape)]
        shape, first = self.event_shape, 0
        device = next((t.device for t in (*self.parameters(), *self.buffers())), None)
        for number, (scale, split) in enumerate(zip(self, self._splits, strict=True), start=1):
            layers = list(scale) if isinstance(scale, Chain) else [scale]
            if split is not None:
                layers.append(Permutation(split.changed + split.kept).to(device))
            for layer in layers:
                parts.append(ScaleLayer(layer, shape, first=first, scale=number))
                shape = layer.latent_shape(shape)
            if split is not None:
                first, shape = first + self._sizes[number - 1], (len(split.kept), *shape[1:])
        return Chain(parts)

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
        """Returns the split after each scale, the input shapes and the latent shapes."""
        shape, splits, before, shapes = self.event_shape, [], [], []
        *others, last = self
        for number, scale in enumerate(others, start=1):
            before.append(shape)
            shape = scale.latent_shape(shape)
            if len(shape) != 3 or shape[0] < 2:
                raise ArgumentError(
                    f"scale {number} should leave images with two channels or more, because half "
                    f"of them continue to the next scale, got shape {shape}."
                )
            split = Partition.half(shape[0])
            splits.append(split)
            shapes.append((len(split.changed), *shape[1:]))
            shape = (len(split.kept), *shape[1:])
        return [*splits, None], (*before, shape), (*shapes, last.latent_shape(shape))

    def extra_repr(self) -> str:
        return f"event_shape={self.event_shape}"
