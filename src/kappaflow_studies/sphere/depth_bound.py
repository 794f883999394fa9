"""How deep flows must be to reach every sphere mixture: a family of mixtures against a net."""

from dataclasses import dataclass
from math import inf, log

import numpy as np

from kappaflow._checks import positive_float, positive_int
from kappaflow.errors import ArgumentError
from kappaflow_studies.sphere.geometry import gaussian_norm
from kappaflow_studies.sphere.packing import FarApart

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
            layers: m.
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


def least_depth(family: FarApart, flows: LayerClass, features: int) -> DepthBound:
    r"""Returns how many layers it takes to come near every mixture of the family.

    Let the family have N mixtures, W1 at least D apart, and let the flows of m layers have a net
    of fewer than N flows within D/4. If each mixture were closer than D/4 to some flow, it would
    be closer than D/2 to one of the net; two mixtures would share theirs, and be closer than D. So
    one mixture is missed by D/4, and (one flow of the net for each mixture that is not) *all but
    as many as the net has are*.

    Args:
        family: From `mixtures_far_apart`.
        flows: The layers.
        features: d.

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
        >>> from kappaflow_studies.sphere import mixtures_far_apart
        >>> family = mixtures_far_apart(1024, 64, distance=0.1)
        >>> flows = LayerClass(8, lipschitz=2.0, parameter_lipschitz=1.0, whole_lipschitz=100.0)
        >>> print(least_depth(family, flows, 64))
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


def least_numbers(family: FarApart, *, bits: int = 32) -> float:
    r"""Returns how many numbers of so many bits a flow must have to come near every mixture.

    Numbers of b bits name at most :math:`2^{b n}` flows, whatever these are. If there are fewer
    than mixtures in the family, two mixtures share their nearest flow, and one of them is missed
    by half the distance of the family.

    Args:
        family: From `mixtures_far_apart`.
        bits: Of one number.

    Returns:
        With fewer numbers than this, one mixture is missed by `family.distance` / 2. Divided by p
        it is a bound on the depth without any assumption on the layers.

    Raises:
        ArgumentError: `bits` is not at least 1.

    Source:
        Ours; the same counting without a net.

    Example:
        >>> from kappaflow_studies.sphere import mixtures_far_apart
        >>> round(least_numbers(mixtures_far_apart(256, 32, distance=0.1)), 1)
        21.3
    """
    return family.bits / positive_int("bits", bits)
