"""Lower bounds on depth, by counting parameters and by Lipschitz constants."""

from dataclasses import dataclass
from math import floor, inf, log

import numpy as np
from scipy.special import ndtr, ndtri
from scipy.stats import chi

from kappaflow.errors import ArgumentError
from kappaflow_studies.sphere.mixture import SphereMixture
from kappaflow_studies.sphere.packing import Packing, gaussian_norm

MAX_DEPTH = 2**20
BITS = 32  # of a parameter


@dataclass(frozen=True)
class LayerClass:
    r"""A class of layers G(theta, x) of R^d with p parameters, described by its constants.

    Parameters are in [-1, 1]^p, and G(0, 0) = 0. With the largest absolute entry as their norm,

    .. math:: |G(\theta, x) - G(\theta, y)| \le L |x - y|, \quad
              |G(\theta, x) - G(\eta, x)| \le \Lambda (1 + |x|)\, |\theta - \eta| .
    """

    parameters: int  #: number of parameters of one layer, p
    lipschitz: float  #: Lipschitz constant of one layer, L, at least 1
    parameter_lipschitz: float  #: Lipschitz constant in the parameters, Lambda
    whole_lipschitz: float = inf  #: bound W on that of any consecutive layers, at least 1

    def log_sensitivity(self, layers: int, features: int) -> float:
        r"""Returns log S: the output moves by at most S times a change of the parameters.

        For m layers and a standard Gaussian z with d features,

        .. math:: S = \Lambda \sum_{l=1}^m T_{m-l} (1 + n_{l-1}), \quad
                  n_l = T_l E |z| + \Lambda (T_0 + \dots + T_{l-1}), \quad T_i = \min(L^i, W) .
        """
        log_t = np.minimum(np.arange(layers) * log(self.lipschitz), log(self.whole_lipschitz))
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
        fineness = log(2 / within)
        each = np.logaddexp(0.0, self.log_sensitivity(layers, features) + fineness)
        return layers * self.parameters * float(each)


def min_depth(family: Packing, flows: LayerClass, features: int) -> int:
    """Returns the number of layers that flows need to approximate every mixture of a family.

    Let the family have N mixtures with W1 of at least D between any two, and the flows of m layers
    a net of fewer than N flows within D/4. Then two mixtures share their nearest flow of the net,
    so one of them is missed by D/4. The depth is of the order of k d / p up to a logarithm if the
    whole flow is Lipschitz, and of its root if only the layers are. The bound counts parameters
    only: a layer with k d parameters may compute the same as the generator. (Koehler, Mehta,
    Risteski 2021; our own proof is in docs/theory/depth-bound.md.)

    Raises:
        ArgumentError: The depth exceeds 2^20.
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
    return enough


def min_parameters(family: Packing) -> float:
    """Returns the number of parameters that a flow needs to approximate every mixture of a family.

    n numbers of b bits describe at most :math:`2^{b n}` flows of any kind. With fewer flows than
    mixtures, two mixtures share their nearest flow, and one is missed by `family.distance` / 2.
    """
    return family.log_count / (BITS * log(2))


MARGIN_COUNT = 200  # number of tried margins


def volume_bound(mixture: SphereMixture, lipschitz: float) -> float:
    r"""Returns a lower bound on the total variation from a flow with a bounded Lipschitz constant.

    A flow, data to latent, of constant L (latent units per data unit; the supremum of
    :math:`|\det J|^{1/d}` is enough) cannot concentrate enough. With F the chi distribution with d
    degrees of freedom,

    .. math:: TV \ge \sup_R F(R / \sigma) - F(L k^{1/d} R) ,

    above 0 for :math:`L k^{1/d} \sigma < 1`, and attained for k = 1 (Verine, Negrevergne,
    Chevaleyre, Rossi 2022; the exact mass and the union of balls are ours).
    """
    d, sigma = mixture.features, mixture.sigma
    scale = lipschitz * mixture.components ** (1 / d)
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
    """
    k = mixture.components
    if k == 1:
        return 0.0
    means = mixture.means.numpy()
    distances = np.sort(np.linalg.norm(means[:, None] - means, axis=-1), axis=1)[:, 1:]
    best = 0.0
    for margin in np.linspace(0, distances.max(), MARGIN_COUNT + 1)[1:]:
        outside = ndtr((margin - distances) / (2 * mixture.sigma)).sum(axis=1)
        inside = float(np.maximum(0, 1 - outside).mean())
        best = max(best, inside - most_in_cells(k, margin / lipschitz))
    return best


def most_in_cells(cells: int, apart: float) -> float:
    """Returns the largest Gaussian mass of sets of mass at most 1/k with a given distance."""
    cell_mass = float(ndtr(ndtri(1 / cells) + apart / 2))
    full = floor(1 / cell_mass)
    rest = float(ndtr(ndtri(max(0.0, 1 - full * cell_mass)) - apart / 2))
    return full / cells + rest


def transport_divergence(wasserstein: float, constant: float) -> float:
    r"""Returns a lower bound on KL(Q | P), in nats, from the distance W_1(P, Q).

    If P satisfies :math:`E\, e^{s (f - E f)} \le e^{C s^2 / 2}` for each 1-Lipschitz f, then
    :math:`KL(Q | P) \ge W_1^2 / 2 C`. A mixture on the sphere has :math:`C = 1 + \sigma^2`, the
    image of a standard Gaussian under an L-Lipschitz map :math:`C = L^2`. (Bobkov, Götze 1999; the
    constant of the mixture is ours, by Hoeffding's lemma.)
    """
    return wasserstein**2 / (2 * constant)
