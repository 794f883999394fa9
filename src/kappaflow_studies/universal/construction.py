r"""Any bounded distribution by three affine couplings on one partition, without training.

Let x_1, x_2 be the halves of a normal sample, [.] the rounding to a grid of width D (or D'), and
:math:`\phi = (\phi_1, \phi_2)` a map from a normal to the distribution Q. The couplings are

1. :math:`x_2 \leftarrow \frac{D}{4R} x_2 + [x_1]`: x_2 stores all of x, in two groups of digits;
2. :math:`x_1 \leftarrow \eta x_1 + [\phi_1(y)]' + \frac{D'}{4R'} \phi_2(y)`, with y read from x_2;
3. :math:`x_2 \leftarrow \eta' x_2 + \frac{4R'}{D'} (x_1 - [x_1]')`: the second group of digits.

The only error is the old values, which are scaled down to almost zero. This costs conditioning.
"""

import math
from dataclasses import dataclass

import torch
from scipy.stats import norm
from torch import Tensor, nn

from kappaflow.bijection import Chain
from kappaflow.bijections import AffineCoupling
from kappaflow.errors import ArgumentError
from kappaflow.flows import Flow, StandardNormal
from kappaflow.nets import MLP
from kappaflow.partition import Partition
from kappaflow_studies.universal.quantizer import Grid, quantizer_network
from kappaflow_studies.universal.targets import Target

FARTHEST = 4.0  # largest error of a feature, in units of R', if the rounding fails


@dataclass(frozen=True)
class Scales:
    """The sizes of the construction for one target and one error."""

    epsilon: float  #: the allowed error in W2
    input_bound: float  #: R; normal samples beyond it have almost no probability
    output_bound: float  #: R'; all points of the target are within it
    input_grid: Grid  #: of width D, rounds the first half of the input
    output_grid: Grid  #: of width D', rounds the first half of the output
    eta: float  #: scale of the first half in the second coupling
    eta_prime: float  #: scale of the second half in the third coupling
    rare: float  #: bound on the probability that a rounding fails, on ramps and in tails

    @property
    def low_digits(self) -> float:
        """The scale of the first coupling, D / 4R."""
        return self.input_grid.width / (4 * self.input_bound)

    @property
    def low_digits_prime(self) -> float:
        """The scale D' / 4R' of the digits below the grid that the second coupling writes."""
        return self.output_grid.width / (4 * self.output_bound)

    @classmethod
    def of(cls, target: Target, epsilon: float) -> "Scales":
        """Returns sizes that distribute an error over the steps (docs/theory/universal.md)."""
        half, bound = checked(target, epsilon), target.reach
        rare = (epsilon / 8) ** 2 / (target.features * (FARTHEST * bound) ** 2)
        ramp, tail = rare / (4 * half), rare / (2 * target.features)
        reach = float(norm.isf(tail / 2))
        width = math.sqrt(3) * epsilon / max(target.stretch(), epsilon / bound)
        width_prime = math.sqrt(3 / half) * epsilon
        return cls(
            epsilon=epsilon,
            input_bound=reach,
            output_bound=bound,
            input_grid=Grid.covering(reach, width, ramp),
            output_grid=Grid.covering(bound, width_prime, ramp),
            eta=epsilon * width_prime / (32 * bound * math.sqrt(half)),
            eta_prime=epsilon / (8 * math.sqrt(half)),
            rare=rare,
        )


class Recoding(nn.Module):
    r"""The conditioner of the second coupling: reads a point from its digits and writes its image.

    `decode` reads y, (B, 2 d), from the digits of a half, (B, d), and does not learn: its steps
    have no gradient. `encode` computes raw log-scales and the upper digits, (B, 2 d), of
    :math:`\phi_1(y)`, and `lower` is the scale of :math:`\phi_2(y)` next to them.
    """

    def __init__(self, target: Target, decode: MLP, encode: MLP, lower: float) -> None:
        super().__init__()
        self.target, self.encode, self.lower = target, encode, lower
        self.decode = decode.requires_grad_(False)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Returns raw log-scales and shifts (B, 2 d) from the second half (B, d)."""
        first, second = self.target.transport(self.decode(x)).chunk(2, dim=1)
        raw, upper = self.encode(first).chunk(2, dim=1)
        return torch.cat((raw, upper + self.lower * second), dim=1)


def universal_flow(target: Target, epsilon: float) -> Flow:
    """Returns three affine couplings that approximate a distribution up to `epsilon` in W2.

    Nothing is trained: all weights follow from formulas. Log-scales are constant; shifts are ReLU
    networks, and the shift of the second coupling also contains the target's own map. The target
    has an even number of features. The error, at most its `reach`, holds to first order; if its
    map is not smooth on the scale of the grid, use `transport_error`. The flow, in float64, is
    very ill-conditioned: its smallest singular value falls like the fourth power of the error.
    (Koehler, Mehta, Risteski 2021, in our reconstruction: docs/theory/universal.md.)

    Raises:
        ArgumentError: The target has an odd number of features, or the error exceeds its reach.
    """
    return write_flow(target, Scales.of(target, epsilon))


def write_flow(target: Target, scales: Scales) -> Flow:
    """Returns the three couplings of the construction with these sizes, in float64."""
    half = target.features // 2
    first, inputs, outputs = Partition.half(2 * half), scales.input_grid, scales.output_grid
    down, down_prime = scales.low_digits, scales.low_digits_prime
    eta, eta_prime = scales.eta, scales.eta_prime
    recoding = Recoding(
        target,
        decode=quantizer_network(half, inputs, [(1.0, 0.0), (0.0, 1 / down)]),
        encode=_shifts(half, outputs, upper=1.0, lower=0.0, scale=eta),
        lower=-down_prime / eta,
    )
    third = _shifts(half, outputs, upper=0.0, lower=1 / down_prime, scale=eta_prime)
    couplings = [
        _coupling(first, third, eta_prime),
        _coupling(first.swapped(), recoding, eta),
        _coupling(first, _shifts(half, inputs, upper=1.0, lower=0.0, scale=down), down),
    ]
    return Flow(StandardNormal(2 * half), Chain(couplings)).double()


def checked(target: Target, epsilon: float) -> int:
    """Returns half the number of features of a target, after a check of it and of the error."""
    if target.features % 2:
        raise ArgumentError(
            f"'target' should have an even number of features, got {target.features}: each half "
            "is written into the other one."
        )
    if epsilon > target.reach:
        raise ArgumentError(
            f"'epsilon' should be at most {target.reach}, the bound on the target's features, "
            f"got {epsilon}."
        )
    return target.features // 2


def _coupling(partition: Partition, conditioner: nn.Module, scale: float) -> AffineCoupling:
    """Returns a coupling that multiplies by a scale below 1 from latent to data."""
    return AffineCoupling(partition, conditioner, scale_bound=-2 * math.log(scale))


@torch.no_grad()
def _shifts(half: int, grid: Grid, *, upper: float, lower: float, scale: float) -> MLP:
    """Returns a network; its coupling adds upper [x] + lower (x - [x]) from latent to data."""
    net = quantizer_network(half, grid, [(0.0, 0.0), (-upper / scale, -lower / scale)])
    raw = net.layers[-1].get_parameter("bias")[:half]
    raw.fill_(-math.log(scale) * math.log(3))
    return net
