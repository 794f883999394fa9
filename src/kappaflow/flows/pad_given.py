"""Padding that looks at the point it stands beside: copies of it, or what a network says of it."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from kappaflow._checks import feature_batch, finite_float, positive_int
from kappaflow.bijections import Standardize
from kappaflow.errors import ArgumentError
from kappaflow.flows.augment import Shape
from kappaflow.flows.pad import Padding, log_normal, log_of_a_point
from kappaflow.nets import MLP
from kappaflow.registry import register

HIDDEN = (64, 64)
LARGEST_LOG_SCALE = 5.0


class PaddingGiven(Padding):
    """Padding whose density depends on x, which it reads in standardised units.

    Args:
        inputs: Features of x: channels, of images.
        features: How many are added.
    """

    def __init__(self, inputs: int, features: int) -> None:
        super().__init__(features)
        self.inputs = positive_int("inputs", inputs)
        self.units = Standardize(inputs)

    def fit(self, x: Tensor, weights: Tensor | None = None) -> None:
        if not self.units.fitted:
            self.units.fit(x, weights)

    def standardised(self, x: Tensor) -> Tensor:
        """Returns x in the units of its training points."""
        return self.units(feature_batch("x", x, self.inputs))[0]

    def event_shape(self, joint_shape: Sequence[int]) -> Shape:
        found = super().event_shape(joint_shape)
        if found[0] != self.inputs:
            raise ArgumentError(
                f"'augment' should read as many features as there are beside the padding, "
                f"{found[0]}, got 'inputs' {self.inputs}."
            )
        return found


@register("CopyPad")
class CopyPad(PaddingGiven):
    r"""Padding with the features of x again, in turn, and noise: e = x + N(0, scale^2 I).

    With a scale of 0 there is no density, as with `ZeroPad`.

    Args:
        inputs: Features of x: channels, of images.
        features: How many are added; the first one is a copy of the first one of x, and so on.
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
    def in_words(self) -> str:
        noise = f" with noise from N(0, {self.scale:g}²)" if self.has_density else ""
        return f"copies of the data{noise}"

    def draw(
        self, x: Tensor, *, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        e = self._copies(x)
        if self.has_density:
            e = e + self.scale * self.normal_draw(x, generator)
        return e, self.log_prob(e, x)

    def log_prob(self, e: Tensor, x: Tensor) -> Tensor:
        copies = self._copies(x)
        if not self.has_density:
            return log_of_a_point(self._checked(e), copies)
        return log_normal((self._checked(e) - copies) / self.scale, math.log(self.scale))

    def _copies(self, x: Tensor) -> Tensor:
        turns = -(-self.features // self.inputs)
        return torch.cat([self.standardised(x)] * turns, 1)[:, : self.features]

    def extra_repr(self) -> str:
        return f"inputs={self.inputs}, features={self.features}, scale={self.scale:g}"


@register("LearnedPad")
class LearnedPad(PaddingGiven):
    r"""Learned padding: q(e | x) = N(mu(x), diag sigma(x)^2), which is trained with the flow.

    It starts at N(0, I). The bound that is trained is tight where q(e | x) is the flow's own
    p(e | x), as in a variational autoencoder.

    Args:
        inputs: Features of x: channels, of images.
        features: How many are added.
        network: From standardised x to 2 * features numbers, mu and log sigma, at each place of
            an image; an `MLP` of 64 and 64 units if left out.

    Raises:
        ArgumentError: The network is none, or its answer has another shape.

    Note:
        log sigma is bounded by 5 tanh(. / 5), so that no feature collapses to a point.

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
    def in_words(self) -> str:
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
        """Returns mu and log sigma, each in the shape of e."""
        said = self.network(self.standardised(x))
        wanted = (len(x), 2 * self.features, *x.shape[2:])
        if said.shape != wanted:
            raise ArgumentError(
                f"'network' should answer with shape {wanted}, mu and log sigma of "
                f"{self.features} features, got {tuple(said.shape)}."
            )
        mean, raw = said.to(x.dtype).chunk(2, 1)
        return mean, LARGEST_LOG_SCALE * torch.tanh(raw / LARGEST_LOG_SCALE)

    def extra_repr(self) -> str:
        return f"inputs={self.inputs}, features={self.features}"
