"""The error of the construction in W2, and its condition number."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from scipy.stats import linregress, t
from torch import Tensor

from kappaflow._checks import batch, natural_int, one_of, positive_int
from kappaflow.bijection import Chain, Inverse
from kappaflow.conditioning import spectrum
from kappaflow.conditioning.points import layers_of
from kappaflow.errors import ArgumentError
from kappaflow.flows import Flow
from kappaflow_studies.universal.construction import Scales, universal_flow
from kappaflow_studies.universal.targets import Target
from kappaflow_studies.universal.triangular import Cells, triangular_flow

CONFIDENCE = 0.95


@dataclass(frozen=True)
class PowerLaw:
    """The power law y = factor * x^exponent, with the 95 % confidence interval of the exponent."""

    exponent: float
    low: float
    high: float
    factor: float


def power_law(x: Sequence[float], y: Sequence[float]) -> PowerLaw:
    """Returns a power law, fitted to points by least squares of logarithms.

    The interval of the exponent treats deviations from a line as noise. For points on a curve, it
    only shows how straight the curve is.

    Raises:
        ArgumentError: A number is not positive, or there are fewer than three different x.

    Example:
        >>> round(power_law([0.5, 1.0, 2.0], [0.25, 1.0, 4.0]).exponent, 12)
        2.0
    """
    x_values, y_values = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    if x_values.ndim != 1 or x_values.shape != y_values.shape or len(set(x_values.tolist())) < 3:
        raise ArgumentError("'x' and 'y' should hold as many numbers, at least three different x.")
    if not (np.isfinite([x_values, y_values]).all() and x_values.min() > 0 and y_values.min() > 0):
        raise ArgumentError("'x' and 'y' should be positive: they are compared on log axes.")
    slope, intercept, _, _, error = map(float, linregress(np.log(x_values), np.log(y_values)))
    slack = float(t.ppf((1 + CONFIDENCE) / 2, len(x_values) - 2)) * error
    return PowerLaw(slope, slope - slack, slope + slack, math.exp(intercept))


CHUNK_SIZE = 20_000  # largest number of points in a chunk


@dataclass(frozen=True)
class TransportError:
    """An upper bound on W2 between a flow g and a target, with the same normal z for both."""

    bound: float  #: :math:`\sqrt{E |g(z) - \phi(z)|^2}`, including `unseen`
    standard_error: float  #: of the bound, from the number of samples
    unseen: float  #: bounded part of the mean square, of rare points on ramps and in tails


@torch.no_grad()
def transport_error(
    flow: Flow,
    target: Target,
    scales: Scales | Cells | None = None,
    *,
    samples: int = 100_000,
    seed: int = 0,
) -> TransportError:
    """Returns the root mean square distance between samples of flow and target for the same z.

    It bounds W2, the minimum over all couplings of the two distributions; z is one of them.

    The flow is in float64, such as `universal_flow` returns. `scales` adds the bound on its `rare`
    points. There are at least two normal samples.

    Raises:
        ArgumentError: The numbers of features differ, or `samples` is below two.

    Example:
        >>> from kappaflow_studies.universal import UniformCube, universal_flow
        >>> error = transport_error(universal_flow(UniformCube(), 0.1), UniformCube())
        >>> 0.05 < error.bound < 0.1
        True
    """
    if flow.event_shape != (target.features,):
        raise ArgumentError(
            f"'flow' should have the target's {target.features} features, got events of shape "
            f"{flow.event_shape}."
        )
    if positive_int("samples", samples) < 2:
        raise ArgumentError(f"'samples' should be at least 2, got {samples}.")
    generator = torch.Generator().manual_seed(natural_int("seed", seed))
    squares = []
    for start in range(0, samples, CHUNK_SIZE):
        shape = min(CHUNK_SIZE, samples - start), target.features
        z = torch.randn(shape, dtype=flow.dtype, generator=generator)
        missed = flow.bijection.inverse(z)[0] - target.transport(z)
        squares.append(missed.square().sum(1))
    squared_errors = torch.cat(squares)
    unseen = scales.unseen if scales is not None else 0.0
    bound = math.sqrt(squared_errors.mean().item() + unseen)
    spread = squared_errors.std().item() / math.sqrt(samples)
    return TransportError(bound, spread / (2 * bound) if bound else 0.0, unseen)


def two_sample_w2(a: Tensor, b: Tensor) -> float:
    """Returns W2 between two equally large samples (B, n) with equal weights.

    It is above zero even for two samples of one distribution: compare it with this floor. The best
    pairing is an optimal transport plan (Birkhoff). 2,000 points need about a second.

    Raises:
        ArgumentError: The shapes differ.

    Example:
        >>> two_sample_w2(torch.tensor([[0.0], [1.0]]), torch.tensor([[4.0], [3.0]]))
        3.0
    """
    a, b = batch("a", a).double(), batch("b", b).double()
    if a.dim() != 2 or a.shape != b.shape:
        raise ArgumentError(
            f"'a' and 'b' should have one shape (batch, features), got {tuple(a.shape)} and "
            f"{tuple(b.shape)}."
        )
    costs = torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist").square().numpy()
    rows, columns = linear_sum_assignment(costs)
    return math.sqrt(costs[rows, columns].mean())


def total_variation(flow: Flow, target: Target, *, samples: int = 10_000, seed: int = 0) -> float:
    """Returns the estimated distance in total variation between a flow and a target, from 0 to 1.

    This is the largest difference in the probability of an event. It is the mean of
    max(0, 1 - p / q) over samples of the target, with p the density of the flow and q that of the
    target.

    Raises:
        ArgumentError: `samples` is not positive.

    Example:
        >>> from kappaflow_studies.universal import UniformCube, triangular_flow
        >>> total_variation(triangular_flow(UniformCube(), 0.01), UniformCube()) < 0.01
        True
    """
    generator = torch.Generator().manual_seed(natural_int("seed", seed))
    z = torch.randn(
        positive_int("samples", samples), target.features, dtype=flow.dtype, generator=generator
    )
    with torch.no_grad():
        ratio = flow.log_prob(target.transport(z)) - target.log_density(z)
    return (1 - ratio.exp()).clamp(min=0).mean().item()


LEVELS = (0.05, 0.5, 0.95)
FORMS = {"any map": None, "triangular, 3": 3, "triangular, 4": 4}  # of the construction


@dataclass(frozen=True)
class Approximation:
    """Measurements of the construction for one target and one error.

    Singular values are those of dx/dz, in data units per latent unit.
    """

    scales: Scales | Cells  #: the sizes of the construction, with the allowed error
    error: TransportError  #: the bound on W2
    sigma_min: tuple[float, float, float]  #: 5 %, 50 % and 95 % quantiles of the smallest one
    sigma_max: tuple[float, float, float]  #: the same of the largest one
    status: str  #: status of the singular values
    total_variation: float  #: distance of the densities, from 0 to 1
    two_sample_w2: float | None  #: W2 between samples of flow and target, if computed
    floor: float | None  #: W2 between two samples of the target of this size


def approximate(
    target: Target,
    epsilon: float,
    *,
    form: str = "any map",
    samples: int = 100_000,
    points: int = 1000,
    draws: int = 0,
    seed: int = 0,
) -> Approximation:
    """Returns the error and the singular values of a construction for a target and an error.

    The `form` is "any map" (`universal_flow`), "triangular, 3" or "triangular, 4"
    (`triangular_flow`). The bound on W2 is from so many `samples`, the singular values (the
    smallest from the inverse) and the total variation from so many `points`, and the two-sample
    W2 from `draws`; 0 leaves it out.

    Raises:
        ArgumentError: An argument is out of range.

    Example:
        >>> from kappaflow_studies.universal import UniformCube
        >>> found = approximate(UniformCube(), 0.1, samples=10_000, points=10)
        >>> found.error.bound < 0.1, found.sigma_min[1] < 1e-5
        (True, True)
    """
    flow, scales = constructed(target, epsilon, form)
    positive_int("points", points)
    generator = torch.Generator().manual_seed(natural_int("seed", seed) + 1)
    z = torch.randn(points, target.features, dtype=torch.float64, generator=generator)
    # Inverted part by part: the inverse of the whole flow is too ill-conditioned to recover z.
    layers = reversed(layers_of(flow.bijection))
    singular_values = spectrum(Chain(Inverse(layer.bijection) for layer in layers), z)
    compared, floor = None, None
    if natural_int("draws", draws):
        generated = flow.sample(draws, generator=generator)
        first, second = (target.sample(draws, generator=generator) for _ in range(2))
        compared, floor = two_sample_w2(generated, first), two_sample_w2(first, second)
    return Approximation(
        scales=scales,
        error=transport_error(flow, target, scales, samples=samples, seed=seed),
        sigma_min=_quantiles(singular_values.sigma_min),
        sigma_max=_quantiles(singular_values.sigma_max),
        status=singular_values.status,
        total_variation=total_variation(flow, target, samples=points, seed=seed),
        two_sample_w2=compared,
        floor=floor,
    )


def constructed(target: Target, epsilon: float, form: str) -> tuple[Flow, Scales | Cells]:
    """Returns a construction and its sizes."""
    couplings = FORMS[one_of("form", form, tuple(FORMS))]
    if couplings is None:
        return universal_flow(target, epsilon), Scales.of(target, epsilon)
    return triangular_flow(target, epsilon, couplings), Cells.of(target, epsilon, couplings)


def _quantiles(values: torch.Tensor) -> tuple[float, float, float]:
    low, middle, high = values.quantile(torch.tensor(LEVELS, dtype=values.dtype)).tolist()
    return low, middle, high
