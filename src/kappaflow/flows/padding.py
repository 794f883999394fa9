"""Padding: extra features that are joined to a point."""

import math
from abc import abstractmethod
from collections.abc import Sequence
from typing import get_args

import torch
from torch import Tensor, nn

from kappaflow._checks import (
    feature_batch,
    finite_float,
    natural_int,
    one_of,
    positive_float,
    positive_int,
)
from kappaflow.bijection import zero_log_det
from kappaflow.bijections import Standardize
from kappaflow.errors import ArgumentError
from kappaflow.flows.augmentation import Augmentation, Shape, uniform_like
from kappaflow.flows.base import StandardNormal
from kappaflow.nets import MLP, ConvNet
from kappaflow.options import PaddingKind
from kappaflow.registry import register


class Padding(Augmentation):
    """Base class of padding, which appends features e to x (dimension 1): y = (x, e).

    A flow in n + m dimensions is more flexible than one in n. It models x and e together, so
    `Flow.log_prob` is a bound on log p(x), which is exact only if the flow does not change e. The
    padding has the scale of standardized data, whatever the units of x.

    Args:
        features: Number m of features to add; channels for images.
    """

    def __init__(self, features: int) -> None:
        super().__init__()
        self.features = positive_int("features", features)

    @property
    @abstractmethod
    def description(self) -> str:
        """Description of the added features, as part of a sentence."""

    def draw(
        self, x: Tensor, *, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        e = self.samples(x, generator)
        return e, self.log_prob(e, x)

    def samples(self, x: Tensor, generator: torch.Generator | None) -> Tensor:
        """Returns e for each x; a class may define `draw` instead."""
        raise NotImplementedError

    def join(self, x: Tensor, e: Tensor) -> Tensor:
        return torch.cat((x, e), 1)

    def drop(self, joined: Tensor) -> tuple[Tensor, Tensor]:
        own = joined.shape[1] - self.features
        return joined[:, :own], joined[:, own:]

    def event_shape(self, joint_shape: Sequence[int]) -> Shape:
        first, *sides = joint_shape
        if first <= self.features:
            raise ArgumentError(
                f"'augment' should add fewer features than the {first} that the bijection takes, "
                f"got {self.features}."
            )
        return (first - self.features, *sides)

    def normal_draw(self, x: Tensor, generator: torch.Generator | None) -> Tensor:
        """Returns samples of N(0, 1) with the shape of e for points x."""
        normal = StandardNormal((self.features, *x.shape[2:]))
        return normal.sample(len(x), dtype=x.dtype, device=x.device, generator=generator)

    def _checked(self, e: Tensor) -> Tensor:
        return feature_batch("e", e, self.features)

    def extra_repr(self) -> str:
        shown = [name for name in ("inputs", "features", "scale") if hasattr(self, name)]
        return ", ".join(f"{name}={getattr(self, name):g}" for name in shown)


@register("Pad")
class Pad(Padding):
    r"""Gaussian padding: q(e) = N(0, scale^2 I).

    Args:
        features: Number of features to add; channels for images.
        scale: Standard deviation of the padding.

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
    def description(self) -> str:
        return f"drawn from N(0, {self.scale:g}²)" if self.scale != 1 else "drawn from N(0, 1)"

    def samples(self, x: Tensor, generator: torch.Generator | None) -> Tensor:
        return self.scale * self.normal_draw(x, generator)

    def log_prob(self, e: Tensor, x: Tensor) -> Tensor:
        return log_normal(self._checked(e) / self.scale, math.log(self.scale))


@register("UniformPad")
class UniformPad(Padding):
    r"""Uniform padding: e is uniform on [-scale, scale] in each coordinate.

    Args:
        features: Number of features to add; channels for images.
        scale: Half the width of the interval.

    Note:
        Mass that the flow puts outside the interval is lost. Importance weighting samples only
        the interval, so it estimates the log of the mass inside, which is below log p(x).

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
    def description(self) -> str:
        return f"uniform on [-{self.scale:g}, {self.scale:g}]"

    def samples(self, x: Tensor, generator: torch.Generator | None) -> Tensor:
        unit = uniform_like(x.new_empty(len(x), self.features, *x.shape[2:]), generator)
        return self.scale * (2 * unit - 1)

    def log_prob(self, e: Tensor, x: Tensor) -> Tensor:
        inside = (self._checked(e).abs() <= self.scale).flatten(1).all(1)
        log_q = zero_log_det(e) - math.prod(e.shape[1:]) * math.log(2 * self.scale)
        return log_q.masked_fill(~inside, -math.inf)


@register("ZeroPad")
class ZeroPad(Padding):
    """Padding with zeros, which has no density, so `Flow.log_prob` is not a likelihood of x.

    It is the joint log-density log p(x, 0), which a flow can raise without limit by squeezing the
    padding. Compare such a flow with others by its samples and its conditioning, never by its
    log_prob.

    Args:
        features: Number of features to add; channels for images.

    Source:
        Koehler, Mehta, Risteski 2021, who found such flows badly conditioned.

    Example:
        >>> padded = ZeroPad(1)
        >>> padded.join(torch.ones(1, 2), padded.draw(torch.ones(1, 2))[0])
        tensor([[1., 1., 0.]])
    """

    has_density = False

    @property
    def description(self) -> str:
        return "all zero"

    def samples(self, x: Tensor, generator: torch.Generator | None) -> Tensor:
        return x.new_zeros(len(x), self.features, *x.shape[2:])

    def log_prob(self, e: Tensor, x: Tensor) -> Tensor:
        return log_of_a_point(self._checked(e), torch.zeros_like(e))


def log_normal(standard: Tensor, log_scale: float | Tensor) -> Tensor:
    """Returns the log-density, (B,), of e = mean + scale * standard, from the log of the scale."""
    log_q = StandardNormal(tuple(standard.shape[1:])).log_prob(standard)
    if isinstance(log_scale, Tensor):
        return log_q - log_scale.to(log_q.dtype).flatten(1).sum(1)
    return log_q - math.prod(standard.shape[1:]) * log_scale


def log_of_a_point(e: Tensor, expected: Tensor) -> Tensor:
    """Returns 0 for rows in which e equals its only possible value and -inf for others, (B,)."""
    equal = (e == expected).flatten(1).all(1)
    return zero_log_det(e).masked_fill(~equal, -math.inf)


HIDDEN = (64, 64)  # default hidden layers of the network of `LearnedPad`
LARGEST_LOG_SCALE = 5.0  # bound on the absolute log sigma of `LearnedPad`


class PaddingGiven(Padding):
    """Base class of padding that depends on x, which it standardizes first."""

    def __init__(self, inputs: int, features: int) -> None:
        super().__init__(features)
        self.inputs = positive_int("inputs", inputs)
        self.standardization = Standardize(inputs)

    def fit(self, x: Tensor, weights: Tensor | None = None) -> None:
        if not self.standardization.fitted:
            self.standardization.fit(x, weights)

    def standardized(self, x: Tensor) -> Tensor:
        """Returns x standardized with the mean and deviation of the training rows."""
        return self.standardization(feature_batch("x", x, self.inputs))[0]

    def event_shape(self, joint_shape: Sequence[int]) -> Shape:
        shape = super().event_shape(joint_shape)
        if shape[0] != self.inputs:
            raise ArgumentError(
                f"'augment' should read all {shape[0]} features except the padding, got 'inputs' "
                f"{self.inputs}."
            )
        return shape


@register("CopyPad")
class CopyPad(PaddingGiven):
    r"""Padding with noisy copies of the features of x: e = x + N(0, scale^2 I).

    With a scale of 0 the padding has no density, as for `ZeroPad`.

    Args:
        inputs: Number of features of x; channels for images.
        features: Number of features to add. The first one copies the first feature of x, and so
            on; after the last feature of x the copies start again at the first.
        scale: Standard deviation of the noise, in standard deviations of the features.

    Raises:
        ArgumentError: The scale is below 0.

    Source:
        Ours.

    Example:
        >>> padded = CopyPad(2, 3, scale=0.0)
        >>> padded.draw(torch.tensor([[1.0, 2.0]]))[0]
        tensor([[1., 2., 1.]])
    """

    def __init__(self, inputs: int, features: int, *, scale: float = 0.1) -> None:
        super().__init__(inputs, features)
        self.scale = finite_float("scale", scale)
        if scale < 0:
            raise ArgumentError(f"'scale' should be 0 or more, got {scale}.")
        self.has_density = self.scale > 0

    @property
    def description(self) -> str:
        noise = f" with noise from N(0, {self.scale:g}²)" if self.has_density else ""
        return f"copies of the data{noise}"

    def samples(self, x: Tensor, generator: torch.Generator | None) -> Tensor:
        copies = self._copies(x)
        if not self.has_density:
            return copies
        return copies + self.scale * self.normal_draw(x, generator)

    def log_prob(self, e: Tensor, x: Tensor) -> Tensor:
        copies = self._copies(x)
        if not self.has_density:
            return log_of_a_point(self._checked(e), copies)
        return log_normal((self._checked(e) - copies) / self.scale, math.log(self.scale))

    def _copies(self, x: Tensor) -> Tensor:
        turns = -(-self.features // self.inputs)
        return torch.cat([self.standardized(x)] * turns, 1)[:, : self.features]


@register("LearnedPad")
class LearnedPad(PaddingGiven):
    r"""Learned padding: q(e | x) = N(mu(x), diag sigma(x)^2), trained with the flow.

    It starts at N(0, I). As in a variational autoencoder, the training bound is tight if q(e | x)
    equals p(e | x) of the flow.

    Args:
        inputs: Number of features of x; channels for images.
        features: Number of features to add.
        network: A network from standardized x to mu and log sigma, which are 2 * features numbers,
            or as many channels for images. By default an `MLP` with two hidden layers of 64 units.

    Raises:
        ArgumentError: The output of the network has a wrong shape.

    Note:
        log sigma is bounded as 5 tanh(r / 5), so that no feature collapses to a point.

    Source:
        Huang, Dinh, Courville 2020, Augmented normalizing flows.

    Example:
        >>> e, log_q = LearnedPad(2, 3).draw(torch.zeros(4, 2))
        >>> e.shape, log_q.shape
        (torch.Size([4, 3]), torch.Size([4]))
    """

    def __init__(self, inputs: int, features: int, network: nn.Module | None = None) -> None:
        super().__init__(inputs, features)
        if not isinstance(network, nn.Module | None):
            raise ArgumentError(
                f"'network' should be a torch module, got {type(network).__name__}."
            )
        self.network = MLP(inputs, 2 * features, HIDDEN) if network is None else network

    @property
    def description(self) -> str:
        return "drawn from a learned N(mu(x), sigma(x)²)"

    def draw(
        self, x: Tensor, *, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        mean, log_scale = self._moments(x)
        normal = self.normal_draw(x, generator)
        return mean + log_scale.exp() * normal, log_normal(normal, log_scale)

    def log_prob(self, e: Tensor, x: Tensor) -> Tensor:
        mean, log_scale = self._moments(x)
        return log_normal((self._checked(e) - mean) * (-log_scale).exp(), log_scale)

    def _moments(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Returns mu and log sigma, each with the shape of e."""
        output = self.network(self.standardized(x))
        expected = (len(x), 2 * self.features, *x.shape[2:])
        if output.shape != expected:
            raise ArgumentError(
                f"'network' should return shape {expected}, mu and log sigma of "
                f"{self.features} features, got {tuple(output.shape)}."
            )
        mean, raw = output.to(x.dtype).chunk(2, 1)
        return mean, LARGEST_LOG_SCALE * torch.tanh(raw / LARGEST_LOG_SCALE)


KINDS: tuple[PaddingKind, ...] = get_args(PaddingKind)
IMAGE_HIDDEN = 32  # hidden channels of the network that draws learned padding of images


def checked_padding(padding: object) -> Padding | None:
    """Returns the padding for a `padding` argument; None and 0 give none, a number Gaussian."""
    if padding is None or isinstance(padding, Padding):
        return padding
    features = natural_int("padding", padding, "or a Padding, such as kappaflow.flows.ZeroPad(2).")
    return Pad(features) if features else None


def padding_features(padding: Padding | None) -> int:
    """Returns the number of features that a padding adds."""
    return 0 if padding is None else padding.features


def padding_of_kind(
    kind: str, features: int, event_shape: Sequence[int], *, scale: float | None = None
) -> Padding:
    """Returns a padding of a kind for points of a shape, (D,) or (C, H, W).

    The kinds are "gaussian", "uniform", "zero", "copy" and "learned"; the first, the second and
    the fourth have a scale.

    Raises:
        ArgumentError: The kind is unknown, or a number is out of range or unexpected.

    Example:
        >>> padding_of_kind("uniform", 2, (3,), scale=0.5)
        UniformPad(features=2, scale=0.5)
    """
    one_of("padding_kind", kind, KINDS)
    inputs, *sides = event_shape
    if kind in ("zero", "learned"):
        if scale is not None:
            raise ArgumentError(
                f"'padding_scale' should be left out for {kind} padding, got {scale}."
            )
        network = ConvNet(inputs, 2 * features, IMAGE_HIDDEN) if sides else None
        return ZeroPad(features) if kind == "zero" else LearnedPad(inputs, features, network)
    options = {} if scale is None else {"scale": scale}
    if kind == "copy":
        return CopyPad(inputs, features, **options)
    return (Pad if kind == "gaussian" else UniformPad)(features, **options)


def padding_in(augment: Augmentation | None) -> Padding | None:
    """Returns the padding in the augmentation of a flow, or None."""
    part = getattr(augment, "padding", augment)
    return part if isinstance(part, Padding) else None
