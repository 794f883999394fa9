"""Lower bounds on depth, by counting parameters and by Lipschitz constants."""

from dataclasses import dataclass
from math import floor, inf, log, log1p

import numpy as np
from scipy.special import ndtr, ndtri
from scipy.stats import chi

from kappaflow._checks import positive_float, positive_int
from kappaflow.errors import ArgumentError
from kappaflow.theory.exact import Array
from kappaflow_studies.sphere.mixture import SphereMixture
from kappaflow_studies.sphere.packing import Packing, gaussian_norm

DEEPEST = 2**20


@dataclass(frozen=True)
class LayerClass:
    r"""Layers G(theta, x) of R^d with p parameters, as far as the counting of them has to know.

    Parameters are in [-1, 1]^p, and G(0, 0) = 0: other ranges and centres are a change of G. With
    the largest entry as the norm of parameters,

    .. math:: |G(\theta, x) - G(\theta, y)| \le L |x - y|, \qquad
              |G(\theta, x) - G(\eta, x)| \le \Lambda (1 + |x|)\, |\theta - \eta| .

    Args:
        parameters: p, of one layer.
        lipschitz: L of one layer, at least 1.
        parameter_lipschitz: Lambda.
        whole_lipschitz: What no run of consecutive layers exceeds, at least 1; without it only
            L^n is known of n layers.

    Raises:
        ArgumentError: A constant is out of its range.
    """

    parameters: int
    lipschitz: float
    parameter_lipschitz: float
    whole_lipschitz: float = inf

    def __post_init__(self) -> None:
        positive_int("parameters", self.parameters)
        positive_float("parameter_lipschitz", self.parameter_lipschitz)
        positive_float("lipschitz", self.lipschitz)
        for name in ("lipschitz", "whole_lipschitz"):
            if not getattr(self, name) >= 1:
                raise ArgumentError(f"'{name}' should be at least 1, got {getattr(self, name)}.")

    def log_sensitivity(self, layers: int, features: int) -> float:
        r"""Returns log S: changed parameters move the output by S times the largest change.

        With :math:`T_i = \min(L^i, W)` for i layers, replace the layers one after the other: the
        l-th is followed by m - l, and reads :math:`x_{l-1}`, which has
        :math:`E |x_l| \le n_l = T_l E |z| + \Lambda (T_0 + \dots + T_{l-1})`. So

        .. math:: E |g_\theta(z) - g_\eta(z)| \le S |\theta - \eta|, \qquad
                  S = \Lambda \sum_{l=1}^m T_{m-l} (1 + n_{l-1}) .

        Args:
            layers: Number of layers, m.
            features: d, of the standard Gaussian z.

        Returns:
            The logarithm; S itself grows like L^m.
        """
        m = positive_int("layers", layers)
        log_t = np.minimum(np.arange(m) * log(self.lipschitz), log(self.whole_lipschitz))
        growth = np.concatenate(([-inf], np.logaddexp.accumulate(log_t)[:-1]))
        log_n = np.logaddexp(
            log_t + log(gaussian_norm(features)), growth + log(self.parameter_lipschitz)
        )
        terms = log_t[::-1] + np.logaddexp(0.0, log_n)
        return float(np.logaddexp.reduce(terms)) + log(self.parameter_lipschitz)

    def log_net(self, layers: int, features: int, within: float) -> float:
        r"""Returns the logarithm of how many flows come within this W1 of all flows of m layers.

        Cut :math:`[-1, 1]^{m p}` into cells of edge `within` / S, and take a flow from each cell
        that has one: :math:`\lceil 2 S / \text{within} \rceil^{m p}` at most.
        """
        fineness = log(2 / positive_float("within", within))
        each = np.logaddexp(0.0, self.log_sensitivity(layers, features) + fineness)
        return layers * self.parameters * float(each)


@dataclass(frozen=True)
class DepthBound:
    """What the counting says of flows of few layers.

    Args:
        layers: Flows of fewer miss a mixture of the family: the bound on the depth.
        missed: By so much in W1, at least, whatever their parameters.
    """

    layers: int
    missed: float

    def __str__(self) -> str:
        if self.layers == 1:
            return "one layer is not too few, as far as counting can tell"
        return f"{self.layers} layers are needed to come closer than {self.missed:.3g} to all"


def min_depth(family: Packing, flows: LayerClass, features: int) -> DepthBound:
    r"""Returns how many layers it takes to come near every mixture of the family.

    Let the family have N mixtures, W1 at least D apart, and let the flows of m layers have a net
    of fewer than N flows within D/4. If each mixture were closer than D/4 to some flow, it would
    be closer than D/2 to one of the net; two mixtures would share theirs, and be closer than D. So
    one mixture is missed by D/4, and (one flow of the net for each mixture that is not) *all but
    as many as the net has are*.

    Args:
        family: From `mixture_packing`.
        flows: The layers.
        features: Number of features, d.

    Returns:
        The smallest depth at which the net is as large as the family, and what is missed before.

    Raises:
        ArgumentError: An argument is out of its range, or the depth exceeds 2^20.

    Note:
        The net has :math:`\log \le m p \log(1 + 8 S / D)`, the family a constant times k d. With a
        Lipschitz constant W of the whole, log S is of the order of log(W m d): the depth is at
        least of the order of k d / p, up to this logarithm. k d is the size of the generator that
        makes such a mixture with three layers. If only the layers are L-Lipschitz, log S is
        of the order of m log L, and the depth at least of the order of
        :math:`\sqrt{k d / (p \log L)}`. That no layer needs to be invertible here is no slip: the
        count is of parameters alone, and a layer with k d parameters may do what the generator
        does.

    Source:
        The statement is Koehler, Mehta, Risteski's, 2021 (depth of the order of k / p, for
        k = o(exp d)), whose proof and constants were not at hand. This proof is our own.

    Example:
        >>> from kappaflow_studies.sphere import mixture_packing
        >>> family = mixture_packing(1024, 64, distance=0.1)
        >>> flows = LayerClass(8, lipschitz=2.0, parameter_lipschitz=1.0, whole_lipschitz=100.0)
        >>> print(min_depth(family, flows, 64))
        32 layers are needed to come closer than 0.025 to all
    """
    within = family.distance / 4

    def too_few(layers: int) -> bool:
        return flows.log_net(layers, features, within) < family.log_count

    enough = 1
    while too_few(enough):
        if enough >= DEEPEST:
            raise ArgumentError("'family' is too large: the depth would exceed 2^20.")
        enough *= 2
    short = enough // 2
    while enough - short > 1:
        middle = (enough + short) // 2
        enough, short = (enough, middle) if too_few(middle) else (middle, short)
    return DepthBound(enough, within)


def min_parameters(family: Packing, *, bits: int = 32) -> float:
    r"""Returns how many numbers of so many bits a flow must have to come near every mixture.

    Numbers of b bits name at most :math:`2^{b n}` flows, whatever these are. If there are fewer
    than mixtures in the family, two mixtures share their nearest flow, and one of them is missed
    by half the distance of the family.

    Args:
        family: From `mixture_packing`.
        bits: Of one number.

    Returns:
        With fewer numbers than this, one mixture is missed by `family.distance` / 2. Divided by p
        it is a bound on the depth without any assumption on the layers.

    Raises:
        ArgumentError: `bits` is not at least 1.

    Source:
        Ours; the same counting without a net.

    Example:
        >>> from kappaflow_studies.sphere import mixture_packing
        >>> round(min_parameters(mixture_packing(256, 32, distance=0.1)), 1)
        21.3
    """
    return family.bits / positive_int("bits", bits)


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
