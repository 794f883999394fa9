"""Wasserstein distances between sphere mixtures: bounds for two, and a prediction for many."""

from dataclasses import dataclass
from math import log, sqrt

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from kappaflow._checks import positive_float, positive_int
from kappaflow.errors import ArgumentError
from kappaflow_studies.sphere.mixture import SphereMixture
from kappaflow_studies.sphere.packing import gaussian_norm, nearest_distance, sphere_features


def wasserstein_bounds(one: SphereMixture, other: SphereMixture) -> tuple[float, float]:
    r"""Returns a lower and an upper bound on :math:`W_1` between two mixtures of one k and sigma.

    Let w be :math:`W_1` between the means alone (the best matching), which is computed exactly.
    The same noise can be added to both ends of the matching, and the mean distance of a component
    from its mean is :math:`\sigma E |z|`:

    .. math:: w - 2 \sigma E |z| \;\le\; W_1 \;\le\; w .

    A second lower bound does not grow with d. Let f(x) = max <x, u_i> over the directions u_i of
    the means of `one`. It is 1-Lipschitz. Its average is at least r over `one`, and over `other`
    at most the average of :math:`\max_i \langle \nu_j, u_i \rangle` plus
    :math:`\sigma \sqrt{2 \log k}`.

    Args:
        one: A mixture.
        other: A mixture with the same number of components and features, and the same sigma.

    Returns:
        The largest lower bound (0, the first, and the second with either mixture as `one`), and w.

    Raises:
        ArgumentError: The mixtures differ in more than their means.

    Source:
        Ours; Kantorovich's duality.

    Example:
        >>> one, other = (SphereMixture.random(64, 32, sigma=0.02, seed=seed) for seed in (0, 1))
        >>> [round(bound, 3) for bound in wasserstein_bounds(one, other)]
        [0.885, 1.109]
    """
    for name in ("components", "features", "sigma"):
        if getattr(one, name) != getattr(other, name):
            raise ArgumentError(
                f"'other' should have the same {name}, got {getattr(other, name)} and "
                f"{getattr(one, name)}."
            )
    matched = matching_distance(one.means, other.means)
    noise = one.sigma * sqrt(2 * log(one.components))
    cosines = one.means @ other.means.T
    lower = max(
        0.0,
        matched - 2 * one.sigma * gaussian_norm(one.features),
        one.radius - cosines.max(dim=0).values.mean().item() / one.radius - noise,
        other.radius - cosines.max(dim=1).values.mean().item() / other.radius - noise,
    )
    return min(lower, matched), matched


def matching_distance(one: Tensor, other: Tensor) -> float:
    """Returns the mean distance of the best matching of k points (k, d) with k other points."""
    costs = torch.cdist(one, other, compute_mode="donot_use_mm_for_euclid_dist").numpy()
    rows, columns = linear_sum_assignment(costs)
    return float(costs[rows, columns].mean())


@dataclass(frozen=True)
class RandomFamily:
    """A prediction for the distances between tuples of k random means.

    Args:
        nearest: Lower bound on the mean distance of a pair of tuples.
        spread: Allowed deviation of the smallest distance of all pairs below `nearest`.
        confidence: Probability that no distance deviates more.
    """

    nearest: float
    spread: float
    confidence: float

    @property
    def smallest(self) -> float:
        """Returns a lower bound on the smallest distance, with this confidence."""
        return max(0.0, self.nearest - self.spread)


def random_family(
    components: int,
    features: int,
    tuples: int,
    *,
    radius: float = 1.0,
    confidence: float = 0.95,
) -> RandomFamily:
    r"""Returns a prediction of the smallest :math:`W_1` between n random tuples of k means.

    A matching takes each mean to a mean of the other tuple, not closer than the nearest. So the
    expectation of :math:`W_1` is at least `nearest_distance`. As a function of 2k points of the
    sphere, :math:`W_1` changes by at most :math:`\sqrt{2/k}` times their joint movement, and a
    product of spheres of radius r has the logarithmic Sobolev constant :math:`(d - 1) / r^2`. So
    it is below its expectation by t with probability at most
    :math:`\exp(-(d - 1) k t^2 / 4 r^2)`. For one of n (n - 1) / 2 pairs this has probability at
    most 1 - c for

    .. math:: t = r \sqrt{\frac{4 \log(n (n - 1) / (2 (1 - c)))}{(d - 1)\, k}} .

    In other words, random tuples have distances of this size up to a number of tuples of about
    :math:`\exp((d - 1) k t^2 / 8 r^2)`, with an exponent of a constant times k d.

    Args:
        components: Number of components, k.
        features: Number of features d, at least 2.
        tuples: Number of tuples n, at least 2.
        radius: Radius of the sphere, r.
        confidence: Probability c, above 0 and below 1.

    Returns:
        The prediction for the distances between the means.

    Raises:
        ArgumentError: An argument is out of range.

    Source:
        Ours; Mueller, Weissler 1982 (the constant of the sphere), Herbst's argument.

    Example:
        >>> family = random_family(64, 32, 100)
        >>> round(family.nearest, 3), round(family.spread, 3), round(family.smallest, 3)
        (1.09, 0.152, 0.938)
    """
    k, d = positive_int("components", components), sphere_features(features)
    n, r = positive_int("tuples", tuples), positive_float("radius", radius)
    if n < 2:
        raise ArgumentError(f"'tuples' should be at least 2, got {n}: a distance takes two.")
    if not 0 < confidence < 1:
        raise ArgumentError(f"'confidence' should be above 0 and below 1, got {confidence}.")
    pairs = n * (n - 1) / 2
    spread = r * sqrt(4 * log(pairs / (1 - confidence)) / ((d - 1) * k))
    return RandomFamily(nearest_distance(k, d, radius=r), spread, confidence)
