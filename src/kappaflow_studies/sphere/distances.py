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


def wasserstein_bounds(first: SphereMixture, second: SphereMixture) -> tuple[float, float]:
    r"""Returns a lower and an upper bound on :math:`W_1` between two mixtures of one k and sigma.

    With w the distance of the best matching of the means, u the directions of the means of one
    mixture, and nu the means of the other, in either order,

    .. math:: \max\bigl(0,\; w - 2 \sigma E |z|,\;
              r - \mathrm{mean}_j \max_i \langle \nu_j, u_i \rangle - \sigma \sqrt{2 \log k}\bigr)
              \;\le\; W_1 \;\le\; w .

    (Ours, by Kantorovich's duality: docs/theory/depth-bound.md.)

    Raises:
        ArgumentError: The mixtures differ in more than their means.

    Example:
        >>> first, second = (SphereMixture.random(64, 32, sigma=0.02, seed=i) for i in (0, 1))
        >>> [round(bound, 3) for bound in wasserstein_bounds(first, second)]
        [0.885, 1.109]
    """
    for name in ("components", "features", "sigma"):
        if getattr(first, name) != getattr(second, name):
            raise ArgumentError(
                f"'second' should have the same {name}, got {getattr(second, name)} and "
                f"{getattr(first, name)}."
            )
    matched = matching_distance(first.means, second.means)
    noise = first.sigma * sqrt(2 * log(first.components))
    cosines = first.means @ second.means.T
    lower = max(
        0.0,
        matched - 2 * first.sigma * gaussian_norm(first.features),
        first.radius - cosines.max(dim=0).values.mean().item() / first.radius - noise,
        second.radius - cosines.max(dim=1).values.mean().item() / second.radius - noise,
    )
    return min(lower, matched), matched


def matching_distance(first: Tensor, second: Tensor) -> float:
    """Returns the mean distance of the best matching of k points (k, d) with k other points."""
    costs = torch.cdist(first, second, compute_mode="donot_use_mm_for_euclid_dist").numpy()
    rows, columns = linear_sum_assignment(costs)
    return float(costs[rows, columns].mean())


@dataclass(frozen=True)
class RandomFamily:
    """A prediction for the distances between tuples of k random means."""

    nearest: float  #: lower bound on the mean distance of a pair of tuples
    spread: float  #: allowed deviation of the smallest distance of all pairs below it
    confidence: float  #: probability that no distance deviates more

    @property
    def smallest(self) -> float:
        """Returns a lower bound on the smallest distance, with this confidence."""
        return max(0.0, self.nearest - self.spread)


def random_family(
    components: int, features: int, tuples: int, *, radius: float = 1.0, confidence: float = 0.95
) -> RandomFamily:
    r"""Returns a prediction of the smallest :math:`W_1` between n random tuples of k means.

    Its expectation for a pair is at least `nearest_distance`, and with probability c no pair of
    the n (n - 1) / 2 is closer than this less

    .. math:: t = r \sqrt{\frac{4 \log(n (n - 1) / (2 (1 - c)))}{(d - 1)\, k}} .

    (Ours; Mueller, Weissler 1982 for the constant of the sphere, Herbst's argument.)

    Raises:
        ArgumentError: An argument is out of range.

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
