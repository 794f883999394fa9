"""Distributions on bounded sets, each the image of a standard normal under an explicit map."""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

HALVINGS = 24  # bisection steps for a quantile, before Newton's method
STRETCH_POINTS = 4096


class Target(ABC):
    r"""A distribution Q on :math:`[-R', R']^n`, the image of a normal z under a map :math:`\phi`.

    The map need not be an optimal transport. It may jump where a feature of the second half
    crosses a value, and where a feature of the first half crosses zero. `features` is n, `reach`
    is R', and `triangular` tells whether feature k of the map depends on the features up to k
    only, and increases smoothly in the last of them.
    """

    features: int
    reach: float = 1.0
    triangular = True

    @abstractmethod
    def transport(self, z: Tensor) -> Tensor:
        """Maps standard normal points (B, n) to points (B, n) of the distribution."""

    def sample(self, n: int, *, generator: torch.Generator | None = None) -> Tensor:
        """Returns n samples, (n, features), in float64."""
        return self.transport(
            torch.randn(n, self.features, dtype=torch.float64, generator=generator)
        )

    def stretch(self, count: int | None = None) -> float:
        r"""Returns the root mean square of the derivatives by the first `count` features of z.

        None stands for the first half. An error in these features grows by this factor,
        :math:`\sqrt{E \|\partial \phi / \partial z\|_F^2}`. It is estimated from 4096 points that
        are the same in each call.
        """
        generator = torch.Generator().manual_seed(0)
        z = torch.randn(STRETCH_POINTS, self.features, dtype=torch.float64, generator=generator)
        first = self._jacobian(z)[:, :, : count or self.features // 2]
        return first.square().sum(dim=(0, 2)).mean().sqrt().item()

    def log_density(self, z: Tensor) -> Tensor:
        r"""Returns the log-densities (B,) of the distribution at :math:`\phi(z)`, for z (B, n)."""
        normal = -z.square().sum(1) / 2 - self.features / 2 * math.log(2 * math.pi)
        return normal - torch.linalg.slogdet(self._jacobian(z).transpose(0, 1)).logabsdet

    def _jacobian(self, z: Tensor) -> Tensor:
        """Returns the derivatives by each feature of z, (outputs, B, inputs)."""
        with torch.enable_grad():
            z = z.detach().requires_grad_()
            outputs = self.transport(z).sum(0)
            rows = [torch.autograd.grad(out, z, retain_graph=True)[0] for out in outputs]
        return torch.stack(rows)


@dataclass(frozen=True)
class UniformCube(Target):
    """The uniform distribution on :math:`[-1, 1]^n`, with n `features`."""

    features: int = 2

    def transport(self, z: Tensor) -> Tensor:
        return uniform(z)


@dataclass(frozen=True)
class Banana(Target):
    """Each feature is a parabola of the one before it, plus some uniform noise."""

    features: int = 2
    width = 0.4  # share of the noise

    def transport(self, z: Tensor) -> Tensor:
        noise = uniform(z).unbind(1)
        x = [noise[0]]
        for noise_i in noise[1:]:
            x.append((1 - self.width) * (2 * x[-1] ** 2 - 1) + self.width * noise_i)
        return torch.stack(x, 1)


class Ring(Target):
    """The uniform distribution between two circles, of radius `inner` and of radius 1.

    The first feature of the normal becomes the angle, which jumps at infinity, the second the
    radius.
    """

    features = 2
    triangular = False
    inner = 0.5

    def transport(self, z: Tensor) -> Tensor:
        angle, depth = math.pi * uniform(z[:, 0]), (1 + uniform(z[:, 1])) / 2
        radius = (self.inner**2 + (1 - self.inner**2) * depth).sqrt()
        return torch.stack((radius * angle.cos(), radius * angle.sin()), 1)


class Checkerboard(Target):
    """The uniform distribution on the eight dark squares of a board of four by four.

    The second feature gives the row. The first one is uniform on the two dark squares of that row,
    and jumps from one to the other at zero.
    """

    features = 2
    triangular = False

    def transport(self, z: Tensor) -> Tensor:
        first, second = uniform(z).unbind(1)
        row = (2 * (second + 1)).floor().clamp(0, 3)
        left = torch.where(first < 0, first / 2 - 0.5, first / 2)
        return torch.stack((left + 0.5 * (row % 2), second), 1)


class TruncatedMixture(Target):
    """A mixture of five round Gaussians, each truncated to the square [-1, 1]^2.

    The map is that of Knothe and Rosenblatt: a quantile of the first feature, then one of the
    second given the first, by bisection and Newton's method.
    """

    features = 2
    means = ((0.5, 0.0), (0.15, 0.48), (-0.4, 0.29), (-0.4, -0.29), (0.15, -0.48))
    deviation = 0.2  # before truncation

    def transport(self, z: Tensor) -> Tensor:
        first, second = torch.tensor(self.means, dtype=z.dtype, device=z.device).unbind(1)
        ranks = (1 + uniform(z)) / 2
        even = torch.full_like(first, 1 / len(first)).expand(len(z), -1)
        x = self._quantile(ranks[:, 0], first, even)
        weights = even * self._density(x, first)
        y = self._quantile(ranks[:, 1], second, weights / weights.sum(1, keepdim=True))
        return torch.stack((x, y), 1)

    def _quantile(self, rank: Tensor, means: Tensor, weights: Tensor) -> Tensor:
        """Returns the quantile of the mixture for each `rank`, with its derivatives."""
        x, width = torch.full_like(rank.detach(), -1.0), 2.0
        with torch.no_grad():
            for _ in range(HALVINGS):
                width /= 2
                x = x + width * (self._missing(x + width, rank, means, weights) > 0)
            x = x + self._newton(x, rank, means, weights)
        return x + self._newton(x, rank, means, weights)  # this step carries the derivatives

    def _newton(self, x: Tensor, rank: Tensor, means: Tensor, weights: Tensor) -> Tensor:
        slope = (weights * self._density(x, means)).sum(1)
        return self._missing(x, rank, means, weights) / slope

    def _missing(self, x: Tensor, rank: Tensor, means: Tensor, weights: Tensor) -> Tensor:
        return rank - (weights * self._distribution(x, means)).sum(1)

    def _distribution(self, x: Tensor, means: Tensor) -> Tensor:
        """Returns the share of each component below x (B,), as (B, components)."""
        return (self._below(x[:, None] - means) - self._below(-1 - means)) / self._inside(means)

    def _density(self, x: Tensor, means: Tensor) -> Tensor:
        standardized = (x[:, None] - means) / self.deviation
        size = self.deviation * math.sqrt(2 * math.pi)
        return (-standardized.square() / 2).exp() / (size * self._inside(means))

    def _inside(self, means: Tensor) -> Tensor:
        return self._below(1 - means) - self._below(-1 - means)

    def _below(self, distance: Tensor) -> Tensor:
        return (1 + uniform(distance / self.deviation)) / 2


TARGETS: dict[str, Target] = {
    "square": UniformCube(),
    "ring": Ring(),
    "banana": Banana(),
    "checkerboard": Checkerboard(),
    "mixture": TruncatedMixture(),
    "cube-4d": UniformCube(4),
    "banana-4d": Banana(4),
    "banana-8d": Banana(8),
}


def uniform(z: Tensor) -> Tensor:
    """Returns numbers in [-1, 1] that are uniform if z is standard normal."""
    return torch.erf(z / math.sqrt(2))
