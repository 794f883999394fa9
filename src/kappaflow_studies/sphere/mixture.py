"""A mixture of Gaussians on the unit sphere, and its divergence from another density."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from kappaflow._checks import batch, natural_int, positive_float, positive_int
from kappaflow.errors import ArgumentError


@dataclass(frozen=True)
class Estimate:
    """An average over independent samples.

    Example:
        >>> import torch
        >>> Estimate.of(torch.tensor([1.0, 2.0, 3.0])).value
        2.0
    """

    value: float  #: the average
    standard_error: float  #: from the same samples; nan for a single one
    draws: int  #: number of samples

    @classmethod
    def of(cls, values: Tensor) -> "Estimate":
        """Returns the average of values (n,) from independent samples."""
        values_double = values.detach().double().flatten()
        n = len(values_double)
        error = values_double.std().item() / n**0.5 if n > 1 else float("nan")
        return cls(values_double.mean().item(), error, n)

    def __str__(self) -> str:
        return f"{self.value:.4g} +- {self.standard_error:.2g}"


NORM_TOLERANCE = 1e-6  # largest relative difference between the norms of the means


class SphereMixture:
    r"""The mixture :math:`\frac1k \sum_i N(\mu_i, \sigma^2 I)` with all means on one sphere.

    The means, (k, d), have equal norms, and are kept in float64. `sigma` is in their units.
    `log_prob` is exact, and accurate even far from all means. The theorem of Koehler, Mehta,
    Risteski 2021 on depth is about such mixtures.

    Raises:
        ArgumentError: The means are not a table of finite numbers with equal norms above 0, or
            `sigma` is not above 0.

    Example:
        >>> mixture = SphereMixture(torch.tensor([[1.0, 0.0], [-1.0, 0.0]]), 0.5)
        >>> mixture
        SphereMixture(components=2, features=2, radius=1, sigma=0.5)
        >>> round(mixture.log_prob(torch.zeros(1, 2)).item(), 4)
        -2.4516
    """

    def __init__(self, means: Tensor, sigma: float) -> None:
        centers = batch("means", means).detach().double()
        if centers.dim() != 2 or not centers.numel() or not centers.isfinite().all():
            raise ArgumentError("'means' should be a table (k, d) of finite numbers.")
        norms = centers.norm(dim=1)
        self.radius = positive_float("the norm of the means", norms.mean().item())
        if (norms - self.radius).abs().max() > NORM_TOLERANCE * self.radius:
            raise ArgumentError(
                f"'means' should have one norm, got {norms.min().item():.6g} to "
                f"{norms.max().item():.6g}."
            )
        self.means = centers
        self.sigma = positive_float("sigma", sigma)
        self.components, self.features = centers.shape

    @classmethod
    def random(
        cls,
        components: int,
        features: int,
        *,
        radius: float = 1.0,
        sigma: float = 0.05,
        seed: int = 0,
    ) -> "SphereMixture":
        """Returns a mixture with random means, uniform on the sphere.

        Example:
            >>> SphereMixture.random(256, 32).means.shape
            torch.Size([256, 32])
        """
        shape = positive_int("components", components), positive_int("features", features)
        generator = torch.Generator().manual_seed(natural_int("seed", seed))
        directions = torch.randn(shape, generator=generator, dtype=torch.float64)
        directions /= directions.norm(dim=1, keepdim=True)
        return cls(positive_float("radius", radius) * directions, sigma)

    @property
    def transport_constant(self) -> float:
        r"""Returns :math:`r^2 + \sigma^2`, the constant C of `transport_divergence`.

        Example:
            >>> SphereMixture(torch.tensor([[2.0], [-2.0]]), 0.5).transport_constant
            4.25
        """
        return self.radius**2 + self.sigma**2

    def log_prob(self, x: Tensor) -> Tensor:
        """Returns log p(x) in nats, (B,) in float64, for points x (B, d)."""
        x_double = batch("x", x, (self.features,)).to(self.means)
        # Differences first: |x|^2 - 2 x.m + |m|^2 would lose all digits near a narrow mean.
        distance = torch.cdist(x_double, self.means, compute_mode="donot_use_mm_for_euclid_dist")
        exponents = -0.5 * (distance / self.sigma) ** 2
        scale = self.features * math.log(self.sigma * math.sqrt(2 * math.pi))
        return exponents.logsumexp(dim=1) - scale - math.log(self.components)

    def sample(self, n: int, *, generator: torch.Generator | None = None) -> Tensor:
        """Returns n samples, (n, d), in float64; torch's global generator is the default."""
        count = positive_int("n", n)
        chosen = torch.randint(self.components, (count,), generator=generator)
        noise = torch.randn(count, self.features, generator=generator, dtype=torch.float64)
        return self.means[chosen] + self.sigma * noise

    def entropy(self, n: int, *, generator: torch.Generator | None = None) -> Estimate:
        """Returns -E log p in nats, averaged over n samples."""
        return Estimate.of(-self.log_prob(self.sample(n, generator=generator)))

    def divergence_to(
        self,
        log_prob: Callable[[Tensor], Tensor],
        n: int,
        *,
        dtype: torch.dtype = torch.float64,
        generator: torch.Generator | None = None,
    ) -> Estimate:
        """Returns the KL divergence of the mixture from a density q, in nats, over n samples.

        `log_prob` returns log q (n,) of points (n, d) of a dtype, such as `flow.log_prob`. The
        average may be below 0 by a few standard errors.

        Example:
            >>> mixture = SphereMixture.random(4, 8)
            >>> mixture.divergence_to(mixture.log_prob, 100).value
            0.0
        """
        x = self.sample(n, generator=generator)
        with torch.no_grad():
            return Estimate.of(self.log_prob(x) - log_prob(x.to(dtype)).double())

    def mean_distance(self) -> float:
        """Returns the mean distance of two different means; nan for a single one."""
        pairs = torch.pdist(self.means)
        return pairs.mean().item()

    def __repr__(self) -> str:
        return (
            f"SphereMixture(components={self.components}, features={self.features}, "
            f"radius={self.radius:g}, sigma={self.sigma:g})"
        )
