"""What a flow with bounded Lipschitz constants cannot do to a sphere mixture."""

from math import floor, log, log1p

import numpy as np
from scipy.special import ndtr, ndtri
from scipy.stats import chi

from kappaflow._checks import positive_float
from kappaflow.errors import ArgumentError
from kappaflow.theory.exact import Array
from kappaflow_studies.sphere.mixture import SphereMixture

GRID = 200  # margins that are tried


def volume_bound(mixture: SphereMixture, lipschitz: float) -> float:
    r"""Returns a lower bound on the total variation from a flow that cannot concentrate enough.

    Let f, from data to latent, have Lipschitz constant L. The k balls of radius R around the means
    hold at least :math:`F(R / \sigma)` of the mixture, F being the chi distribution with d degrees
    of freedom. Their volume is at most that of one ball of radius :math:`k^{1/d} R`, and f
    multiplies volumes by at most L^d. Of all sets of one volume a ball around the origin has most
    Gaussian mass, so the flow gives them at most :math:`F(L k^{1/d} R)`:

    .. math:: TV \ge \sup_R F(R / \sigma) - F(L k^{1/d} R) ,

    which is above 0 for :math:`L k^{1/d} \sigma < 1`, and attained for k = 1.

    Args:
        mixture: The target.
        lipschitz: L, latent units per data unit; the supremum of :math:`|\det J|^{1/d}` does too.

    Returns:
        The bound, from 0 to 1.

    Raises:
        ArgumentError: `lipschitz` is not above 0.

    Source:
        Verine, Negrevergne, Chevaleyre, Rossi 2022 bound the total variation by Lipschitz
        constants and balls; their text was not at hand. The exact mass and the union are ours.

    Example:
        >>> mixture = SphereMixture.random(16, 8, sigma=0.1)
        >>> volume_bound(mixture, 20.0), round(volume_bound(mixture, 1.0), 4)
        (0.0, 0.9996)
    """
    d, sigma = mixture.features, mixture.sigma
    scale = positive_float("lipschitz", lipschitz) * mixture.components ** (1 / d)
    if scale * sigma >= 1:
        return 0.0
    # Where the two densities in R are equal.
    square = 2 * d * -log(scale * sigma) / (1 / sigma**2 - scale**2)
    radius = square**0.5
    return float(chi.cdf(radius / sigma, d) - chi.cdf(scale * radius, d))


def tearing_bound(mixture: SphereMixture, lipschitz: float) -> float:
    r"""Returns a lower bound on the total variation from a flow that cannot tear modes apart.

    Let g, from latent to data, have Lipschitz constant L. The cell of a mean, less all that is
    within D/2 of its border to another, is D away from every other such cell, and holds at least

    .. math:: p_i = \frac1k \Bigl( 1 - \sum_{j \ne i}
              \Phi\bigl(-\tfrac{|\mu_i - \mu_j| - D}{2 \sigma}\bigr) \Bigr)_+ \le \frac1k

    of the mixture. The parts of the latent space that g maps there are h = D / L apart, so their
    neighbourhoods of width h/2 do not meet. A set of Gaussian mass a has a neighbourhood of mass
    at least :math:`G(a) = \Phi(\Phi^{-1}(a) + h/2)`. So :math:`\sum_i G(a_i) \le 1` for the masses
    :math:`a_i` that the flow gives to the cells. G is concave, so :math:`\sum_i \min(a_i, 1/k)` is
    largest where as many as possible are 1/k, namely :math:`n = \lfloor 1 / G(1/k) \rfloor`, and
    one is what remains:

    .. math:: TV \ge \sup_D \sum_i p_i - \frac nk
              - \Phi\bigl(\Phi^{-1}(1 - n G(\tfrac1k)) - \tfrac h2 \bigr) .

    Args:
        mixture: The target.
        lipschitz: L, data units per latent unit.

    Returns:
        The bound, from 0 to 1; 0 for a single component.

    Raises:
        ArgumentError: `lipschitz` is not above 0.

    Note:
        A constant that was measured at points is at most L, so that its bound is an indication.

    Source:
        Borell 1975, Sudakov, Tsirelson 1974 (the neighbourhoods); for two modes and the total
        variation Verine et al. 2022, whose text was not at hand. Many cells at once: ours.

    Example:
        >>> mixture = SphereMixture.random(16, 8, sigma=0.02)
        >>> [round(tearing_bound(mixture, constant), 3) for constant in (0.1, 1.0, 10.0)]
        [0.937, 0.466, 0.062]
    """
    constant = positive_float("lipschitz", lipschitz)
    k = mixture.components
    if k == 1:
        return 0.0
    distances = np.sort(np.linalg.norm(_pairs(mixture), axis=-1), axis=1)[:, 1:]
    best = 0.0
    for margin in np.linspace(0, distances.max(), GRID + 1)[1:]:
        outside = ndtr((margin - distances) / (2 * mixture.sigma)).sum(axis=1)
        inside = float(np.maximum(0, 1 - outside).mean())
        best = max(best, inside - most_in_cells(k, margin / constant))
    return best


def most_in_cells(cells: int, apart: float) -> float:
    """Returns how much Gaussian mass so many sets can have, 1/k each at most, if so far apart."""
    whole = float(ndtr(ndtri(1 / cells) + apart / 2))
    full = floor(1 / whole)
    rest = float(ndtr(ndtri(max(0.0, 1 - full * whole)) - apart / 2))
    return full / cells + rest


def divergence_at_least(total_variation: float) -> float:
    r"""Returns what either Kullback-Leibler divergence is at least, given the total variation.

    The larger of :math:`2 t^2` and :math:`-\log(1 - t^2)`.

    Args:
        total_variation: t, from 0 to below 1.

    Returns:
        Nats.

    Raises:
        ArgumentError: t is out of its range.

    Source:
        Pinsker; Bretagnolle, Huber 1979.

    Example:
        >>> divergence_at_least(0.0), round(divergence_at_least(0.5), 9)
        (0.0, 0.5)
    """
    t = total_variation
    if not 0 <= t < 1:
        raise ArgumentError(f"'total_variation' should be at least 0 and below 1, got {t}.")
    return max(2 * t * t, -log1p(-t * t))


def _pairs(mixture: SphereMixture) -> Array:
    """Returns the differences of all pairs of means, (k, k, d)."""
    means = mixture.means.numpy()
    return means[:, None] - means[None]
