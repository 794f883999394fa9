"""A mixture of Gaussians on the unit sphere."""

import math

import torch
from torch import Tensor


class SphereMixture:
    r"""The mixture :math:`\frac1k \sum_i N(\mu_i, \sigma^2 I)` with means (k, d) of norm 1.

    The theorem of Koehler, Mehta, Risteski 2021 on depth is about such mixtures.
    """

    def __init__(self, means: Tensor, sigma: float) -> None:
        self.means, self.sigma = means.double(), sigma
        self.components, self.features = means.shape

    @classmethod
    def random(
        cls, components: int, features: int, *, sigma: float = 0.05, seed: int = 0
    ) -> "SphereMixture":
        """Returns a mixture with random means, uniform on the sphere."""
        generator = torch.Generator().manual_seed(seed)
        means = torch.randn(components, features, generator=generator, dtype=torch.float64)
        return cls(means / means.norm(dim=1, keepdim=True), sigma)

    def log_prob(self, x: Tensor) -> Tensor:
        """Returns log p(x) in nats, (B,) in float64, accurate even far from all means."""
        # Differences first: |x|^2 - 2 x.m + |m|^2 would lose all digits near a narrow mean.
        mode = "donot_use_mm_for_euclid_dist"
        distance = torch.cdist(x.double(), self.means, compute_mode=mode)
        exponents = -0.5 * (distance / self.sigma) ** 2
        scale = self.features * math.log(self.sigma * math.sqrt(2 * math.pi))
        return exponents.logsumexp(dim=1) - scale - math.log(self.components)

    def sample(self, n: int, *, generator: torch.Generator) -> Tensor:
        """Returns n samples, (n, d), in float64."""
        chosen = torch.randint(self.components, (n,), generator=generator)
        noise = torch.randn(n, self.features, generator=generator, dtype=torch.float64)
        return self.means[chosen] + self.sigma * noise

    def mean_distance(self) -> float:
        """Returns the mean distance of two different means; nan for a single one."""
        return torch.pdist(self.means).mean().item()
