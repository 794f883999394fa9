r"""Any bounded distribution by three affine couplings on one partition, without training.

With x_1, x_2 the halves of a normal draw, [.] the rounding to a grid of width D (or D'), and
:math:`\phi = (\phi_1, \phi_2)` a map that makes the distribution Q of a normal, the couplings are

1. :math:`x_2 \leftarrow \frac{D}{4R} x_2 + [x_1]`: all of x stands in x_2, in two sorts of digits;
2. :math:`x_1 \leftarrow \eta x_1 + [\phi_1(y)]' + \frac{D'}{4R'} \phi_2(y)`, y read off x_2;
3. :math:`x_2 \leftarrow \eta' x_2 + \frac{4R'}{D'} (x_1 - [x_1]')`: the second sort of digits.

Only the old values, scaled down to almost nothing, are in the way: that is the price.
"""

import math
from dataclasses import dataclass

import torch
from scipy.stats import norm
from torch import Tensor, nn

from kappaflow._checks import positive_float
from kappaflow.bijection import Chain
from kappaflow.bijections import AffineCoupling
from kappaflow.errors import ArgumentError
from kappaflow.flows import Flow, StandardNormal
from kappaflow.nets import MLP
from kappaflow.partition import Partition
from kappaflow.registry import register
from kappaflow_studies.universal.quantizer import Grid, quantizer_network
from kappaflow_studies.universal.targets import Target

FARTHEST = 4.0  # where the rounding fails, no feature is off by more than this many R'


@dataclass(frozen=True)
class Scales:
    """The sizes in the construction for one target and one error.

    Attributes:
        epsilon: The error W2 that is allowed.
        input_bound: R: what lies beyond has almost no probability.
        output_bound: R': the target lies within.
        input_grid: The cells of width D, on which the first half of the input is rounded.
        output_grid: Those of width D', for the first half of the output.
        eta: What is left of the first half in the second coupling.
        eta_prime: What is left of the second half in the third coupling.
        rare: Bound on the probability that a rounding fails: on the ramps and in the tails.
    """

    epsilon: float
    input_bound: float
    output_bound: float
    input_grid: Grid
    output_grid: Grid
    eta: float
    eta_prime: float
    rare: float

    @property
    def low_digits(self) -> float:
        """The scale of the first coupling, D / 4R."""
        return self.input_grid.width / (4 * self.input_bound)

    @property
    def low_digits_prime(self) -> float:
        """The scale, D' / 4R', of what the second coupling writes below the digits of its grid."""
        return self.output_grid.width / (4 * self.output_bound)

    @classmethod
    def of(cls, target: Target, epsilon: float) -> "Scales":
        """Returns the sizes that share an error out, as the page on the theorem derives them.

        Args:
            target: With an even number of features.
            epsilon: The error, in (0, reach of the target].

        Returns:
            The sizes.

        Raises:
            ArgumentError: The target is none, or has an odd number of features, or the error is
                out of its range.
        """
        half, bound = _half_of(target), positive_float("reach", target.reach)
        if positive_float("epsilon", epsilon) > bound:
            raise ArgumentError(
                f"'epsilon' should be at most {bound}, the bound on the target's features, "
                f"got {epsilon}."
            )
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


@register("Recoding")
class Recoding(nn.Module):
    r"""The conditioner of the second coupling: reads a point from its digits, writes its image.

    Args:
        target: Whose map :math:`\phi` is written.
        decode: A network that reads y, (B, 2 d), from the digits of a half, (B, d). It does not
            learn: through the steps of a quantizer_network no gradient comes.
        encode: A network that makes raw log-scales and the upper digits, (B, 2 d), of
            :math:`\phi_1(y)`.
        lower: The scale of :math:`\phi_2(y)` next to them.
    """

    def __init__(self, target: Target, decode: MLP, encode: MLP, lower: float) -> None:
        super().__init__()
        self.target, self.encode, self.lower = target, encode, lower
        self.decode = decode.requires_grad_(False)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Returns raw log-scales and shifts (B, 2 d), of the second half (B, d)."""
        first, second = self.target.transport(self.decode(x)).chunk(2, dim=1)
        raw, upper = self.encode(first).chunk(2, dim=1)
        return torch.cat((raw, upper + self.lower * second), dim=1)

    def extra_repr(self) -> str:
        return f"{self.target}, lower={self.lower:.4g}"


def universal_flow(target: Target, epsilon: float) -> Flow:
    r"""Returns three affine couplings whose draws are within `epsilon` of a distribution, in W2.

    Nothing is trained: every weight is written down. The couplings keep the first half, the
    second, and the first again; their log-scales are constant and their shifts are ReLU networks,
    in the second one around the target's own map.

    Args:
        target: The distribution, with an even number of features.
        epsilon: The error that is allowed, at most the target's `reach`. To first order: where the
            target's map is not smooth on the scale of the grid, ask `transport_error`.

    Returns:
        A flow in float64. From data to latent it is as ill-conditioned as the page on the theorem
        says: the singular values of its inverse fall like the fourth power of the error.

    Raises:
        ArgumentError: The target is none, or has an odd number of features, or the error is out of
            its range.

    Source:
        Koehler, Mehta, Risteski 2021, in our reconstruction.

    Example:
        >>> from kappaflow_studies.universal import UniformCube
        >>> flow = universal_flow(UniformCube(), 0.1)
        >>> generator = torch.Generator().manual_seed(0)
        >>> bool(flow.sample(1000, generator=generator).abs().max() < 1.1)
        True
    """
    return write_flow(target, Scales.of(target, epsilon))


def write_flow(target: Target, scales: Scales) -> Flow:
    """Returns the three couplings of the construction with these sizes, in float64."""
    half = _half_of(target)
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


def _half_of(target: Target) -> int:
    """Returns how many features a half of the target has."""
    if not isinstance(target, Target):
        raise ArgumentError(f"'target' should be a Target, got {type(target).__name__}.")
    if target.features % 2:
        raise ArgumentError(
            f"'target' should have an even number of features, got {target.features}: each half "
            "is written into the other one."
        )
    return target.features // 2


def _coupling(partition: Partition, conditioner: nn.Module, scale: float) -> AffineCoupling:
    """Returns the coupling that multiplies by a scale below 1 on its way from latent to data."""
    return AffineCoupling(partition, conditioner, scale_bound=-2 * math.log(scale))


@torch.no_grad()
def _shifts(half: int, grid: Grid, *, upper: float, lower: float, scale: float) -> MLP:
    """Returns the network whose coupling adds upper [x] + lower (x - [x]), latent to data.

    Data to latent it subtracts that and divides by the scale. The log-scale is bounded by
    c = -2 log(scale), and c tanh(r / c) is half of c at r = c log(3) / 2.
    """
    net = quantizer_network(half, grid, [(0.0, 0.0), (-upper / scale, -lower / scale)])
    raw = net.layers[-1].get_parameter("bias")[:half]
    raw.fill_(-math.log(scale) * math.log(3))
    return net
