"""Many sphere mixtures that are pairwise far apart: the family behind the depth bound."""

from dataclasses import dataclass
from math import log, sqrt

import numpy as np
from scipy.special import logsumexp

from kappaflow._checks import positive_float, positive_int
from kappaflow.errors import ArgumentError
from kappaflow.theory.exact import Array
from kappaflow_studies.sphere.geometry import code_size, sphere_features


@dataclass(frozen=True)
class FarApart:
    """A family of mixtures of k Gaussians, as large as can be shown to exist.

    Args:
        log_count: Natural logarithm of how many mixtures there are at least.
        distance: No two are closer in W1.
        code: From so many points of the sphere all means are taken.
        cosine: No two of these points have a larger one.
        different: In so many of its k means each mixture differs from each other one, at least.
    """

    log_count: float
    distance: float
    code: float
    cosine: float
    different: int

    @property
    def bits(self) -> float:
        """Returns how many bits it takes to name one of them."""
        return self.log_count / log(2)


def mixtures_far_apart(
    components: int,
    features: int,
    *,
    distance: float,
    radius: float = 1.0,
    sigma: float = 0.05,
) -> FarApart:
    r"""Returns how many mixtures of k Gaussians on a sphere are pairwise so far apart in W1.

    Three steps, and the best choice of a and s in them:

    1. *Points.* There are M >= 1 / `cap_share` points of the sphere of radius r whose cosines are
       pairwise at most s (`code_size`).
    2. *Sets.* Of the k-subsets of these, take greedily such as differ from all taken before in at
       least a points. Each rules out those that share more than k - a with it, so that at least
       :math:`N \ge \binom Mk / \sum_{j > k - a} \binom kj \binom{M - k}{k - j}` are taken.
    3. *Mixtures.* Let A and B be two such sets, and u_i the directions of the a' >= a means that
       only A has. Then f(x) = max <x, u_i> is 1-Lipschitz. What A and B share cancels. Around a
       mean of A alone E f >= r, around one of B alone E f <= r s + sigma E max <z, u_i>, so that

       .. math:: W_1 \ge \frac{a}{k} \left( r (1 - s) - \sigma \sqrt{2 \log k} \right).

    With a / k and s fixed, log N is about (k - a) log(M / k) less a multiple of k. Since log M is
    a multiple of d, that is a constant times k d while log k is small against d.

    Args:
        components: k.
        features: d, at least 2.
        distance: W1 between any two mixtures of the family at least, in the unit of the radius.
        radius: r.
        sigma: Standard deviation of the components.

    Returns:
        The largest family that this argument gives.

    Raises:
        ArgumentError: An argument is out of its range, or the distance is out of reach for this
            argument: no two mixtures can be shown to be so far apart.

    Source:
        The outline (points of a sphere, Gilbert-Varshamov) is Koehler, Mehta, Risteski's, 2021;
        the derivation and its constants are ours.

    Example:
        >>> family = mixtures_far_apart(256, 32, distance=0.1)
        >>> round(family.log_count), family.different, round(family.cosine, 3)
        (472, 139, 0.649)
    """
    k, d = positive_int("components", components), sphere_features(features)
    wanted, r = positive_float("distance", distance), positive_float("radius", radius)
    noise = positive_float("sigma", sigma) * sqrt(2 * log(k))
    families = []
    for different in range(1, k + 1):
        cosine = 1 - (wanted * k / different + noise) / r
        if cosine <= -1:
            continue
        code = code_size(cosine, d)
        count = _log_sets(code, k, different) if code >= k else 0.0
        if count >= log(2):  # a single mixture is no family
            families.append(FarApart(count, wanted, code, cosine, different))
    if not families:
        raise ArgumentError(
            f"'distance' should be smaller, got {distance}: with {k} components in {d} features, "
            f"radius {radius} and sigma {sigma} no mixtures are shown to be so far apart."
        )
    return max(families, key=lambda family: family.log_count)


def _log_sets(code: float, k: int, different: int) -> float:
    """Returns the logarithm of N in step 2, at least 0: one set there always is."""
    shared = np.arange(k - different + 1, k + 1)
    excluded = _log_binomials(k, k)[shared] + _log_binomials(code - k, k)[k - shared]
    return max(0.0, float(_log_binomials(code, k)[k] - logsumexp(excluded)))


def _log_binomials(n: float, most: int) -> Array:
    """Returns log C(n, j) for j = 0, ..., most; -inf where j is larger than n."""
    j = np.arange(most)
    with np.errstate(divide="ignore"):
        factors = np.log(np.maximum(n - j, 0)) - np.log(j + 1)
    return np.concatenate(([0.0], np.cumsum(factors)))
