"""The generator without constraints: three linear layers with ReLU that make a sphere mixture."""

import numpy as np
import torch
from scipy.special import ndtri
from torch import Tensor, nn

from kappaflow.errors import ArgumentError
from kappaflow_studies.sphere.mixture import SphereMixture
from kappaflow_studies.theory.exact import Array

MIN_RAMP = 16 * np.finfo(np.float64).eps  # least width of a ramp, relative to its position


class MixtureGenerator(nn.Module):
    r"""A ReLU network R^(d+1) -> R^d that turns a standard Gaussian into a sphere mixture.

    The first coordinate selects the component: it is compared with the quantiles of 1/k, 2/k, ...,
    by ramps :math:`r_j` from 0 to 1 instead of steps. The others are scaled and pass through:

    .. math:: g(z_0, z) = \mu_1 + \sum_{j=1}^{k-1} (\mu_{j+1} - \mu_j)\, r_j(z_0) + \sigma z .

    The depth is 3 for any k, with :math:`2 (k - 1) + 4 d` hidden units and :math:`O(k d)` nonzero
    numbers, in float64. Only ramps cause an error (`wasserstein_bound`); neighbors in the order of
    the means share one, and `accuracy` is the probability that the first coordinate is on a ramp.
    Koehler, Mehta, Risteski 2021 state that such networks exist; this one is ours.

    Raises:
        ArgumentError: `accuracy` is so large that ramps overlap, or so small that they are
            narrower than float64 resolves.
    """

    def __init__(self, mixture: SphereMixture, *, accuracy: float = 0.01) -> None:
        super().__init__()
        self.mixture = mixture
        self.thresholds, self.starts, self.ends = _ramps(mixture.components, accuracy)
        d, ramps = mixture.features, mixture.components - 1
        hidden = ramps + 2 * d
        first, second, last = (
            nn.Linear(a, b, dtype=torch.float64)
            for a, b in ((d + 1, hidden), (hidden, hidden), (hidden, d))
        )
        slopes = torch.from_numpy(1 / (self.ends - self.starts))
        with torch.no_grad():
            for layer in (first, second, last):
                layer.weight.zero_()
                layer.bias.zero_()
            first.weight[:ramps, 0] = slopes
            first.bias[:ramps] = -slopes * torch.from_numpy(self.starts)
            first.weight[ramps:, 1:] = torch.cat((torch.eye(d), -torch.eye(d)))
            second.weight[:ramps, :ramps] = -torch.eye(ramps)
            second.bias[:ramps] = 1.0
            second.weight[ramps:, ramps:] = torch.eye(2 * d)
            steps = mixture.means.diff(dim=0).T
            noise = mixture.sigma * torch.eye(d, dtype=torch.float64)
            # A unit of the second layer is 1 - r, so all ramps have ended if all units are 0.
            last.weight.copy_(torch.cat((-steps, noise, -noise), dim=1))
            last.bias.copy_(mixture.means[-1])
        self.network = nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), last)

    def forward(self, z: Tensor) -> Tensor:
        """Returns points (B, d) for standard Gaussian z (B, d + 1)."""
        return self.network(z)

    @torch.no_grad()
    def sample(self, n: int, *, generator: torch.Generator) -> Tensor:
        """Returns n samples, (n, d)."""
        size = n, self.mixture.features + 1
        return self(torch.randn(size, generator=generator, dtype=torch.float64))

    def wasserstein_bound(self) -> float:
        r"""Returns a bound on :math:`W_1` from the generator's distribution to the mixture.

        Both map the same input, and differ only on the ramps from a to b around the quantiles t:

        .. math:: \sum_j |\mu_{j+1} - \mu_j| \Bigl( \int_{a_j}^{t_j} r_j\, \varphi
                  + \int_{t_j}^{b_j} (1 - r_j)\, \varphi \Bigr) ,

        close to a quarter of `accuracy` times the mean step; by quadrature exact to rounding.
        """
        steps = self.mixture.means.diff(dim=0).norm(dim=1).numpy()
        width = self.ends - self.starts
        below = _mean_over(self.starts, self.thresholds, self.starts) / width
        above = -_mean_over(self.thresholds, self.ends, self.ends) / width
        return float(steps @ (below + above))

    @property
    def hidden_units(self) -> int:
        """Returns the number of ReLUs."""
        return 2 * (self.mixture.components - 1) + 4 * self.mixture.features

    @property
    def numbers(self) -> int:
        """Returns the number of nonzero weights and biases."""
        return sum(int(p.count_nonzero()) for p in self.parameters())


def _ramps(components: int, accuracy: float) -> tuple[Array, Array, Array]:
    """Returns the k - 1 quantiles, and the ends of the ramps around them."""
    if components == 1:
        return np.empty(0), np.empty(0), np.empty(0)
    if accuracy >= (most := 1 - 1 / components):
        raise ArgumentError(
            f"'accuracy' should be below 1 - 1/k = {most:.6g}, got {accuracy}: "
            "the ramps would meet."
        )
    j = np.arange(1, components)
    half = accuracy / (components - 1) / 2
    thresholds, starts, ends = (_quantile(j, components, by) for by in (0.0, -half, half))
    if (ends - starts < MIN_RAMP * np.maximum(1, abs(thresholds))).any():
        raise ArgumentError(
            f"'accuracy' should be larger, got {accuracy} for {components} components: "
            "the ramps would be narrower than float64 can tell."
        )
    return thresholds, starts, ends


def _quantile(j: Array, components: int, by: float) -> Array:
    """Returns the quantile of j / k + by, computed from the nearer end of (0, 1)."""
    lower, upper = ndtri(j / components + by), -ndtri((components - j) / components - by)
    return np.where(2 * j <= components, lower, upper)


def _mean_over(left: Array, right: Array, origin: Array) -> Array:
    """Returns the integral of (x - origin) times the Gaussian density from left to right."""
    nodes, weights = np.polynomial.legendre.leggauss(24)
    half = (right - left)[:, None] / 2
    x = left[:, None] + half * (nodes + 1)
    density = np.exp(-x * x / 2) / np.sqrt(2 * np.pi)
    return ((x - origin[:, None]) * density * half) @ weights
