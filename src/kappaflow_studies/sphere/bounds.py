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
    r"""A class of layers G(theta, x) of R^d with p parameters, described by its constants.

    Parameters are in [-1, 1]^p, and G(0, 0) = 0; other ranges and centers are a change of G. With
    the largest absolute entry as the norm of parameters,

    .. math:: |G(\theta, x) - G(\theta, y)| \le L |x - y|, \qquad
              |G(\theta, x) - G(\eta, x)| \le \Lambda (1 + |x|)\, |\theta - \eta| .

    Args:
        parameters: Number of parameters of one layer, p.
        lipschitz: Lipschitz constant of one layer, L, at least 1.
        parameter_lipschitz: Lipschitz constant in the parameters, Lambda.
        whole_lipschitz: Upper bound W on the Lipschitz constant of any consecutive layers, at
            least 1. Without it, the bound for n layers is L^n.

    Raises:
        ArgumentError: A constant is out of range.
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
        r"""Returns log S: a change of the parameters moves the output by at most S times as much.

        With :math:`T_i = \min(L^i, W)` for i layers, replace the layers one after another. Layer l
        is followed by m - l layers, and its input is :math:`x_{l-1}`, with
        :math:`E |x_l| \le n_l = T_l E |z| + \Lambda (T_0 + \dots + T_{l-1})`. So

        .. math:: E |g_\theta(z) - g_\eta(z)| \le S |\theta - \eta|, \qquad
                  S = \Lambda \sum_{l=1}^m T_{m-l} (1 + n_{l-1}) .

        Args:
            layers: Number of layers, m.
            features: Number of features d of the standard Gaussian z.

        Returns:
            The logarithm of S; S itself grows like L^m.
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
        r"""Returns log N for N flows that come within a distance in W1 of every flow of m layers.

        Cut :math:`[-1, 1]^{m p}` into cells of edge `within` / S, and take one flow from each cell
        that has a flow: at most :math:`\lceil 2 S / \text{within} \rceil^{m p}`.
        """
        fineness = log(2 / positive_float("within", within))
        each = np.logaddexp(0.0, self.log_sensitivity(layers, features) + fineness)
        return layers * self.parameters * float(each)


@dataclass(frozen=True)
class DepthBound:
    """The bound on the depth by parameter counting.

    Args:
        layers: The bound: flows with fewer layers miss some mixture of the family.
        missed: Distance in W1 by which they miss it at least, for any parameters.
    """

    layers: int
    missed: float

    def __str__(self) -> str:
        if self.layers == 1:
            return "one layer is not too few, as far as counting can tell"
        return f"{self.layers} layers are needed to come closer than {self.missed:.3g} to all"


def min_depth(family: Packing, flows: LayerClass, features: int) -> DepthBound:
    r"""Returns the number of layers that flows need to approximate every mixture of a family.

    Let the family have N mixtures with W1 of at least D between any two, and let the flows of m
    layers have a net of fewer than N flows within D/4. If each mixture were closer than D/4 to
    some flow, it would be closer than D/2 to a flow of the net. Two mixtures would share this
    flow, and be closer than D. So one mixture is missed by D/4. In fact, the number of mixtures
    that are *not* missed is at most the size of the net.

    Args:
        family: The family, from `mixture_packing`.
        flows: The class of the layers.
        features: Number of features, d.

    Returns:
        The smallest depth at which the net is as large as the family, and the distance by which
        smaller depths miss.

    Raises:
        ArgumentError: An argument is out of range, or the depth exceeds 2^20.

    Note:
        The net has :math:`\log \le m p \log(1 + 8 S / D)`, the family a constant times k d. With a
        Lipschitz constant W of the whole flow, log S is of the order of log(W m d), and the depth
        is at least of the order of k d / p, up to this logarithm. A generator with three layers
        and k d parameters makes such a mixture. If only the layers are L-Lipschitz, log S is of
        the order of m log L, and the depth is at least of the order of
        :math:`\sqrt{k d / (p \log L)}`. The bound does not require invertible layers: it counts
        parameters only, and a layer with k d parameters may compute the same as the generator.

    Source:
        The statement is from Koehler, Mehta, Risteski 2021 (depth of the order of k / p, for
        k = o(exp d)). Their proof and constants were not available; this proof is ours.

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
    r"""Returns the number of numbers that a flow needs to approximate every mixture of a family.

    n numbers of b bits describe at most :math:`2^{b n}` flows of any kind. If these are fewer than
    the mixtures of the family, two mixtures share their nearest flow, and one of them is missed by
    half the distance of the family.

    Args:
        family: The family, from `mixture_packing`.
        bits: Bits of one number, b.

    Returns:
        The bound: with fewer numbers, a flow misses some mixture by `family.distance` / 2. Divided
        by p it is a bound on the depth without any assumption on the layers.

    Raises:
        ArgumentError: `bits` is not at least 1.

    Source:
        Ours; the same argument without a net.

    Example:
        >>> from kappaflow_studies.sphere import mixture_packing
        >>> round(min_parameters(mixture_packing(256, 32, distance=0.1)), 1)
        21.3
    """
    return family.bits / positive_int("bits", bits)


GRID = 200  # number of tried margins


def volume_bound(mixture: SphereMixture, lipschitz: float) -> float:
    r"""Returns a lower bound on the total variation from a flow with a bounded Lipschitz constant.

    The flow cannot concentrate enough. Let f, from data to latent, have the Lipschitz constant L.
    The k balls of radius R around the means have at least :math:`F(R / \sigma)` of the mass of the
    mixture, with F the chi distribution with d degrees of freedom. Their volume is at most the
    volume of one ball of radius :math:`k^{1/d} R`, and f multiplies volumes by at most L^d. Among
    all sets of one volume, a ball around the origin has the largest Gaussian mass. So the flow
    gives them at most :math:`F(L k^{1/d} R)`:

    .. math:: TV \ge \sup_R F(R / \sigma) - F(L k^{1/d} R) ,

    It is above 0 for :math:`L k^{1/d} \sigma < 1`, and attained for k = 1.

    Args:
        mixture: The target.
        lipschitz: L, latent units per data unit; the supremum of :math:`|\det J|^{1/d}` is enough.

    Returns:
        The bound, from 0 to 1.

    Raises:
        ArgumentError: `lipschitz` is not above 0.

    Source:
        Verine, Negrevergne, Chevaleyre, Rossi 2022 bound the total variation by Lipschitz
        constants and balls; their text was not available. The exact mass and the union are ours.

    Example:
        >>> mixture = SphereMixture.random(16, 8, sigma=0.1)
        >>> volume_bound(mixture, 20.0), round(volume_bound(mixture, 1.0), 4)
        (0.0, 0.9996)
    """
    d, sigma = mixture.features, mixture.sigma
    scale = positive_float("lipschitz", lipschitz) * mixture.components ** (1 / d)
    if scale * sigma >= 1:
        return 0.0
    # The radius where the two densities are equal.
    square = 2 * d * -log(scale * sigma) / (1 / sigma**2 - scale**2)
    radius = square**0.5
    return float(chi.cdf(radius / sigma, d) - chi.cdf(scale * radius, d))


def tearing_bound(mixture: SphereMixture, lipschitz: float) -> float:
    r"""Returns a lower bound on the total variation from a flow that cannot separate modes.

    Let g, from latent to data, have the Lipschitz constant L. Take the cell of each mean, without
    the points within D/2 of its border. It is D away from every other such cell, and has at least

    .. math:: p_i = \frac1k \Bigl( 1 - \sum_{j \ne i}
              \Phi\bigl(-\tfrac{|\mu_i - \mu_j| - D}{2 \sigma}\bigr) \Bigr)_+ \le \frac1k

    of the mass of the mixture. The parts of the latent space that g maps to the cells have a
    distance of at least h = D / L, so their neighborhoods of width h/2 are disjoint. A set of
    Gaussian mass a has a neighborhood of mass at least
    :math:`G(a) = \Phi(\Phi^{-1}(a) + h/2)`. So :math:`\sum_i G(a_i) \le 1` for the masses
    :math:`a_i` that the flow gives to the cells. G is concave, so :math:`\sum_i \min(a_i, 1/k)` is
    largest if as many masses as possible are 1/k, namely :math:`n = \lfloor 1 / G(1/k) \rfloor`,
    and one mass is the remainder:

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
        A constant measured at points is at most L, so its bound is only an indication.

    Source:
        Borell 1975, Sudakov, Tsirelson 1974 (the neighborhoods); Verine et al. 2022 for two modes
        and the total variation (their text was not available). Several cells together: ours.

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
    """Returns the largest Gaussian mass of sets of mass at most 1/k with a given distance."""
    whole = float(ndtr(ndtri(1 / cells) + apart / 2))
    full = floor(1 / whole)
    rest = float(ndtr(ndtri(max(0.0, 1 - full * whole)) - apart / 2))
    return full / cells + rest


def divergence_at_least(total_variation: float) -> float:
    r"""Returns a lower bound on either Kullback-Leibler divergence, from the total variation.

    It is the larger of :math:`2 t^2` and :math:`-\log(1 - t^2)`.

    Args:
        total_variation: t, from 0 to below 1.

    Returns:
        The lower bound in nats.

    Raises:
        ArgumentError: t is out of range.

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
