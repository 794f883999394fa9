"""The distribution of the latent."""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import SupportsIndex

import torch
from torch import Tensor, nn

from kappaflow._checks import positive_int
from kappaflow.bijection import log_det_dtype
from kappaflow.registry import register


class Base(nn.Module, ABC):
    """A distribution of latents, perhaps given a context.

    Attributes:
        event_shape: Shape of one event.
    """

    event_shape: tuple[int, ...]

    @abstractmethod
    def log_prob(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        """Returns log p(z | context) in nats, (B,), in float32 or wider.

        Args:
            z: (B, *event).
            context: (B, C), or None where the base does not read it.
        """

    @abstractmethod
    def sample(
        self,
        n: int,
        *,
        context: Tensor | None = None,
        dtype: torch.dtype = torch.float32,
        device: torch.device | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Returns n draws, (n, *event).

        Args:
            n: How many.
            context: (n, C), or None where the base does not read it.
            dtype: Their type.
            device: Where they lie; the generator's device if left out.
            generator: Draws on its own device, from which they are moved; torch's global one of
                `device` if left out.

        Returns:
            The draws.
        """


@register("StandardNormal")
class StandardNormal(Base):
    """Independent N(0, 1) in each coordinate of an event.

    Args:
        event_shape: Shape of one event; a number n is (n,).

    Example:
        >>> round(StandardNormal(2).log_prob(torch.zeros(1, 2)).item(), 4)
        -1.8379
    """

    def __init__(self, event_shape: int | Sequence[int]) -> None:
        super().__init__()
        shape = (event_shape,) if isinstance(event_shape, SupportsIndex) else tuple(event_shape)
        self.event_shape = tuple(positive_int("event_shape", size) for size in shape)
        # A flow without any numbers of its own still has a type and a device: those of its base.
        self.register_buffer("_place", torch.zeros(()), persistent=False)

    def log_prob(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        """Returns log N(z; 0, I) in nats, (B,), for z (B, *event); in float32 or wider."""
        wide = z.to(log_det_dtype(z.dtype)).flatten(1)
        return -0.5 * (wide * wide).sum(1) - 0.5 * wide.shape[1] * math.log(2 * math.pi)

    def sample(
        self,
        n: int,
        *,
        context: Tensor | None = None,
        dtype: torch.dtype = torch.float32,
        device: torch.device | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        there = device if generator is None else generator.device
        z = torch.randn((n, *self.event_shape), dtype=dtype, device=there, generator=generator)
        return z if device is None else z.to(device)

    def extra_repr(self) -> str:
        return f"event_shape={self.event_shape}"
