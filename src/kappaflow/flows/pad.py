"""Padding: more features beside those of a point, drawn without looking at it."""

import math
from abc import abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

from kappaflow._checks import feature_batch, positive_float, positive_int
from kappaflow.bijection import zero_log_det
from kappaflow.errors import ArgumentError
from kappaflow.flows.augment import Augmentation, Shape, uniform_like
from kappaflow.flows.base import StandardNormal
from kappaflow.registry import register


class Padding(Augmentation):
    """More features (dimension 1) behind those of x: the flow takes y = (x, e).

    A flow in n + m dimensions has room that one in n has not. It is one of x and e together, and
    `Flow.log_prob` a bound on log p(x): exact only where the flow leaves e as it was drawn. The
    units of e are those of standardised data, whatever the units of x.

    Args:
        features: How many are added, m: channels, of images.
    """

    def __init__(self, features: int) -> None:
        super().__init__()
        self.features = positive_int("features", features)

    @property
    @abstractmethod
    def in_words(self) -> str:
        """What the features hold, for a sentence."""

    def join(self, x: Tensor, e: Tensor) -> Tensor:
        return torch.cat((x, e), 1)

    def drop(self, joined: Tensor) -> tuple[Tensor, Tensor]:
        own = joined.shape[1] - self.features
        return joined[:, :own], joined[:, own:]

    def event_shape(self, joint_shape: Sequence[int]) -> Shape:
        first, *places = joint_shape
        if first <= self.features:
            raise ArgumentError(
                f"'augment' should add fewer features than the bijection takes, {first}, "
                f"got {self.features}."
            )
        return (first - self.features, *places)

    def normal_draw(self, x: Tensor, generator: torch.Generator | None) -> Tensor:
        """Returns N(0, 1) in the shape of e, for points x."""
        normal = StandardNormal((self.features, *x.shape[2:]))
        return normal.sample(len(x), dtype=x.dtype, device=x.device, generator=generator)

    def _checked(self, e: Tensor) -> Tensor:
        return feature_batch("e", e, self.features)

    def extra_repr(self) -> str:
        return f"features={self.features}"


@register("Pad")
class Pad(Padding):
    r"""Gaussian padding: q(e) = N(0, scale^2 I).

    Args:
        features: How many are added: channels, of images.
        scale: Their standard deviation.

    Source:
        Koehler, Mehta, Risteski 2021; Huang, Dinh, Courville 2020, Augmented normalizing flows.

    Example:
        >>> padded = Pad(2)
        >>> x = torch.zeros(3, 1)
        >>> padded.join(x, padded.draw(x)[0]).shape
        torch.Size([3, 3])
    """

    def __init__(self, features: int, *, scale: float = 1.0) -> None:
        super().__init__(features)
        self.scale = positive_float("scale", scale)

    @property
    def in_words(self) -> str:
        return f"drawn from N(0, {self.scale:g}²)" if self.scale != 1 else "drawn from N(0, 1)"

    def draw(
        self, x: Tensor, *, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        e = self.scale * self.normal_draw(x, generator)
        return e, self.log_prob(e, x)

    def log_prob(self, e: Tensor, x: Tensor) -> Tensor:
        return log_normal(self._checked(e) / self.scale, math.log(self.scale))

    def extra_repr(self) -> str:
        return f"features={self.features}, scale={self.scale:g}"


@register("UniformPad")
class UniformPad(Padding):
    r"""Uniform padding: e is uniform on [-scale, scale] in each coordinate.

    Args:
        features: How many are added: channels, of images.
        scale: Half the width of the interval.

    Note:
        A flow that puts some mass outside the interval loses it: importance weights with draws
        from the interval alone come to the log of what lies inside, and stay below log p(x).

    Source:
        Ours.

    Example:
        >>> e, log_q = UniformPad(2, scale=0.5).draw(torch.zeros(3, 1))
        >>> bool((e.abs() <= 0.5).all()), log_q
        (True, tensor([0., 0., 0.]))
    """

    def __init__(self, features: int, *, scale: float = 1.0) -> None:
        super().__init__(features)
        self.scale = positive_float("scale", scale)

    @property
    def in_words(self) -> str:
        return f"uniform on [-{self.scale:g}, {self.scale:g}]"

    def draw(
        self, x: Tensor, *, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        unit = uniform_like(x.new_empty(len(x), self.features, *x.shape[2:]), generator)
        e = self.scale * (2 * unit - 1)
        return e, self.log_prob(e, x)

    def log_prob(self, e: Tensor, x: Tensor) -> Tensor:
        inside = (self._checked(e).abs() <= self.scale).flatten(1).all(1)
        log_q = zero_log_det(e) - math.prod(e.shape[1:]) * math.log(2 * self.scale)
        return log_q.masked_fill(~inside, -math.inf)

    def extra_repr(self) -> str:
        return f"features={self.features}, scale={self.scale:g}"


@register("ZeroPad")
class ZeroPad(Padding):
    """Padding with zeros, which has no density: `Flow.log_prob` is then no likelihood of x.

    It is the joint density log p(x, 0), which a flow can raise without bound by squeezing the
    padding. Compare samples and conditioning of such a flow with those of others, never this
    number.

    Args:
        features: How many are added: channels, of images.

    Source:
        Koehler, Mehta, Risteski 2021, who found such flows badly conditioned.

    Example:
        >>> padded = ZeroPad(1)
        >>> padded.join(torch.ones(1, 2), padded.draw(torch.ones(1, 2))[0])
        tensor([[1., 1., 0.]])
    """

    has_density = False

    @property
    def in_words(self) -> str:
        return "all zero"

    def draw(
        self, x: Tensor, *, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        return x.new_zeros(len(x), self.features, *x.shape[2:]), zero_log_det(x)

    def log_prob(self, e: Tensor, x: Tensor) -> Tensor:
        return log_of_a_point(self._checked(e), torch.zeros_like(e))


def log_normal(standard: Tensor, log_scale: float | Tensor) -> Tensor:
    """Returns the log-density (B,) of e = mean + scale * standard, from the log of the scale."""
    log_q = StandardNormal(tuple(standard.shape[1:])).log_prob(standard)
    if isinstance(log_scale, Tensor):
        return log_q - log_scale.to(log_q.dtype).flatten(1).sum(1)
    return log_q - math.prod(standard.shape[1:]) * log_scale


def log_of_a_point(e: Tensor, wanted: Tensor) -> Tensor:
    """Returns 0 where e is what it can only be, and -inf elsewhere, (B,)."""
    there = (e == wanted).flatten(1).all(1)
    return zero_log_det(e).masked_fill(~there, -math.inf)
