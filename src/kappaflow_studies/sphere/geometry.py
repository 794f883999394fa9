"""Uniform points on a sphere: caps, codes and nearest neighbours."""

from math import exp, lgamma, sqrt

import numpy as np
from scipy.special import betainc

from kappaflow._checks import finite_float, positive_float, positive_int
from kappaflow.errors import ArgumentError

COUNTED_UP_TO = 1e300  # a code of more points is called one of so many: fewer is always true


def cap_share(cosine: float, features: int) -> float:
    r"""Returns how much of the sphere lies within a cap: :math:`P(\langle u, e \rangle \ge s)`.

    For s >= 0 it is :math:`\tfrac12 I_{1 - s^2}(\tfrac{d-1}{2}, \tfrac12)`, with the regularised
    incomplete beta function I.

    Args:
        cosine: s, of the angle from the middle of the cap to its rim, from -1 to 1.
        features: d, of the space around the sphere, at least 2.

    Returns:
        A share from 0 to 1.

    Raises:
        ArgumentError: The cosine is no cosine, or there are fewer than 2 features.

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
    r"""Returns how many points of a sphere there are at least whose cosines are at most s.

    Take points greedily until no further one fits. Then the caps of cosine s around them cover
    the sphere, so that there are at least 1 / `cap_share` of them.

    Args:
        cosine: s, which no pair exceeds.
        features: d, of the space around the sphere, at least 2.

    Returns:
        A whole number, as a float: it grows exponentially with d.

    Raises:
        ArgumentError: The cosine is no cosine, or there are fewer than 2 features.

    Source:
        Chabauty 1953, Shannon 1959, Wyner 1965: the Gilbert-Varshamov bound of the sphere.

    Example:
        >>> code_size(0.5, 3), code_size(0.5, 32)
        (4.0, 656.0)
    """
    share = cap_share(cosine, features)
    return float(np.floor(min(1 / share, COUNTED_UP_TO))) if share else COUNTED_UP_TO


def nearest_distance(points: int, features: int, *, radius: float = 1.0) -> float:
    r"""Returns the expected distance from a point of a sphere to the nearest of k uniform ones.

    The integral of :math:`(1 - P(|u - e| \le t))^k` over t from 0 to 2, times the radius.

    Args:
        points: k.
        features: d, of the space around the sphere, at least 2.
        radius: Of the sphere.

    Returns:
        The expectation.

    Raises:
        ArgumentError: There are no points, fewer than 2 features, or no radius.

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
        features: d.

    Returns:
        A number just below the square root of d.

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
    """Returns the number of features of a space in which a sphere is connected, or complains."""
    count = positive_int("features", features)
    if count < 2:
        raise ArgumentError("'features' should be at least 2: the sphere of a line is two points.")
    return count
