"""Sets of distant points on a sphere, and families of mixtures around them."""

from dataclasses import dataclass
from math import exp, lgamma, log, sqrt

import numpy as np
from scipy.special import betainc, logsumexp

from kappaflow._checks import finite_float, positive_float, positive_int
from kappaflow.errors import ArgumentError
from kappaflow_studies.theory.exact import Array

MAX_CODE_SIZE = 1e300  # the size of a larger code is rounded down to this number


def cap_share(cosine: float, features: int) -> float:
    r"""Returns the share of the sphere of R^d in a cap: :math:`P(\langle u, e \rangle \ge s)`.

    For s >= 0 it is :math:`\tfrac12 I_{1 - s^2}(\tfrac{d-1}{2}, \tfrac12)`, with the regularized
    incomplete beta function I, since u_1^2 of a uniform u is Beta(1/2, (d - 1)/2).

    Raises:
        ArgumentError: The cosine s is not from -1 to 1, or there are fewer than 2 features.

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
    """Returns a lower bound on the largest number of points of a sphere with cosines at most s.

    Greedily chosen points have caps that cover the sphere, so there are at least 1 / `cap_share`
    (Chabauty 1953, Shannon 1959, Wyner 1965: the Gilbert-Varshamov bound of the sphere). It is a
    whole number, as a float because it grows exponentially with d.

    Raises:
        ArgumentError: The cosine s is not from -1 to 1, or there are fewer than 2 features.

    Example:
        >>> code_size(0.5, 3), code_size(0.5, 32)
        (4.0, 656.0)
    """
    share = cap_share(cosine, features)
    return float(np.floor(min(1 / share, MAX_CODE_SIZE))) if share else MAX_CODE_SIZE


def nearest_distance(points: int, features: int, *, radius: float = 1.0) -> float:
    """Returns the expected distance from a point of a sphere to the nearest of k uniform points.

    It is the integral of :math:`P(|u - e| > t)^k` over t from 0 to 2, times the radius.

    Raises:
        ArgumentError: There are no points, fewer than 2 features, or the radius is not above 0.

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
    r"""Returns the mean norm of a standard Gaussian in d dimensions (of the chi distribution).

    It is :math:`\sqrt 2\, \Gamma(\tfrac{d+1}2) / \Gamma(\tfrac d2)`, just below :math:`\sqrt d`.

    Raises:
        ArgumentError: There are no features.

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
    """A large family of mixtures of k Gaussians that provably exists."""

    log_count: float  #: natural logarithm of a lower bound on the number of mixtures
    distance: float  #: lower bound on W1 between any two mixtures
    code: float  #: number of points of the sphere from which the means are chosen
    cosine: float  #: largest cosine between two of these points
    different: int  #: least number of the k means in which any two mixtures differ

    @property
    def bits(self) -> float:
        """Returns the number of bits needed to name a mixture of the family."""
        return self.log_count / log(2)


def mixture_packing(
    components: int, features: int, *, distance: float, radius: float = 1.0, sigma: float = 0.05
) -> Packing:
    r"""Returns a family of mixtures of k Gaussians on a sphere, with a least distance in W1.

    The means are k of the `code_size` points with pairwise cosines of at most s. Chosen greedily,

    .. math:: N \ge \binom Mk / \sum_{j > k - a} \binom kj \binom{M - k}{k - j}

    sets differ pairwise in at least a means, and then

    .. math:: W_1 \ge \frac{a}{k} \left( r (1 - s) - \sigma \sqrt{2 \log k} \right).

    log N is a constant times k d as long as log k is small compared with d. There are d features,
    at least 2, and a and s are chosen to make the family largest. The outline is from Koehler,
    Mehta, Risteski 2021; the constants are ours.

    Raises:
        ArgumentError: An argument is out of range, or the distance is too large for this argument
            to prove that two such mixtures exist.

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
    """Returns log N, at least 0, because one set always exists."""
    shared = np.arange(k - different + 1, k + 1)
    excluded = _log_binomials(k, k)[shared] + _log_binomials(code - k, k)[k - shared]
    return max(0.0, float(_log_binomials(code, k)[k] - logsumexp(excluded)))


def _log_binomials(n: float, most: int) -> Array:
    """Returns log C(n, j) for j = 0, ..., most; -inf if j is larger than n."""
    j = np.arange(most)
    with np.errstate(divide="ignore"):
        factors = np.log(np.maximum(n - j, 0)) - np.log(j + 1)
    return np.concatenate(([0.0], np.cumsum(factors)))
