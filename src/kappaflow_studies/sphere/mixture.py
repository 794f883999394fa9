"""A mixture of Gaussians on the unit sphere."""

import math
from math import log, sqrt

import torch
from torch import Tensor

from kappaflow_studies.sphere.packing import gaussian_norm, nearest_distance
from kappaflow_studies.wasserstein import wasserstein


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


CONFIDENCE = 0.95  # of the prediction for many


def wasserstein_bounds(first: SphereMixture, second: SphereMixture) -> tuple[float, float]:
    r"""Returns a lower and an upper bound on :math:`W_1` between two mixtures of one k and sigma.

    With w the distance of the best matching of the means, u the means of one mixture, and nu those
    of the other, in either order,

    .. math:: \max\bigl(0,\; w - 2 \sigma E |z|,\;
              1 - \mathrm{mean}_j \max_i \langle \nu_j, u_i \rangle - \sigma \sqrt{2 \log k}\bigr)
              \;\le\; W_1 \;\le\; w .

    (Ours, by Kantorovich's duality: docs/theory/depth-bound.md.)
    """
    matched = wasserstein(first.means, second.means, order=1)
    cosines = first.means @ second.means.T
    nearest = min(cosines.max(dim=side).values.mean().item() for side in (0, 1))
    noise = first.sigma * sqrt(2 * log(first.components))
    shared_noise = matched - 2 * first.sigma * gaussian_norm(first.features)
    return min(max(0.0, shared_noise, 1 - nearest - noise), matched), matched


def random_family(components: int, features: int, tuples: int) -> tuple[float, float]:
    r"""Returns lower bounds on :math:`W_1` of n random tuples of k means: of a pair, and of all.

    The first is the expectation, `nearest_distance`. With probability c no pair of the
    n (n - 1) / 2 is closer than this less

    .. math:: t = \sqrt{\frac{4 \log(n (n - 1) / (2 (1 - c)))}{(d - 1)\, k}} .

    (Ours; Mueller, Weissler 1982 for the constant of the sphere, Herbst's argument.)
    """
    pairs, nearest = tuples * (tuples - 1) / 2, nearest_distance(components, features)
    spread = sqrt(4 * log(pairs / (1 - CONFIDENCE)) / ((features - 1) * components))
    return nearest, max(0.0, nearest - spread)
