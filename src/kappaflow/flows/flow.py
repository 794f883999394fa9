"""A flow: a standard base, and the bijection that carries data to it."""

import math
from itertools import chain

import torch
from torch import Tensor, nn

from kappaflow._checks import natural_int
from kappaflow.bijection import Bijection, Chain
from kappaflow.bijections import Standardize
from kappaflow.errors import ArgumentError
from kappaflow.flows.base import StandardNormal
from kappaflow.registry import register


@register("Flow")
class Flow(nn.Module):
    """The density p(x) = p_Z(f(x)) |det df/dx| of a bijection f and a base p_Z.

    Args:
        base: The distribution of the latent.
        bijection: The map f from data to latent.

    Example:
        >>> import kappaflow as kf
        >>> flow = kf.Flow(kf.StandardNormal(2), kf.Permutation((1, 0)))
        >>> round(flow.log_prob(torch.zeros(1, 2)).item(), 4)
        -1.8379
    """

    def __init__(self, base: StandardNormal, bijection: Bijection) -> None:
        super().__init__()
        if not isinstance(base, StandardNormal):
            raise ArgumentError(f"'base' should be a StandardNormal, got {type(base).__name__}.")
        if not isinstance(bijection, Bijection):
            raise ArgumentError(
                f"'bijection' should be a Bijection, got {type(bijection).__name__}."
            )
        self.base = base
        self.bijection = bijection

    @property
    def event_shape(self) -> tuple[int, ...]:
        """Shape of one point."""
        return self.base.event_shape

    @property
    def context_features(self) -> int:
        """Width of the context, 0 where there is none."""
        return self.bijection.context_features

    @property
    def dtype(self) -> torch.dtype:
        """Type of the floating-point state, which x and context should have."""
        return self._state().dtype

    @property
    def device(self) -> torch.device:
        """Where the state lies."""
        return self._state().device

    @property
    def units(self) -> Chain:
        """The leading `Standardize` maps: a change of units, which conditioning does not count."""
        return self._chain()[: self._leading()]

    @property
    def core(self) -> Chain:
        """The bijection without its `units`: what acts on standardised columns."""
        return self._chain()[self._leading() :]

    def log_prob(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Returns log p(x | context) in nats, in the units of x; exact.

        Args:
            x: Points, (*batch, *event).
            context: (*batch, C) for a conditional flow. The leading shapes of both broadcast.

        Returns:
            (*batch,), in float32 or wider.

        Raises:
            ArgumentError: A shape, type or device does not fit, or a context is missing or not
                wanted.
        """
        batch_shape, x, context = self._rows(x, context)
        z, log_det = self.bijection(x, context)
        return (self.base.log_prob(z) + log_det).reshape(batch_shape)

    @torch.no_grad()
    def sample(
        self, n: int, context: Tensor | None = None, *, generator: torch.Generator | None = None
    ) -> Tensor:
        """Returns n draws: (n, *event), or (n, M, *event) for contexts (M, C)."""
        return self.sample_and_log_prob(n, context, generator=generator)[0]

    def rsample(
        self, n: int, context: Tensor | None = None, *, generator: torch.Generator | None = None
    ) -> Tensor:
        """Returns what `sample` does, with gradients to the parameters and the context."""
        return self.sample_and_log_prob(n, context, generator=generator)[0]

    def sample_and_log_prob(
        self, n: int, context: Tensor | None = None, *, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """Returns draws and their log p in nats, from one pass; both carry gradients.

        Args:
            n: Draws for each context.
            context: (M, C) for a conditional flow.
            generator: Source of randomness; torch's global one if left out.

        Returns:
            Draws (n, *event) or (n, M, *event), and log p (n,) or (n, M).

        Raises:
            ArgumentError: n is negative, or a context is missing or not wanted.
        """
        batch_shape: tuple[int, ...] = (natural_int("n", n),)
        self._check_context(context)
        if context is not None:
            batch_shape = (n, *context.shape[:-1])
            context = context.expand(*batch_shape, context.shape[-1]).reshape(
                -1, context.shape[-1]
            )
        z = self.base.sample(
            math.prod(batch_shape), dtype=self.dtype, device=self.device, generator=generator
        )
        x, log_det = self.bijection.inverse(z, context)
        log_prob = self.base.log_prob(z) - log_det
        return x.reshape(*batch_shape, *self.event_shape), log_prob.reshape(batch_shape)

    def _rows(self, x: Tensor, context: Tensor | None) -> tuple[torch.Size, Tensor, Tensor | None]:
        """Returns the batch shape, and x and context as rows of it."""
        event = self.event_shape
        if not isinstance(x, Tensor):
            raise ArgumentError(f"'x' should be a tensor, got {type(x).__name__}.")
        if x.shape[x.dim() - len(event) :] != torch.Size(event):
            raise ArgumentError(
                f"'x' should have shape (..., {', '.join(map(str, event))}), got {tuple(x.shape)}."
            )
        self._check_kind("x", x)
        self._check_context(context)
        batch_shape = x.shape[: x.dim() - len(event)]
        if context is not None:
            try:
                batch_shape = torch.broadcast_shapes(batch_shape, context.shape[:-1])
            except RuntimeError:
                raise ArgumentError(
                    f"'context' should have leading shape {tuple(batch_shape)} as 'x' does, or "
                    f"one that broadcasts with it, got {tuple(context.shape[:-1])}."
                ) from None
            context = context.expand(*batch_shape, -1).reshape(-1, context.shape[-1])
        return batch_shape, x.expand(*batch_shape, *event).reshape(-1, *event), context

    def _check_context(self, context: Tensor | None) -> None:
        width = self.context_features
        if context is None and width:
            raise ArgumentError(
                f"'context' should be given, with {width} columns: this flow is conditional."
            )
        if context is None:
            return
        if not width:
            raise ArgumentError("'context' should be left out: this flow is not conditional.")
        if not isinstance(context, Tensor) or context.dim() < 1 or context.shape[-1] != width:
            got = tuple(context.shape) if isinstance(context, Tensor) else type(context).__name__
            raise ArgumentError(f"'context' should have shape (..., {width}), got {got}.")
        self._check_kind("context", context)

    def _check_kind(self, name: str, value: Tensor) -> None:
        """Refuses a value of another type than the flow's, or on another device."""
        state = self._state()
        if value.dtype != state.dtype:
            raise ArgumentError(
                f"'{name}' should be of the flow's type {state.dtype}, got {value.dtype}: "
                f"convert it with {name}.to(flow.dtype), or the flow with flow.to({name}.dtype)."
            )
        if value.device != state.device:
            raise ArgumentError(
                f"'{name}' should be on the flow's device {state.device}, got {value.device}: "
                f"move it with {name}.to(flow.device)."
            )

    def _state(self) -> Tensor:
        for tensor in chain(self.parameters(), self.bijection.buffers(), self.buffers()):
            if tensor.is_floating_point():
                return tensor
        return torch.empty(0)

    def _chain(self) -> Chain:
        return self.bijection if isinstance(self.bijection, Chain) else Chain([self.bijection])

    def _leading(self) -> int:
        parts = list(self._chain())
        return next(
            (i for i, part in enumerate(parts) if not isinstance(part, Standardize)), len(parts)
        )
