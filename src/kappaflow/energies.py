"""Densities known up to a constant, and importance weights of a flow's samples for them."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from kappaflow._checks import positive_int
from kappaflow.errors import ArgumentError
from kappaflow.flows import Flow
from kappaflow.flows.eval_mode import evaluation_mode
from kappaflow.summary import Facts, Summary

LogDensity = Callable[[Tensor], Tensor]


AT_ONCE = 4096  # number of samples in a chunk
LEAST_TAIL = 5  # smallest number of weights for the shape of a tail


def log_density_at(log_density: LogDensity, x: Tensor) -> Tensor:
    """Returns the log-density (n,) of points (n, *event), after checking its shape and type."""
    value = log_density(x)
    if not isinstance(value, Tensor) or value.shape != x.shape[:1]:
        got = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
        raise ArgumentError(
            f"'log_density' should return a tensor of shape ({len(x)},), one number for each of "
            f"the points {tuple(x.shape)}, got {got}."
        )
    if not value.is_floating_point():
        raise ArgumentError(
            f"'log_density' should return floating-point numbers, got {value.dtype}."
        )
    return value


def with_gradient(log_density: LogDensity, x: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the log-density (n,) and its gradient (n, *event), both without a graph."""
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        value = log_density_at(log_density, x)
        slope = None
        if value.requires_grad:
            (slope,) = torch.autograd.grad(value.sum(), x, allow_unused=True)
    if slope is None:
        raise ArgumentError(
            "'log_density' should be differentiable with respect to its argument, got a result "
            "without a gradient: compute it with torch, without .detach(), .item(), numpy or "
            "torch.no_grad()."
        )
    return value.detach(), slope


def check_target(flow: Flow, log_density: object) -> None:
    """Raises ArgumentError unless the flow has exact densities and the target is a function."""
    if not isinstance(flow, Flow):
        raise ArgumentError(f"'flow' should be a Flow, got {type(flow).__name__}.")
    if flow.likelihood != "exact":
        raise ArgumentError(
            "'flow' should have an exact log_prob for importance weights: the log_prob of this "
            f"flow is {'a bound' if flow.likelihood == 'bound' else 'a joint density'}."
        )
    if flow.context_features:
        raise ArgumentError(
            "'flow' should have no context, because an energy is one density: got a flow with "
            f"{flow.context_features} context columns."
        )
    if not callable(log_density):
        raise ArgumentError(
            "'log_density' should be a function of points (n, *event), got "
            f"{type(log_density).__name__}."
        )


@dataclass(frozen=True, repr=False)
class ImportanceSamples(Summary):
    """Samples x of a flow q, with weights w = p(x) / q(x) that turn them into samples of p / Z.

    All quantities are nan if a weight is nan. They do not detect regions without samples: a flow
    that covers one of two equal modes has the same weights as a perfect flow.

    Attributes:
        x: The samples, (n, *event).
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

    def _facts(self) -> Facts:
        return [
            ("samples", f"{len(self):,}"),
            ("log Z", f"{self.log_normalizer:.4g}"),
            ("effective sample size", f"{self.effective_sample_size:.0%}"),
        ]

    @property
    def log_weights(self) -> Tensor:
        """Log w in nats, (n,), float64."""
        return self.log_density - self.log_prob

    @property
    def weights(self) -> Tensor:
        """Weights with sum 1, (n,), float64."""
        return self.log_weights.softmax(0)

    @property
    def effective_sample_size(self) -> float:
        """(sum w)^2 / sum w^2 as a share of the samples, from 1 / n to 1."""
        return 1 / self.weights.square().sum().item() / len(self)

    @property
    def log_normalizer(self) -> float:
        """Estimate of log Z in nats, the log of the mean weight."""
        return self.log_weights.logsumexp(0).item() - math.log(len(self))

    @property
    def log_normalizer_error(self) -> float:
        """Standard error of log Z in nats, by the delta method; unreliable near 1."""
        return math.sqrt(max(0.0, 1 / self.effective_sample_size - 1) / (len(self) - 1))

    @property
    def free_energy(self) -> float:
        """Mean of log q - log p in nats, which is the reverse KL divergence minus log Z."""
        return -self.log_weights.mean().item()

    @property
    def reverse_kl(self) -> float:
        """Estimate of KL(q | p / Z) in nats, with Z from the same samples; 0 or more."""
        return self.free_energy + self.log_normalizer

    @cached_property
    def pareto_k(self) -> float:
        """Shape of the tail of the weights; above 0.7, means of weights are unreliable.

        It is fitted by maximum likelihood to the largest 3 sqrt(n) weights, at most a fifth of
        all. It is -inf if these are all equal, and nan for fewer than 25 samples.
        """
        return _tail_shape(self.log_weights)

    def expectation(self, values: Tensor) -> tuple[float, float]:
        """Returns the mean of a quantity under p / Z, and its standard error.

        Args:
            values: The quantity at each sample, (n,).

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
        """Returns n samples drawn by weight, with repetitions: approximate samples of p / Z.

        Args:
            n: Number of samples.
            generator: Random generator; torch's global one by default.

        Returns:
            The samples, (n, *event).

        Raises:
            ArgumentError: n is not positive, or a weight is nan.
        """
        positive_int("n", n)
        weights = self.weights
        if not torch.isfinite(weights).all():
            raise ArgumentError(
                "'log_weights' should be numbers, got nan: check log_density and log_prob."
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
    """Returns samples of a flow with their importance weights for an unnormalized density.

    Args:
        flow: A flow with an exact log_prob and without a context; used in evaluation mode.
        log_density: Maps points (n, *event) of the flow's type and device to the logarithm of the
            density in nats, up to a constant, (n,); -inf where the density is zero.
        n: Number of samples, 2 or more.
        generator: Random generator; torch's global one by default.

    Returns:
        The samples and both densities. Properties of the result give the effective sample size,
        log Z and other quantities.

    Raises:
        ArgumentError: The flow has no exact log_prob, or the log-density has a wrong shape.

    Example:
        >>> import kappaflow as kf
        >>> flow = kf.real_nvp(2, depth=2, hidden=(8,))
        >>> samples = kf.energies.importance_sample(flow, lambda x: -0.5 * x.square().sum(1), 100)
        >>> round(samples.log_normalizer, 4), round(samples.effective_sample_size, 4)
        (1.8379, 1.0)
    """
    check_target(flow, log_density)
    if positive_int("n", n) < 2:
        raise ArgumentError("'n' should be at least 2, got 1: one sample has no spread.")
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
    from scipy.stats import genpareto  # takes half as long to load as torch

    return float(genpareto.fit(excess / excess.mean(), floc=0)[0])
