"""Sets of distant points on a sphere, and families of mixtures around them."""

from dataclasses import dataclass
from math import exp, lgamma, log, sqrt

import numpy as np
from scipy.special import betainc, logsumexp

from kappaflow._checks import finite_float, positive_float, positive_int
from kappaflow.errors import ArgumentError
from kappaflow.theory.exact import Array

COUNTED_UP_TO = 1e300  # the size of a larger code is rounded down to this number


def cap_share(cosine: float, features: int) -> float:
    r"""Returns the share of a sphere in a cap: :math:`P(\langle u, e \rangle \ge s)`.

    For s >= 0 it is :math:`\tfrac12 I_{1 - s^2}(\tfrac{d-1}{2}, \tfrac12)`, with the regularized
    incomplete beta function I.

    Args:
        cosine: Cosine s of the angle between the middle of the cap and its rim, from -1 to 1.
        features: Dimension d of the space around the sphere, at least 2.

    Returns:
        The share, from 0 to 1.

    Raises:
        ArgumentError: The cosine is out of range, or there are fewer than 2 features.

    Source:
        u_1^2 of a uniform u has the distribution Beta(1/2, (d - 1)/2).

    Example:
        >>> round(cap_share(0.5, 3), 12)  # Archimedes: the height, 1 - s, over 2
        0.25
    """
    s, d = finite_float("cosine", cosine), sphere_features(features)
    if abs(s) > 1:
        raise ArgumentError(f"'cosine' should be from -1 to 1, got {s}.")
    above = 0.5 * float(betainc((d - 1) / 2, 0.5, 1 - s * s))
    return above if s >= 0 else 1 - above


def code_size(cosine: float, features: int) -> float:
    r"""Returns a lower bound on the largest number of points of a sphere with cosines at most s.

    Choose points greedily until no further one fits. Then the caps of cosine s around them cover
    the sphere, so there are at least 1 / `cap_share` points.

    Args:
        cosine: Largest cosine s between two points.
        features: Dimension d of the space around the sphere, at least 2.

    Returns:
        A whole number, as a float because it grows exponentially with d.

    Raises:
        ArgumentError: The cosine is out of range, or there are fewer than 2 features.

    Source:
        Chabauty 1953, Shannon 1959, Wyner 1965: the Gilbert-Varshamov bound of the sphere.

    Example:
        >>> code_size(0.5, 3), code_size(0.5, 32)
        (4.0, 656.0)
    """
    share = cap_share(cosine, features)
    return float(np.floor(min(1 / share, COUNTED_UP_TO))) if share else COUNTED_UP_TO


def nearest_distance(points: int, features: int, *, radius: float = 1.0) -> float:
    r"""Returns the expected distance from a point of a sphere to the nearest of k uniform points.

    It is the integral of :math:`(1 - P(|u - e| \le t))^k` over t from 0 to 2, times the radius.

    Args:
        points: Number of points, k.
        features: Dimension d of the space around the sphere, at least 2.
        radius: Radius of the sphere.

    Returns:
        The expected distance, in the unit of the radius.

    Raises:
        ArgumentError: There are no points, fewer than 2 features, or the radius is not above 0.

    Source:
        Ours; a tail integral.

    Example:
        >>> round(nearest_distance(1, 3), 9)  # the mean distance of two points of a sphere is 4/3
        1.333333333
        >>> round(nearest_distance(256, 32), 3)
        1.02
    """
    k, d = positive_int("points", points), sphere_features(features)
    r = positive_float("radius", radius)
    nodes, weights = np.polynomial.legendre.leggauss(400)
    distance = nodes + 1  # from 0 to 2
    cosine = 1 - distance * distance / 2
    above = 0.5 * betainc((d - 1) / 2, 0.5, np.clip(1 - cosine**2, 0, 1))
    farther = np.where(cosine >= 0, 1 - above, above)
    return r * float(weights @ farther**k)


def gaussian_norm(features: int) -> float:
    r"""Returns the mean norm of a standard Gaussian in d dimensions.

    It is :math:`\sqrt 2\, \Gamma(\tfrac{d+1}2) / \Gamma(\tfrac d2)`.

    Args:
        features: Number of features, d.

    Returns:
        The mean norm, just below the square root of d.

    Raises:
        ArgumentError: There are no features.

    Source:
        The mean of the chi distribution.

    Example:
        >>> round(gaussian_norm(1), 6), round(gaussian_norm(100), 3)
        (0.797885, 9.975)
    """
    d = positive_int("features", features)
    return sqrt(2) * exp(lgamma((d + 1) / 2) - lgamma(d / 2))


def sphere_features(features: object) -> int:
    """Returns the number of features, at least 2; raises ArgumentError for other values."""
    count = positive_int("features", features)
    if count < 2:
        raise ArgumentError("'features' should be at least 2: the sphere of a line is two points.")
    return count


@dataclass(frozen=True)
class Packing:
    """A large family of mixtures of k Gaussians that provably exists.

    Args:
        log_count: Natural logarithm of a lower bound on the number of mixtures.
        distance: Lower bound on W1 between any two mixtures.
        code: Number of points of the sphere from which the means are chosen.
        cosine: Largest cosine between two of these points.
        different: Least number of the k means in which any two mixtures differ.
    """

    log_count: float
    distance: float
    code: float
    cosine: float
    different: int

    @property
    def bits(self) -> float:
        """Returns the number of bits needed to name a mixture of the family."""
        return self.log_count / log(2)


def mixture_packing(
    components: int,
    features: int,
    *,
    distance: float,
    radius: float = 1.0,
    sigma: float = 0.05,
) -> Packing:
    r"""Returns a family of mixtures of k Gaussians on a sphere, with a least distance in W1.

    The argument has three steps, with the best choice of a and s:

    1. *Points.* There are M >= 1 / `cap_share` points of the sphere of radius r with pairwise
       cosines of at most s (`code_size`).
    2. *Sets.* Choose k-subsets of these points greedily, each different from all earlier ones in
       at least a points. A subset excludes those that share more than k - a points with it, so the
       number of subsets is
       :math:`N \ge \binom Mk / \sum_{j > k - a} \binom kj \binom{M - k}{k - j}`.
    3. *Mixtures.* Let A and B be two such sets, and u_i the directions of the a' >= a means that
       only A has. Then f(x) = max <x, u_i> is 1-Lipschitz. The common means of A and B cancel.
       Around a mean of A alone E f >= r; around a mean of B alone
       E f <= r s + sigma E max <z, u_i>. So

       .. math:: W_1 \ge \frac{a}{k} \left( r (1 - s) - \sigma \sqrt{2 \log k} \right).

    With a / k and s fixed, log N is about (k - a) log(M / k) minus a multiple of k. Since log M is
    a multiple of d, this is a constant times k d as long as log k is small compared with d.

    Args:
        components: Number of components, k.
        features: Number of features d, at least 2.
        distance: Least W1 between any two mixtures of the family, in the unit of the radius.
        radius: Radius of the sphere, r.
        sigma: Standard deviation of the components.

    Returns:
        The largest family that this argument gives.

    Raises:
        ArgumentError: An argument is out of range, or the distance is too large for this argument
            to prove that two such mixtures exist.

    Source:
        The outline (points of a sphere, Gilbert-Varshamov) is from Koehler, Mehta, Risteski 2021;
        the derivation and its constants are ours.

    Example:
        >>> family = mixture_packing(256, 32, distance=0.1)
        >>> round(family.log_count), family.different, round(family.cosine, 3)
        (472, 139, 0.649)
    """
    k, d = positive_int("components", components), sphere_features(features)
    required, r = positive_float("distance", distance), positive_float("radius", radius)
    noise = positive_float("sigma", sigma) * sqrt(2 * log(k))
    families = []
    for different in range(1, k + 1):
        cosine = 1 - (required * k / different + noise) / r
        if cosine <= -1:
            continue
        code = code_size(cosine, d)
        count = _log_sets(code, k, different) if code >= k else 0.0
        if count >= log(2):  # a single mixture is no family
            families.append(Packing(count, required, code, cosine, different))
    if not families:
        raise ArgumentError(
            f"'distance' should be smaller, got {distance}: with {k} components in {d} features, "
            f"radius {radius} and sigma {sigma} no mixtures are shown to be so far apart."
        )
    return max(families, key=lambda family: family.log_count)


def _log_sets(code: float, k: int, different: int) -> float:
    """Returns the logarithm of N in step 2, at least 0, because one set always exists."""
    shared = np.arange(k - different + 1, k + 1)
    excluded = _log_binomials(k, k)[shared] + _log_binomials(code - k, k)[k - shared]
    return max(0.0, float(_log_binomials(code, k)[k] - logsumexp(excluded)))


def _log_binomials(n: float, most: int) -> Array:
    """Returns log C(n, j) for j = 0, ..., most; -inf if j is larger than n."""
    j = np.arange(most)
    with np.errstate(divide="ignore"):
        factors = np.log(np.maximum(n - j, 0)) - np.log(j + 1)
    return np.concatenate(([0.0], np.cumsum(factors)))
