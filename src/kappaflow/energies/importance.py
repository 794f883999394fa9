"""Importance sampling: what the draws of a flow say of a density that it was to fit."""

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from scipy.stats import genpareto
from torch import Tensor

from kappaflow._checks import positive_int
from kappaflow.energies.target import LogDensity, check_target, log_density_at
from kappaflow.errors import ArgumentError
from kappaflow.flows import Flow
from kappaflow.flows.eval_mode import evaluation_mode

AT_ONCE = 4096  # draws
LEAST_TAIL = 5  # weights that the shape of a tail is taken from


@dataclass(frozen=True)
class ImportanceSamples:
    r"""Draws x of a flow q, and the weights w = p(x) / q(x) that make them draws of p / Z.

    Figures are nan where a weight is not a number, and tell nothing of regions without any draw:
    a flow that covers one of two equal modes has weights like those of a perfect one.

    Attributes:
        x: The draws, (n, *event).
        log_prob: log q(x) of the flow in nats, (n,), float64.
        log_density: log p(x), up to the constant log Z, (n,), float64.

    Source:
        Kong 1992 for the effective sample size; Vehtari, Simpson, Gelman, Yao, Gabry 2024, Pareto
        smoothed importance sampling, for the tail.

    Example:
        >>> zero = torch.zeros(4, dtype=torch.float64)
        >>> ImportanceSamples(zero[:, None], zero, zero + 2).log_normalizer
        2.0
    """

    x: Tensor
    log_prob: Tensor
    log_density: Tensor

    def __len__(self) -> int:
        return len(self.x)

    @property
    def log_weights(self) -> Tensor:
        """Log w in nats, (n,), float64."""
        return self.log_density - self.log_prob

    @property
    def weights(self) -> Tensor:
        """Weights of sum 1, (n,), float64."""
        return self.log_weights.softmax(0)

    @property
    def effective_sample_size(self) -> float:
        """(sum w)^2 / sum w^2 as a share of the draws, from 1 / n to 1."""
        return 1 / self.weights.square().sum().item() / len(self)

    @property
    def log_normalizer(self) -> float:
        """Estimate of log Z in nats, the log of the mean weight."""
        return self.log_weights.logsumexp(0).item() - math.log(len(self))

    @property
    def log_normalizer_error(self) -> float:
        """Standard error of that, in nats, by the delta method; not to be relied on near 1."""
        return math.sqrt(max(0.0, 1 / self.effective_sample_size - 1) / (len(self) - 1))

    @property
    def free_energy(self) -> float:
        """Mean of log q - log p in nats: the reverse KL divergence less log Z."""
        return -self.log_weights.mean().item()

    @property
    def reverse_kl(self) -> float:
        """Estimate of KL(q | p / Z) in nats, with Z from the same draws; 0 or more."""
        return self.free_energy + self.log_normalizer

    @cached_property
    def pareto_k(self) -> float:
        """Shape of the tail of the weights; above 0.7 their means cannot be relied on.

        Of the largest 3 sqrt(n) weights, a fifth at most, by maximum likelihood. -inf where these
        are all equal; nan for fewer than 25 draws.
        """
        return _tail_shape(self.log_weights)

    def expectation(self, values: Tensor) -> tuple[float, float]:
        """Returns the mean of a number under p / Z, and its standard error.

        Args:
            values: The number at each of the draws, (n,).

        Returns:
            The self-normalized estimate, and its error by the delta method.

        Raises:
            ArgumentError: The values have another shape.
        """
        if not isinstance(values, Tensor) or values.shape != self.log_prob.shape:
            got = tuple(values.shape) if isinstance(values, Tensor) else type(values).__name__
            raise ArgumentError(f"'values' should have shape ({len(self)},), got {got}.")
        weights, values = self.weights, values.to(self.log_prob)
        mean = (weights * values).sum()
        return mean.item(), (weights * (values - mean)).norm().item()

    def resample(self, n: int, *, generator: torch.Generator | None = None) -> Tensor:
        """Returns n of the draws by their weights, with repetitions: nearly draws of p / Z.

        Args:
            n: How many.
            generator: Chooses them; torch's global one if left out.

        Returns:
            (n, *event).

        Raises:
            ArgumentError: n is not positive, or a weight is not a number.
        """
        positive_int("n", n)
        weights = self.weights
        if not torch.isfinite(weights).all():
            raise ArgumentError(
                "'log_weights' should be numbers to resample by, some of these are nan: see "
                "log_density and log_prob."
            )
        chosen = weights.cpu().multinomial(n, replacement=True, generator=generator)
        return self.x[chosen.to(self.x.device)]


@torch.no_grad()
def importance_sample(
    flow: Flow,
    log_density: LogDensity,
    n: int = 4096,
    *,
    generator: torch.Generator | None = None,
) -> ImportanceSamples:
    """Returns draws of a flow with their importance weights for an unnormalized density.

    Args:
        flow: With an exact log_prob and without a context; used in evaluation mode.
        log_density: Of points (n, *event) of the flow's type and device the logarithm of the
            density in nats, up to a constant, (n,); -inf where there is none.
        n: How many draws, 2 or more.
        generator: Draws them; torch's global one if left out.

    Returns:
        The draws and both densities: effective sample size, log Z and others are read off them.

    Raises:
        ArgumentError: The flow has no exact log_prob, or the log-density another shape.

    Example:
        >>> import kappaflow as kf
        >>> flow = kf.real_nvp(2, depth=2, hidden=(8,))
        >>> found = kf.importance_sample(flow, lambda x: -0.5 * x.square().sum(1), 100)
        >>> round(found.log_normalizer, 4), round(found.effective_sample_size, 4)
        (1.8379, 1.0)
    """
    check_target(flow, log_density)
    if positive_int("n", n) < 2:
        raise ArgumentError("'n' should be at least 2: one draw has no spread, got 1.")
    parts = []
    with evaluation_mode(flow):
        for start in range(0, n, AT_ONCE):
            x, log_prob = flow.sample_and_log_prob(min(AT_ONCE, n - start), generator=generator)
            parts.append((x, log_prob.double(), log_density_at(log_density, x).double()))
    return ImportanceSamples(*(torch.cat(part) for part in zip(*parts, strict=True)))


def _tail_shape(log_weights: Tensor) -> float:
    """Returns the shape of the generalized Pareto distribution of the largest weights."""
    n = len(log_weights)
    tail = min(n // 5, math.ceil(3 * math.sqrt(n)))
    if tail < LEAST_TAIL or log_weights.isnan().any() or log_weights.max() == math.inf:
        return math.nan
    largest = log_weights.sort().values[-tail - 1 :]
    scaled = (largest - largest[-1]).exp().cpu().numpy()
    excess = scaled[1:] - scaled[0]
    if not np.any(excess > 0):
        return -math.inf
    return float(genpareto.fit(excess / excess.mean(), floc=0)[0])
