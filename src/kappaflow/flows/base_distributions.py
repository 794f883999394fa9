"""Base distributions besides the standard normal: normals, Student's t and a uniform box."""

import math
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from scipy.special import stdtr
from torch import Tensor, nn

from kappaflow._checks import finite_float, positive_int, real_numbers
from kappaflow.autograd.replay import without_autocast
from kappaflow.bijection import log_det_dtype
from kappaflow.errors import ArgumentError
from kappaflow.flows.base import EventBase, normal_cdf
from kappaflow.registry import register


class _Normal(EventBase):
    """Independent normals with means and log-deviations that depend on the context."""

    loc: nn.Parameter
    log_scale: nn.Parameter

    @abstractmethod
    def moments(self, context: Tensor | None, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Returns means and log-deviations, (*event) or (B, *event), in a dtype."""

    def log_prob(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        """Returns log p(z | context) in nats, (B,), for z (B, *event); in float32 or wider."""
        dtype = log_det_dtype(z.dtype)
        loc, log_scale = self.moments(context, dtype)
        standardized = (z.to(dtype) - loc) * (-log_scale).exp()
        terms = -0.5 * standardized.square() - log_scale - 0.5 * math.log(2 * math.pi)
        return terms.flatten(1).sum(1)

    def cdf(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        dtype = log_det_dtype(z.dtype)
        loc, log_scale = self.moments(context, dtype)
        return normal_cdf((z.to(dtype) - loc) * (-log_scale).exp())

    def draw(
        self, n: int, context: Tensor | None, dtype: torch.dtype, source: dict[str, Any]
    ) -> Tensor:
        noise = torch.randn((n, *self.event_shape), dtype=log_det_dtype(dtype), **source)
        loc, log_scale = self.moments(context, noise.dtype)
        return loc + log_scale.exp() * noise.to(loc.device)

    def tempered(self, z: Tensor, temperature: float, context: Tensor | None = None) -> Tensor:
        """Returns samples z, (n, *event), moved towards or away from their means."""
        loc = self.moments(context, z.dtype)[0]
        return loc + temperature * (z - loc)


@register("DiagonalNormal")
class DiagonalNormal(_Normal):
    """Independent normals with a learned mean and deviation in each coordinate of an event.

    A new one is the standard normal.

    Args:
        event_shape: Shape of one event; a number n is (n,).

    Attributes:
        loc: Means, (*event).
        log_scale: Logarithms of the deviations, (*event).

    Raises:
        ArgumentError: A size is not a whole number of at least 1.

    Example:
        >>> base = DiagonalNormal(2)
        >>> round(base.log_prob(torch.zeros(1, 2)).item(), 4)
        -1.8379
    """

    def __init__(self, event_shape: int | Sequence[int]) -> None:
        super().__init__(event_shape)
        self.loc = nn.Parameter(torch.zeros(self.event_shape))
        self.log_scale = nn.Parameter(torch.zeros(self.event_shape))

    def moments(self, context: Tensor | None, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        return self.loc.to(dtype), self.log_scale.to(dtype)


@register("ClassConditionalNormal")
class ClassConditionalNormal(_Normal):
    """One diagonal normal for each class; the context is the class, one-hot.

    Each class starts as the standard normal. A context that mixes classes, such as (0.5, 0.5),
    mixes their means and log-deviations.

    Args:
        event_shape: Shape of one event; a number n is (n,).
        classes: Number of classes K, which is the width of the context.

    Attributes:
        loc: Means of each class, (K, *event).
        log_scale: Logarithms of the deviations, (K, *event).

    Raises:
        ArgumentError: A size is not a whole number of at least 1. In a call: the context is
            missing or has another width.

    Source:
        Izmailov, Kirichenko, Finzi, Wilson 2020, Semi-supervised learning with normalizing flows,
        who fix the means.

    Example:
        >>> import kappaflow as kf
        >>> base = ClassConditionalNormal(2, classes=3)
        >>> flow = kf.Flow(base, kf.real_nvp(2, depth=2, hidden=(8,)).bijection)
        >>> flow.sample(5, torch.eye(3)).shape
        torch.Size([5, 3, 2])
    """

    def __init__(self, event_shape: int | Sequence[int], *, classes: int) -> None:
        super().__init__(event_shape)
        self.context_features = positive_int("classes", classes)
        self.loc = nn.Parameter(torch.zeros(classes, *self.event_shape))
        self.log_scale = nn.Parameter(torch.zeros(classes, *self.event_shape))

    def moments(self, context: Tensor | None, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        if context is None or context.shape[1:] != (self.context_features,):
            got = "none" if context is None else tuple(context.shape)
            raise ArgumentError(
                f"'context' should be one-hot classes of shape (B, {self.context_features}), "
                f"got {got}."
            )
        with without_autocast(context.device.type):
            return self._of_rows(self.loc, context, dtype), self._of_rows(
                self.log_scale, context, dtype
            )

    def _of_rows(self, values: Tensor, context: Tensor, dtype: torch.dtype) -> Tensor:
        """Returns the values of the class of each row, (B, *event)."""
        return (context.to(dtype) @ values.to(dtype).flatten(1)).unflatten(1, self.event_shape)

    def extra_repr(self) -> str:
        return f"event_shape={self.event_shape}, classes={self.context_features}"


@register("StudentT")
class StudentT(EventBase):
    """Independent Student t with learned degrees of freedom in each coordinate, for heavy tails.

    A flow whose layers have bounded slopes keeps the tails of its base, so a normal base cannot
    fit data with heavier tails. With many degrees of freedom the distribution is about the
    standard normal.

    Args:
        event_shape: Shape of one event; a number n is (n,).
        degrees: Initial degrees of freedom of each coordinate, above 1: the mean exists.

    Attributes:
        log_excess: Logarithms of the degrees of freedom minus 1, (*event).

    Raises:
        ArgumentError: A size is not a whole number of at least 1, or `degrees` is not above 1.

    Source:
        Jaini, Kobyzev, Yu, Brubaker 2020, Tails of Lipschitz triangular flows. Samples: Bailey
        1994, Polar generation of random variates with the t-distribution.

    Example:
        >>> base = StudentT(2, degrees=3.0)
        >>> round(base.log_prob(torch.zeros(1, 2)).item(), 4)
        -2.0018
    """

    def __init__(self, event_shape: int | Sequence[int], *, degrees: float = 10.0) -> None:
        super().__init__(event_shape)
        if finite_float("degrees", degrees) <= 1:
            raise ArgumentError(f"'degrees' should be above 1, got {degrees}.")
        self.log_excess = nn.Parameter(torch.full(self.event_shape, math.log(degrees - 1)))

    @property
    def degrees(self) -> Tensor:
        """Degrees of freedom, (*event), in float64."""
        return 1 + self.log_excess.double().exp()  # differences of lgamma cancel in float32

    def log_prob(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        """Returns log p(z) in nats, (B,), for z (B, *event); in float32 or wider."""
        dtype, degrees = log_det_dtype(z.dtype), self.degrees
        log_constant = (
            torch.lgamma((degrees + 1) / 2)
            - torch.lgamma(degrees / 2)
            - 0.5 * (math.pi * degrees).log()
        )
        squares = (z.to(dtype) * degrees.rsqrt().to(dtype)).square()
        terms = log_constant.to(dtype) - ((degrees + 1) / 2).to(dtype) * squares.log1p()
        return terms.flatten(1).sum(1)

    def cdf(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        """Returns P(Z <= z) of each coordinate, (B, *event), in float64, without gradients."""
        numbers = (part.detach().double().cpu().numpy() for part in (self.degrees, z))
        return torch.as_tensor(stdtr(*numbers), device=z.device)

    def draw(
        self, n: int, context: Tensor | None, dtype: torch.dtype, source: dict[str, Any]
    ) -> Tensor:
        uniform = torch.rand((2, n, *self.event_shape), dtype=torch.float64, **source)
        radius, angle = uniform.to(self.log_excess.device)
        degrees = self.degrees
        squares = degrees * torch.expm1(-2 / degrees * torch.log1p(-radius))
        return squares.sqrt() * torch.cos(2 * math.pi * angle)


@register("UniformBox")
class UniformBox(EventBase):
    """The uniform distribution on a box; log_prob is -inf outside.

    Its flow needs a bijection from the support of the data onto the box, such as splines of the
    same `bound` without a `Standardize` before them.

    Args:
        event_shape: Shape of one event; a number n is (n,).
        low: Lower end of each coordinate: a number, or numbers of the event shape.
        high: Upper end of each coordinate, above `low`.

    Raises:
        ArgumentError: An end is not finite, does not fit the event shape, or `high` is not above
            `low`.

    Example:
        >>> UniformBox(2, low=0.0, high=2.0).log_prob(torch.tensor([[1.0, 1.0], [1.0, 3.0]]))
        tensor([-1.3863,    -inf])
    """

    low: Tensor
    high: Tensor

    def __init__(
        self, event_shape: int | Sequence[int], *, low: Any = -1.0, high: Any = 1.0
    ) -> None:
        super().__init__(event_shape)
        for name, value in (("low", low), ("high", high)):
            numbers = real_numbers(name, value)
            if numbers.shape not in ((), self.event_shape):
                raise ArgumentError(
                    f"'{name}' should be a number, or numbers of shape {self.event_shape}, got "
                    f"shape {tuple(numbers.shape)}."
                )
            self.register_buffer(name, numbers * torch.ones(self.event_shape))
        if not (self.low < self.high).all():
            raise ArgumentError("'high' should be above 'low' in each coordinate.")

    def log_prob(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        """Returns log p(z) in nats, (B,), for z (B, *event); in float32 or wider."""
        dtype = log_det_dtype(z.dtype)
        inside = ((z >= self.low) & (z <= self.high)).flatten(1).all(1)
        log_volume = (self.high.to(dtype) - self.low.to(dtype)).log().sum()
        return torch.where(inside, -log_volume, -torch.inf)

    def cdf(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        dtype = log_det_dtype(z.dtype)
        low, high = self.low.to(dtype), self.high.to(dtype)
        return ((z.to(dtype) - low) / (high - low)).clamp(0.0, 1.0)

    def draw(
        self, n: int, context: Tensor | None, dtype: torch.dtype, source: dict[str, Any]
    ) -> Tensor:
        uniform = torch.rand((n, *self.event_shape), dtype=log_det_dtype(dtype), **source)
        uniform = uniform.to(self.low.device)
        low, high = self.low.to(uniform.dtype), self.high.to(uniform.dtype)
        z = torch.lerp(low, high, uniform).to(dtype)
        return torch.minimum(torch.maximum(z, self.low.to(dtype)), self.high.to(dtype))

    def tempered(self, z: Tensor, temperature: float, context: Tensor | None = None) -> Tensor:
        """Returns samples z, (n, *event), moved towards or away from the center of the box."""
        center = (0.5 * (self.low + self.high)).to(z.dtype)
        return center + temperature * (z - center)
