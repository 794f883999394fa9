"""Layers of a multi-scale map on one flat state, for what measures layer by layer."""

from collections.abc import Sequence

import torch
from torch import Tensor

from kappaflow._checks import batch
from kappaflow.bijection import Bijection, zero_log_det
from kappaflow.errors import ArgumentError
from kappaflow.linearization import Linearization, RearrangedLinearization
from kappaflow.registry import register


@register("Flatten")
class Flatten(Bijection):
    """(C, H, W) to (C H W,), in the order of memory.

    Args:
        event_shape: Shape of one x.
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


class Tail(Bijection):
    """A layer of images on the end of a flat state (B, D); what comes before it stays.

    Args:
        layer: Of images of shape `shape`.
        shape: (c, h, w).
        first: Where they begin in the state.
        scale: The scale that the layer belongs to, counted from 1.
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
        return _TailLinearization(inner, self._joined(x, inner.value), self.first, self.shape)

    def _images(self, state: Tensor, shape: tuple[int, ...]) -> Tensor:
        return state[:, self.first :].unflatten(1, shape)

    def _joined(self, state: Tensor, images: Tensor) -> Tensor:
        return torch.cat((state[:, : self.first], images.flatten(1)), 1)


class _TailLinearization(Linearization):
    """The identity in front, the derivative of the layer at the end."""

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

    def _images(self, vectors: Tensor, side: int) -> Tensor:
        return vectors[..., self._first :].unflatten(-1, self._shapes[side])

    def _joined(self, vectors: Tensor, images: Tensor) -> Tensor:
        flat = images.flatten(vectors.dim() - 1)
        return torch.cat((vectors[..., : self._first], flat), -1)
