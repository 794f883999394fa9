"""What three couplings reach for one error, and what it costs in conditioning."""

from dataclasses import dataclass

import torch

from kappaflow._checks import natural_int, positive_int
from kappaflow.bijection import Chain, Inverse
from kappaflow.conditioning import spectrum
from kappaflow.conditioning.layers import layers_of
from kappaflow_studies.universal.construction import Scales, universal_flow
from kappaflow_studies.universal.targets import Target
from kappaflow_studies.universal.wasserstein import TransportError, transport_error, two_sample_w2

LEVELS = (0.05, 0.5, 0.95)


@dataclass(frozen=True)
class Approximation:
    """The construction for one target and one error, measured.

    Singular values are those of dx/dz, latent to data, in data units per latent unit.

    Attributes:
        scales: Its sizes, the error that was allowed among them.
        error: The bound on W2.
        sigma_min: The quantiles 5 %, 50 % and 95 % of the smallest singular value over the points.
        sigma_max: Those of the largest.
        status: Of the singular values.
        two_sample_w2: Between draws of the flow and of the target; None where it was not asked
            for.
        floor: Between two sets of draws of the target, as many: what is left for no error at all.
    """

    scales: Scales
    error: TransportError
    sigma_min: tuple[float, float, float]
    sigma_max: tuple[float, float, float]
    status: str
    two_sample_w2: float | None
    floor: float | None


def approximate(
    target: Target,
    epsilon: float,
    *,
    samples: int = 100_000,
    points: int = 1000,
    draws: int = 0,
    seed: int = 0,
) -> Approximation:
    """Returns what `universal_flow` reaches for a target and an error.

    Args:
        target: The law.
        epsilon: The error that is allowed.
        samples: Normal draws for the bound on W2.
        points: Normal draws at which the singular values are taken.
        draws: Points of each sample of the two-sample W2; 0: leave it out.
        seed: Of all of these.

    Returns:
        The bound and the singular values; sigma_min is taken from the inverse.

    Raises:
        ArgumentError: An argument is out of its range.

    Example:
        >>> from kappaflow_studies.universal import UniformCube
        >>> found = approximate(UniformCube(), 0.1, samples=10_000, points=10)
        >>> found.error.bound < 0.1, found.sigma_min[1] < 1e-5
        (True, True)
    """
    flow, scales = universal_flow(target, epsilon), Scales.of(target, epsilon)
    positive_int("points", points)
    generator = torch.Generator().manual_seed(natural_int("seed", seed) + 1)
    z = torch.randn(points, target.features, dtype=torch.float64, generator=generator)
    # Inverted part by part: the inverse of the whole is too ill-conditioned to find back to z.
    layers = reversed(layers_of(flow.bijection))
    found = spectrum(Chain(Inverse(layer.bijection) for layer in layers), z)
    compared, floor = None, None
    if natural_int("draws", draws):
        made = flow.sample(draws, generator=generator)
        first, second = (target.sample(draws, generator=generator) for _ in range(2))
        compared, floor = two_sample_w2(made, first), two_sample_w2(first, second)
    return Approximation(
        scales=scales,
        error=transport_error(flow, target, scales, samples=samples, seed=seed),
        sigma_min=_quantiles(found.sigma_min),
        sigma_max=_quantiles(found.sigma_max),
        status=found.status,
        two_sample_w2=compared,
        floor=floor,
    )


def _quantiles(values: torch.Tensor) -> tuple[float, float, float]:
    low, middle, high = values.quantile(torch.tensor(LEVELS, dtype=values.dtype)).tolist()
    return low, middle, high
