"""The distributions that flows are trained on: a Gaussian, and a thin bent sheet."""

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor

from kappaflow_studies.depth_conditioning.ideal_couplings import non_standardness

STANDARDIZATION_SAMPLES = 20_000  # number of samples


class Distribution(ABC):
    """A distribution of x in R^D with features of variance 1, in float64.

    `log_prob` is in nats. `whiten` maps samples exactly to the standard normal.
    """

    features: int

    @abstractmethod
    def sample(self, n: int, generator: torch.Generator) -> Tensor: ...

    @abstractmethod
    def log_prob(self, x: Tensor) -> Tensor: ...

    @abstractmethod
    def whiten(self, x: Tensor) -> Tensor: ...


class Gaussian(Distribution):
    """A centered Gaussian with correlations, so that directions have unequal widths.

    The covariance has a geometric spectrum with this condition number, before its features are
    scaled to variance 1, and random directions.
    """

    def __init__(self, features: int, condition_number: float, seed: int) -> None:
        self.features = features
        spectrum = torch.logspace(0, math.log10(condition_number), features, dtype=torch.float64)
        turn = random_rotation(features, torch.Generator().manual_seed(seed))
        covariance = turn @ torch.diag(spectrum) @ turn.T
        scale = covariance.diagonal().rsqrt()
        self.covariance = covariance * scale[:, None] * scale
        self._factor = torch.linalg.cholesky(self.covariance)
        values, directions = torch.linalg.eigh(self.covariance)
        self._inverse_root = directions @ torch.diag(values.rsqrt()) @ directions.T

    @property
    def loss(self) -> float:
        """Distance from the standard normal, in nats."""
        return non_standardness(self.covariance).item()

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        z = torch.randn(n, self.features, dtype=torch.float64, generator=generator)
        return z @ self._factor.T

    def log_prob(self, x: Tensor) -> Tensor:
        log_det = self._factor.diagonal().log().sum()
        return standard_log_prob(self.whiten(x)) - log_det

    def whiten(self, x: Tensor) -> Tensor:
        return x @ self._inverse_root


class BentSheet(Distribution):
    r"""A thin, bent sheet :math:`(u, W \sin(2 u) + \sigma e)`, rotated, with scaled features.

    u and e are standard normal, and sigma is the thickness. u has a quarter of the features, which
    are at least 4.
    """

    def __init__(self, features: int, thickness: float, seed: int) -> None:
        self.features, self.thickness = features, thickness
        self.inner = max(1, features // 4)
        generator = torch.Generator().manual_seed(seed)
        shape = self.inner, features - self.inner
        self._mix = torch.randn(shape, dtype=torch.float64, generator=generator)
        self._turn = random_rotation(features, generator)
        self._scale = torch.ones(features, dtype=torch.float64)
        self._scale = 1 / self.sample(STANDARDIZATION_SAMPLES, generator).std(0)

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        z = torch.randn(n, self.features, dtype=torch.float64, generator=generator)
        along, across = z[:, : self.inner], z[:, self.inner :]
        flat = torch.cat((along, self._bent(along) + self.thickness * across), 1)
        return flat @ self._turn.T * self._scale

    def log_prob(self, x: Tensor) -> Tensor:
        thin = (self.features - self.inner) * math.log(self.thickness)
        return standard_log_prob(self.whiten(x)) - thin + -self._scale.log().sum()

    def whiten(self, x: Tensor) -> Tensor:
        flat = (x / self._scale) @ self._turn
        along, across = flat[:, : self.inner], flat[:, self.inner :]
        return torch.cat((along, (across - self._bent(along)) / self.thickness), 1)

    def _bent(self, along: Tensor) -> Tensor:
        return (2 * along).sin() @ self._mix


def distribution_named(name: str, features: int, hardness: float, seed: int) -> Distribution:
    """Returns "Gaussian" with this condition number, or "sheet" with this thickness."""
    return {"Gaussian": Gaussian, "sheet": BentSheet}[name](features, hardness, seed)


def random_rotation(n: int, generator: torch.Generator) -> Tensor:
    """Returns a uniformly random orthogonal matrix in float64."""
    normal = torch.randn(n, n, dtype=torch.float64, generator=generator)
    turn, triangle = torch.linalg.qr(normal)
    return turn * triangle.diagonal().sign()


def standard_log_prob(z: Tensor) -> Tensor:
    """Returns the log-density of the standard normal, (n,)."""
    return -0.5 * z.square().sum(1) - 0.5 * z.shape[1] * math.log(2 * math.pi)
