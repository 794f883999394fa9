"""`Bijection`, the central abstraction: an invertible map with its log-determinant."""

import functools
import operator
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence, Sized
from typing import overload

import torch
from torch import Tensor, nn

from kappaflow._checks import one_of, positive_int
from kappaflow.autograd.checkpoint import MEMORY_MODES
from kappaflow.autograd.replay import Replay, owners_of, without_autocast
from kappaflow.autograd.reversible import run_steps
from kappaflow.autograd.segment import LayerCall, SegmentRecord
from kappaflow.autograd.trace import Map, Trace
from kappaflow.errors import ArgumentError
from kappaflow.linearization import (
    AutogradLinearization,
    ChainLinearization,
    InverseLinearization,
    Linearization,
)
from kappaflow.registry import register


class Bijection(nn.Module, ABC):
    r"""An invertible, differentiable map z = f(x; context), data to latent.

    `forward` goes from data to latent, as in
    :math:`p(x) = p_Z(f(x))\,|\det \partial f / \partial x|`. Both methods take (B, *event) and an
    optional context (B, C) with one row for each point. `kappaflow.testing.check_bijection`
    verifies the contract:

    1. `inverse(forward(x)[0])[0]` is x, and `forward(inverse(z)[0])[0]` is z.
    2. `log_det`, (B,), is log|det| of the Jacobian of the called map, in nats, in float32 or wider
       for any dtype of x. The log-determinants of the two directions add up to zero.
    3. Rows do not depend on each other. The value has the dtype and device of the input, and the
       shape that `latent_shape` or `data_shape` returns. This is the shape of the input, unless
       the map rearranges an image.
    4. A call changes no state, except for a data-dependent initialization that `repr` shows.
    5. `context_features` is the width of the context, 0 for none. It is an attribute of the class
       or of the object. A bijection that contains others takes the width from them.
    """

    context_features: int = 0
    #: Whether the map is affine, and the same at each place after the feature dimension.
    is_linear: bool = False
    #: Whether the map only changes units. Conditioning is measured after such first layers.
    is_standardization: bool = False

    def layer_name(self) -> str:
        """Returns the name of the map in lists of layers."""
        return type(self).__name__

    @abstractmethod
    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Returns (z, log|det dz/dx|)."""

    @abstractmethod
    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Returns (x, log|det dx/dz|)."""

    def latent_shape(self, event_shape: Sequence[int]) -> tuple[int, ...]:
        """Returns the shape of one z, for an x of this shape."""
        return tuple(event_shape)

    def data_shape(self, latent_shape: Sequence[int]) -> tuple[int, ...]:
        """Returns the shape of one x, for a z of this shape."""
        return tuple(latent_shape)

    def linearize(self, x: Tensor, context: Tensor | None = None) -> Linearization:
        """Returns the derivative at x as four products: J v, J^T u, J^-1 w, J^-T y.

        Args:
            x: Points, (B, *event).
            context: Context rows, (B, C), for a conditional bijection.

        Returns:
            The linearization. Its products take vectors (B, *event) or (K, B, *event), with the
            event shape of x for J and J^-T, and of z for J^T and J^-1.

        Example:
            >>> import torch, kappaflow as kf
            >>> double = kf.bijections.ElementwiseAffine(2, log_scale=[0.6931471805599453, 0.0])
            >>> double.linearize(torch.ones(1, 2)).jv(torch.tensor([[1.0, 1.0]])).detach()
            tensor([[2., 1.]])
        """
        return AutogradLinearization(self.forward, self.inverse, x, context)

    def trace_from_output(self, z: Tensor, context: Tensor | None = None) -> Trace:
        """Returns the trace at x = f^-1(z), for a backward pass that has stored only z.

        Args:
            z: The output, (B, *event), which is detached.
            context: Context rows, (B, C), for a conditional bijection.

        Returns:
            The trace, whose `x` is the inverse of z up to rounding.

        Example:
            >>> import torch, kappaflow as kf
            >>> double = kf.bijections.ElementwiseAffine(1, log_scale=[0.6931471805599453])
            >>> double.trace_from_output(torch.tensor([[4.0]])).x.detach()
            tensor([[2.]])
        """
        return _inverse_trace(self, self, self.inverse, z, context)


@register("Chain")
class Chain(Bijection):
    """Bijections applied one after the other; the first is nearest to the data.

    Args:
        bijections: The bijections in the order of `forward`. An empty chain is the identity.
        embedding: A network that is applied to the context first; None for none.
        context_features: With an embedding, the width of the context before it. Must be left out
            otherwise.
        memory: The memory mode of all parts, including nested chains; None leaves it to each part.
            "store" keeps everything for the backward pass. "recompute" keeps one state for every 4
            parts and runs these parts again. "invert" keeps one state for every 32 parts, and one
            number per row and part. It recovers inputs from outputs and checks them with these
            numbers. If the relative error is above 1e-4, a `NumericalWarning` names the part, and
            these 32 parts use "recompute" from then on, as the `repr` shows.

    Raises:
        ArgumentError: A part is not a bijection, `context_features` is missing or given without
            an embedding, or `memory` is not a mode.

    Note:
        Values and log_dets are bit-identical in all modes. Gradients with "recompute" are
        bit-identical to "store"; gradients with "invert" have the rounding errors of the inverse.
        `inverse` has the same modes, and "invert" runs each network three times there. Second
        derivatives, forward-mode AD and `torch.func` use plain autograd in all modes.

    Example:
        >>> import torch, kappaflow as kf
        >>> coupling = kf.AffineCoupling(
        ...     kf.Partition.half(4), kf.nets.MLP(2, 4, context_features=3), context_features=3
        ... )
        >>> embedding = torch.nn.Linear(10, 3)
        >>> kf.Chain([coupling], embedding=embedding, context_features=10).context_features
        10
    """

    def __init__(
        self,
        bijections: Iterable[Bijection],
        *,
        embedding: nn.Module | None = None,
        context_features: int | None = None,
        memory: str | None = None,
    ) -> None:
        super().__init__()
        parts = list(bijections)
        for part in parts:
            if not isinstance(part, Bijection):
                raise ArgumentError(
                    f"'bijections' should hold bijections, got {type(part).__name__}."
                )
        self.bijections = nn.ModuleList(parts)
        self.embedding = embedding
        self.context_features = self._width(context_features)
        self.memory = None if memory is None else one_of("memory", memory, MEMORY_MODES)
        self._record = SegmentRecord()

    def __len__(self) -> int:
        return len(self.bijections)

    def __iter__(self) -> Iterator[Bijection]:
        return iter(self.bijections)  # pyright: ignore[reportReturnType]

    @overload
    def __getitem__(self, part: int) -> Bijection: ...

    @overload
    def __getitem__(self, part: slice) -> "Chain": ...

    def __getitem__(self, part: int | slice) -> "Bijection | Chain":
        if not isinstance(part, slice):
            return layer_at(self, part)
        width = None if self.embedding is None else self.context_features
        return Chain(
            list(self)[part],
            embedding=self.embedding,
            context_features=width,
            memory=self.memory,
        )

    def embed(self, context: Tensor | None) -> Tensor | None:
        """Returns the context that the parts read."""
        if context is None or self.embedding is None:
            return context
        if self.training and torch.is_grad_enabled():
            return self.embedding(context)
        with without_autocast(context.device.type):  # as conditioners do
            return self.embedding(context)

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        context = self.embed(context)
        if self.memory is not None:
            steps, contexts = self._steps(context, inverse=False)
            return run_steps(self.memory, steps, contexts, x, zero_log_det(x), self._record)
        return compose(self, x, context)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        context = self.embed(context)
        if self.memory is not None:
            steps, contexts = self._steps(context, inverse=True)
            steps, contexts = steps[::-1], contexts[::-1]
            return run_steps(self.memory, steps, contexts, z, zero_log_det(z), self._record)
        return compose([part.inverse for part in reversed(list(self))], z, context)

    def latent_shape(self, event_shape: Sequence[int]) -> tuple[int, ...]:
        shape = tuple(event_shape)
        for part in self:
            shape = part.latent_shape(shape)
        return shape

    def data_shape(self, latent_shape: Sequence[int]) -> tuple[int, ...]:
        shape = tuple(latent_shape)
        for part in reversed(list(self)):
            shape = part.data_shape(shape)
        return shape

    def linearize(self, x: Tensor, context: Tensor | None = None) -> Linearization:
        context = self.embed(context)
        parts = linearize_parts(((part, context) for part in self), x)
        log_det = sum((part.log_det for part in parts), zero_log_det(x))
        return ChainLinearization(parts, parts[-1].value if parts else x, log_det)

    def _steps(
        self, context: Tensor | None, *, inverse: bool
    ) -> tuple[list[LayerCall], list[Tensor | None]]:
        """Returns the parts, nested chains expanded, with the contexts that they read."""
        steps, contexts = [], []
        for number, (part, own) in enumerate(self._opened(context), start=1):
            if inverse:
                trace_from_output = functools.partial(_inverse_trace, part, part.inverse, part)
                steps.append(
                    LayerCall(number, part, part.inverse, trace_from_output, inverse=True)
                )
            else:
                steps.append(LayerCall(number, part, part, part.trace_from_output))
            contexts.append(own)
        return steps, contexts

    def _opened(self, context: Tensor | None) -> Iterator[tuple[Bijection, Tensor | None]]:
        for part in self:
            hooks = part._forward_hooks or part._forward_pre_hooks
            if type(part) is Chain and not hooks:
                yield from part._opened(part.embed(context))
            else:
                yield part, context

    def extra_repr(self) -> str:
        return "" if self.memory is None else f"memory={self.memory!r}{self._record.as_text()}"

    def _width(self, width: int | None) -> int:
        """Returns the width of the context: before the embedding, or without one of the parts."""
        if self.embedding is None:
            if width is not None:
                raise ArgumentError(
                    f"'context_features' should be left out without an embedding, got {width!r}: "
                    "the bijections determine it."
                )
            return max((part.context_features for part in self), default=0)
        if width is None:
            raise ArgumentError(
                "'context_features' should be given with an embedding: it is the width of the "
                "context before it, as in Chain(..., embedding=net, context_features=3)."
            )
        return positive_int("context_features", width)


@register("Inverse")
class Inverse(Bijection):
    """A bijection with its two directions exchanged."""

    def __init__(self, bijection: Bijection) -> None:
        super().__init__()
        if not isinstance(bijection, Bijection):
            raise ArgumentError(
                f"'bijection' should be a Bijection, got {type(bijection).__name__}."
            )
        self.bijection = bijection
        self.context_features = bijection.context_features

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self.bijection.inverse(x, context)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self.bijection(z, context)

    def latent_shape(self, event_shape: Sequence[int]) -> tuple[int, ...]:
        return self.bijection.data_shape(event_shape)

    def data_shape(self, latent_shape: Sequence[int]) -> tuple[int, ...]:
        return self.bijection.latent_shape(latent_shape)

    def linearize(self, x: Tensor, context: Tensor | None = None) -> Linearization:
        value, log_det = self.forward(x, context)
        return InverseLinearization(self.bijection.linearize(value, context), value, log_det)


def _inverse_trace(
    bijection: Bijection, forward: Map, inverse: Map, z: Tensor, context: Tensor | None
) -> Trace:
    """Returns the trace of `forward` at x = inverse(z), with the same random numbers in both."""
    with torch.no_grad(), Replay(owners_of(bijection), z):
        x = inverse(z, context)[0]
    return Trace(forward, x, context)


def layer_at(layers: Iterable[Bijection], index: int) -> Bijection:
    """Returns a layer of a chain or a stack; the error names those that contain others."""
    parts, number = list(layers), operator.index(index)
    if -len(parts) <= number < len(parts):
        return parts[number]
    nested = "".join(
        f" Part {i} is a {type(part).__name__} of {len(part)} parts, reached by [{i}][...]."
        for i, part in enumerate(parts)
        if isinstance(part, Sized)
    )
    raise IndexError(
        f"'index' should be between {-len(parts)} and {len(parts) - 1}, got {number}: this "
        f"{type(layers).__name__} has {len(parts)} parts.{nested}"
    )


def compose(
    maps: Iterable[Map], x: Tensor, context: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Returns the value of maps applied in order, and the sum of their log_dets."""
    log_det = zero_log_det(x)
    for function in maps:
        x, part = function(x, context)
        log_det = log_det + part
    return x, log_det


def linearize_parts(
    parts: Iterable[tuple[Bijection, Tensor | None]], x: Tensor
) -> list[Linearization]:
    """Returns linearizations of bijections in order, each with its context, starting at x."""
    linearizations: list[Linearization] = []
    for bijection, context in parts:
        linearizations.append(bijection.linearize(x, context))
        x = linearizations[-1].value
    return linearizations


def zero_log_det(x: Tensor) -> Tensor:
    """Returns zeros, (B,), in the dtype of log-determinants."""
    return torch.zeros(x.shape[0], dtype=log_det_dtype(x.dtype), device=x.device)


def at_each_place(log_det: Tensor, x: Tensor) -> Tensor:
    """Returns the log_det, (B,), of a map with a log_det at each pixel of x, (B, C, *places)."""
    return (log_det * x.shape[2:].numel()).expand(x.shape[0])


def log_det_dtype(dtype: torch.dtype) -> torch.dtype:
    """Returns the dtype of log-determinants: float32 or wider."""
    return torch.promote_types(dtype, torch.float32)
