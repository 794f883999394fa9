"""Wasserstein distances between sphere mixtures: bounds for two, and a prediction for many."""

from math import log, sqrt

from kappaflow_studies.sphere.mixture import SphereMixture
from kappaflow_studies.sphere.packing import gaussian_norm, nearest_distance
from kappaflow_studies.wasserstein import wasserstein

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
