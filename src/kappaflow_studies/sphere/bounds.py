"""Lower bounds on depth, by counting parameters and by Lipschitz constants."""

from dataclasses import dataclass
from math import floor, inf, log, log1p

import numpy as np
from scipy.special import ndtr, ndtri
from scipy.stats import chi

from kappaflow._checks import positive_float, positive_int
from kappaflow.errors import ArgumentError
from kappaflow_studies.sphere.mixture import SphereMixture
from kappaflow_studies.sphere.packing import Packing, gaussian_norm

MAX_DEPTH = 2**20


@dataclass(frozen=True)
class LayerClass:
    r"""A class of layers G(theta, x) of R^d with p parameters, described by its constants.

    Parameters are in [-1, 1]^p, and G(0, 0) = 0. With the largest absolute entry as their norm,

    .. math:: |G(\theta, x) - G(\theta, y)| \le L |x - y|, \quad
              |G(\theta, x) - G(\eta, x)| \le \Lambda (1 + |x|)\, |\theta - \eta| .

    Raises:
        ArgumentError: A constant is out of range.
    """

    parameters: int  #: number of parameters of one layer, p
    lipschitz: float  #: Lipschitz constant of one layer, L, at least 1
    parameter_lipschitz: float  #: Lipschitz constant in the parameters, Lambda
    whole_lipschitz: float = inf  #: bound W on that of any consecutive layers, at least 1

    def __post_init__(self) -> None:
        positive_int("parameters", self.parameters)
        positive_float("parameter_lipschitz", self.parameter_lipschitz)
        positive_float("lipschitz", self.lipschitz)
        for name in ("lipschitz", "whole_lipschitz"):
            if not getattr(self, name) >= 1:
                raise ArgumentError(f"'{name}' should be at least 1, got {getattr(self, name)}.")

    def log_sensitivity(self, layers: int, features: int) -> float:
        r"""Returns log S: the output moves by at most S times a change of the parameters.

        For m layers and a standard Gaussian z with d features,

        .. math:: S = \Lambda \sum_{l=1}^m T_{m-l} (1 + n_{l-1}), \quad
                  n_l = T_l E |z| + \Lambda (T_0 + \dots + T_{l-1}), \quad T_i = \min(L^i, W) .
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

        One flow from each cell of edge `within` / S suffices: :math:`\lceil 2 S / w \rceil^{m p}`.
        """
        fineness = log(2 / positive_float("within", within))
        each = np.logaddexp(0.0, self.log_sensitivity(layers, features) + fineness)
        return layers * self.parameters * float(each)


@dataclass(frozen=True)
class DepthBound:
    """The bound on the depth by parameter counting."""

    layers: int  #: flows with fewer layers miss some mixture of the family
    missed: float  #: distance in W1 by which they miss it at least, for any parameters

    def __str__(self) -> str:
        if self.layers == 1:
            return "one layer is not too few, as far as counting can tell"
        return f"{self.layers} layers are needed to come closer than {self.missed:.3g} to all"


def min_depth(family: Packing, flows: LayerClass, features: int) -> DepthBound:
    """Returns the number of layers that flows need to approximate every mixture of a family.

    Let the family have N mixtures with W1 of at least D between any two, and the flows of m layers
    a net of fewer than N flows within D/4. Then two mixtures share their nearest flow of the net,
    so one of them is missed by D/4. The depth is of the order of k d / p up to a logarithm if the
    whole flow is Lipschitz, and of its root if only the layers are. The bound counts parameters
    only: a layer with k d parameters may compute the same as the generator.

    Raises:
        ArgumentError: An argument is out of range, or the depth exceeds 2^20.

    Source:
        Koehler, Mehta, Risteski 2021; our own proof is in docs/theory/depth-bound.md.

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
        if enough >= MAX_DEPTH:
            raise ArgumentError("'family' is too large: the depth would exceed 2^20.")
        enough *= 2
    short = enough // 2
    while enough - short > 1:
        middle = (enough + short) // 2
        enough, short = (enough, middle) if too_few(middle) else (middle, short)
    return DepthBound(enough, within)


def min_parameters(family: Packing, *, bits: int = 32) -> float:
    """Returns the number of parameters that a flow needs to approximate every mixture of a family.

    n numbers of b bits describe at most :math:`2^{b n}` flows of any kind. With fewer flows than
    mixtures, two mixtures share their nearest flow, and one is missed by `family.distance` / 2.

    Raises:
        ArgumentError: `bits` is not at least 1.

    Example:
        >>> from kappaflow_studies.sphere import mixture_packing
        >>> round(min_parameters(mixture_packing(256, 32, distance=0.1)), 1)
        21.3
    """
    return family.bits / positive_int("bits", bits)


MARGIN_COUNT = 200  # number of tried margins


def volume_bound(mixture: SphereMixture, lipschitz: float) -> float:
    r"""Returns a lower bound on the total variation from a flow with a bounded Lipschitz constant.

    A flow, data to latent, of constant L (latent units per data unit; the supremum of
    :math:`|\det J|^{1/d}` is enough) cannot concentrate enough. With F the chi distribution with d
    degrees of freedom,

    .. math:: TV \ge \sup_R F(R / \sigma) - F(L k^{1/d} R) ,

    above 0 for :math:`L k^{1/d} \sigma < 1`, and attained for k = 1 (Verine, Negrevergne,
    Chevaleyre, Rossi 2022; the exact mass and the union of balls are ours).

    Raises:
        ArgumentError: `lipschitz` is not above 0.

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

    Let g, latent to data, have the Lipschitz constant L (data units per latent unit; measured at
    points it is at most the true one, and the bound an indication), and h = D / L. The points of
    the cell of a mean further than D/2 from its border have at least the mass

    .. math:: p_i = \frac1k \Bigl( 1 - \sum_{j \ne i}
              \Phi\bigl(-\tfrac{|\mu_i - \mu_j| - D}{2 \sigma}\bigr) \Bigr)_+ .

    With :math:`G(a) = \Phi(\Phi^{-1}(a) + h/2)` and :math:`n = \lfloor 1 / G(1/k) \rfloor`,

    .. math:: TV \ge \sup_D \sum_i p_i - \frac nk
              - \Phi\bigl(\Phi^{-1}(1 - n G(\tfrac1k)) - \tfrac h2 \bigr) .

    Borell 1975, Sudakov, Tsirelson 1974; Verine et al. 2022 for two modes; several are ours.

    Raises:
        ArgumentError: `lipschitz` is not above 0.

    Example:
        >>> mixture = SphereMixture.random(16, 8, sigma=0.02)
        >>> [round(tearing_bound(mixture, constant), 3) for constant in (0.1, 1.0, 10.0)]
        [0.937, 0.466, 0.062]
    """
    constant = positive_float("lipschitz", lipschitz)
    k = mixture.components
    if k == 1:
        return 0.0
    means = mixture.means.numpy()
    distances = np.sort(np.linalg.norm(means[:, None] - means, axis=-1), axis=1)[:, 1:]
    best = 0.0
    for margin in np.linspace(0, distances.max(), MARGIN_COUNT + 1)[1:]:
        outside = ndtr((margin - distances) / (2 * mixture.sigma)).sum(axis=1)
        inside = float(np.maximum(0, 1 - outside).mean())
        best = max(best, inside - most_in_cells(k, margin / constant))
    return best


def most_in_cells(cells: int, apart: float) -> float:
    """Returns the largest Gaussian mass of sets of mass at most 1/k with a given distance."""
    cell_mass = float(ndtr(ndtri(1 / cells) + apart / 2))
    full = floor(1 / cell_mass)
    rest = float(ndtr(ndtri(max(0.0, 1 - full * cell_mass)) - apart / 2))
    return full / cells + rest


def divergence_at_least(total_variation: float) -> float:
    r"""Returns a lower bound on either KL divergence, in nats, from the total variation t.

    It is the larger of :math:`2 t^2` and :math:`-\log(1 - t^2)` (Pinsker; Bretagnolle, Huber
    1979).

    Raises:
        ArgumentError: t is not at least 0 and below 1.

    Example:
        >>> divergence_at_least(0.0), round(divergence_at_least(0.5), 9)
        (0.0, 0.5)
    """
    t = total_variation
    if not 0 <= t < 1:
        raise ArgumentError(f"'total_variation' should be at least 0 and below 1, got {t}.")
    return max(2 * t * t, -log1p(-t * t))


def transport_divergence(wasserstein: float, constant: float) -> float:
    r"""Returns a lower bound on KL(Q | P), in nats, from the distance W_1(P, Q).

    If P satisfies :math:`E\, e^{s (f - E f)} \le e^{C s^2 / 2}` for each 1-Lipschitz f, then
    :math:`KL(Q | P) \ge W_1^2 / 2 C`. A mixture on a sphere has :math:`C = r^2 + \sigma^2`
    (`SphereMixture.transport_constant`), and the image of a standard Gaussian under an L-Lipschitz
    map has :math:`C = L^2`. So a flow that is W_1 from a mixture is far in both divergences.

    Args:
        wasserstein: The distance, at least 0.
        constant: The constant C, above 0.

    Raises:
        ArgumentError: An argument is out of range.

    Source:
        Bobkov, Götze 1999; the constant of the mixture is ours (Hoeffding's lemma).

    Example:
        >>> transport_divergence(0.5, 1.0)  # N(0.5, 1) and N(0, 1): equality
        0.125
    """
    if wasserstein != 0:
        positive_float("wasserstein", wasserstein)
    return wasserstein**2 / (2 * positive_float("constant", constant))
