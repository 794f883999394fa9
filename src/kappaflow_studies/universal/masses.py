"""Distributions on the cube whose boxes have known probabilities, some with holes or poles."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from kappaflow_studies.universal.targets import TruncatedMixture, uniform

HALVINGS = 60  # bisection steps for a quantile
NODES = 200  # of the quadrature for an entropy, along each axis


class ProductMixture(ABC):
    """A mixture on the cube [-1, 1]^n of distributions whose features are independent."""

    features = 2
    weights: Tensor  #: (components,), of sum 1
    negative_entropy: float  #: the integral of q log q, in nats

    @abstractmethod
    def below(self, feature: int, x: Tensor) -> Tensor:
        """Returns the share (..., components) of each component below `x` in a feature."""

    @abstractmethod
    def density(self, feature: int, x: Tensor) -> Tensor:
        """Returns the density (..., components) of each component at `x` in a feature."""

    def log_density(self, x: Tensor) -> Tensor:
        """Returns the log-densities (B,) of points (B, n)."""
        densities = [self.density(k, x_k) for k, x_k in enumerate(x.unbind(1))]
        return (self.weights * torch.stack(densities).prod(0)).sum(-1).log()

    def sample(self, n: int, *, generator: torch.Generator | None = None) -> Tensor:
        """Returns n samples, (n, features), in float64."""
        ranks = torch.rand(n, self.features, dtype=torch.float64, generator=generator)
        weights, x = self.weights.expand(n, -1), []
        for k, rank in enumerate(ranks.unbind(1)):
            x.append(self.quantile(k, rank, weights))
            weights = weights * self.density(k, x[-1])
            weights = weights / weights.sum(-1, keepdim=True)
        return torch.stack(x, 1)

    def quantile(self, feature: int, rank: Tensor, weights: Tensor) -> Tensor:
        """Returns where a feature of the mixture with these weights reaches `rank`."""
        x, width = torch.full_like(rank, -1.0), 2.0
        for _ in range(HALVINGS):
            width /= 2
            x = x + width * ((weights * self.below(feature, x + width)).sum(-1) < rank)
        return x


class Blocks(ProductMixture):
    """A mixture of uniform distributions on disjoint boxes; outside of them q is zero."""

    def __init__(self, low: Tensor, high: Tensor, weights: Tensor) -> None:
        """Takes the corners (boxes, n) of the boxes and their probabilities (boxes,)."""
        self.low, self.high, self.weights = low.double(), high.double(), weights.double()
        self.features = low.shape[1]
        volumes = (self.high - self.low).prod(1)
        self.negative_entropy = (self.weights * (self.weights / volumes).log()).sum().item()

    def below(self, feature: int, x: Tensor) -> Tensor:
        low, high = self.low[:, feature], self.high[:, feature]
        return ((x[..., None] - low) / (high - low)).clamp(0, 1)

    def density(self, feature: int, x: Tensor) -> Tensor:
        low, high = self.low[:, feature], self.high[:, feature]
        return ((low <= x[..., None]) & (x[..., None] < high)) / (high - low)


class Bumps(ProductMixture):
    """The target `mixture`: five round Gaussians, each truncated to the square."""

    def __init__(self) -> None:
        self.means = torch.tensor(TruncatedMixture.means, dtype=torch.float64)
        self.deviation = TruncatedMixture.deviation
        self.weights = torch.full((len(self.means),), 1 / len(self.means), dtype=torch.float64)
        nodes, weights = map(torch.from_numpy, np.polynomial.legendre.leggauss(NODES))
        log_q = self.log_density(torch.cartesian_prod(nodes, nodes))
        areas = torch.outer(weights, weights).ravel()
        self.negative_entropy = (areas * log_q.exp() * log_q).sum().item()

    def below(self, feature: int, x: Tensor) -> Tensor:
        low, inside = self._ends(feature)
        return (uniform((x[..., None] - self.means[:, feature]) / self.deviation) - low) / inside

    def density(self, feature: int, x: Tensor) -> Tensor:
        standardized = (x[..., None] - self.means[:, feature]) / self.deviation
        slope = math.sqrt(2 / math.pi) * (-standardized.square() / 2).exp()  # of `uniform`
        return slope / (self.deviation * self._ends(feature)[1])

    def _ends(self, feature: int) -> tuple[Tensor, Tensor]:
        """Returns `uniform` at the lower end of the square, and its growth to the upper end."""
        low, high = (uniform((end - self.means[:, feature]) / self.deviation) for end in (-1, 1))
        return low, high - low


class Pole(ProductMixture):
    """Independent features of the density 1 / (4 sqrt |x|), which is unbounded at zero."""

    weights = torch.ones(1, dtype=torch.float64)
    negative_entropy = 2 * (1 - math.log(4))

    def below(self, feature: int, x: Tensor) -> Tensor:
        return ((1 + x.sign() * x.abs().sqrt()) / 2)[..., None]

    def density(self, feature: int, x: Tensor) -> Tensor:
        return (1 / (4 * x.abs().sqrt()))[..., None]


def _square() -> Blocks:
    """Returns the target `square`."""
    return Blocks(-torch.ones(1, 2), torch.ones(1, 2), torch.ones(1))


def _checkerboard() -> Blocks:
    """Returns the target `checkerboard`: eight dark squares of sixteen."""
    corners = [(-1 + j + i % 2 / 2, -1 + i / 2) for i in range(4) for j in range(2)]
    low = torch.tensor(corners, dtype=torch.float64)
    return Blocks(low, low + 0.5, torch.full((8,), 1 / 8))


MASSES: dict[str, Callable[[], ProductMixture]] = {
    "square": _square, "mixture": Bumps, "checkerboard": _checkerboard, "pole": Pole,
}  # fmt: skip
