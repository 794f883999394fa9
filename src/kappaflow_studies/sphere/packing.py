"""Sets of distant points on the unit sphere, and families of mixtures around them."""

from dataclasses import dataclass
from math import exp, lgamma, log, sqrt

import numpy as np
from scipy.special import betainc, logsumexp

from kappaflow.errors import ArgumentError
from kappaflow_studies.theory.exact import Array

MAX_CODE_SIZE = 1e300  # the size of a larger code is rounded down to this number


def cap_share(cosine: Array | float, features: int) -> Array:
    r"""Returns the share of the sphere of R^d in a cap: :math:`P(\langle u, e \rangle \ge s)`.

    The square of u_1 of a uniform u is Beta(1/2, (d - 1)/2); there are at least two features.
    """
    above = 0.5 * betainc((features - 1) / 2, 0.5, np.clip(1 - np.square(cosine), 0, 1))
    return np.where(np.greater_equal(cosine, 0), above, 1 - above)


def code_size(cosine: float, features: int) -> float:
    """Returns a lower bound on the largest number of points of a sphere with cosines at most s.

    Greedily chosen points have caps that cover the sphere, so there are at least 1 / `cap_share`
    (Chabauty 1953, Shannon 1959, Wyner 1965: the Gilbert-Varshamov bound of the sphere). It is a
    whole number, as a float because it grows exponentially with d.
    """
    share = float(cap_share(cosine, features))
    return float(np.floor(min(1 / share, MAX_CODE_SIZE))) if share else MAX_CODE_SIZE


def nearest_distance(points: int, features: int) -> float:
    """Returns the expected distance from a point of a sphere to the nearest of k uniform points.

    It is the integral of :math:`P(|u - e| > t)^k` over t from 0 to 2.
    """
    nodes, weights = np.polynomial.legendre.leggauss(400)
    distance = nodes + 1  # from 0 to 2
    farther = 1 - cap_share(1 - distance**2 / 2, features)
    return float(weights @ farther**points)


def gaussian_norm(features: int) -> float:
    """Returns the mean norm of a standard Gaussian (of the chi distribution)."""
    return sqrt(2) * exp(lgamma((features + 1) / 2) - lgamma(features / 2))


@dataclass(frozen=True)
class Packing:
    """A large family of mixtures of k Gaussians that provably exists."""

    log_count: float  #: natural logarithm of a lower bound on the number of mixtures
    distance: float  #: lower bound on W1 between any two mixtures
    code: float  #: number of points of the sphere from which the means are chosen
    cosine: float  #: largest cosine between two of these points
    different: int  #: least number of the k means in which any two mixtures differ


def mixture_packing(
    components: int, features: int, *, distance: float, sigma: float = 0.05
) -> Packing:
    r"""Returns a family of mixtures of k Gaussians on a sphere, with a least distance in W1.

    The means are k of the `code_size` points with pairwise cosines of at most s. Chosen greedily,

    .. math:: N \ge \binom Mk / \sum_{j > k - a} \binom kj \binom{M - k}{k - j}

    sets differ pairwise in at least a means, and then
    :math:`W_1 \ge \frac{a}{k} (1 - s - \sigma \sqrt{2 \log k})`. Of all a and s the largest family
    is returned. The outline is from Koehler, Mehta, Risteski 2021; the constants are ours.

    Raises:
        ArgumentError: The distance is too large to prove that two such mixtures exist.
    """
    noise, families = sigma * sqrt(2 * log(components)), []
    for different in range(1, components + 1):
        cosine = 1 - (distance * components / different + noise)
        if cosine <= -1:
            continue
        code = code_size(cosine, features)
        count = _log_sets(code, components, different) if code >= components else 0.0
        if count >= log(2):  # a single mixture is no family
            families.append(Packing(count, distance, code, cosine, different))
    if not families:
        raise ArgumentError(
            f"'distance' should be smaller, got {distance}: with {components} components in "
            f"{features} features no mixtures are shown to be so far apart."
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
