"""Rounding to a grid by a ReLU network that reads a number digit by digit."""

from dataclasses import dataclass
from math import ceil, log2

import torch
from torch import Tensor

from kappaflow.nets import MLP

# A hidden layer has four units per feature: the positive and the negative part of the remainder,
# the sum of the digits so far, and the unit that decides on a digit. The last entry of a form is
# its offset.
AFTER_THE_RAMP = torch.tensor(
    [[1.0, 0, 0, 0, 0], [0, 1, 0, 0, 0], [0, 0, 1, 0, 0], [0, 0, 0, -1, 1]], dtype=torch.float64
)


@dataclass(frozen=True)
class Grid:
    """Cells of equal width around zero; a number is rounded to the middle of its cell."""

    width: float  #: width of a cell
    digits: int  #: binary digits of a cell number; there are 2^digits cells
    ramp: float  #: share of a cell, around its edge, where the rounding is a steep ramp

    @classmethod
    def covering(cls, reach: float, width: float, ramp: float) -> "Grid":
        """Returns the smallest grid with cells of this width that covers [-reach, reach]."""
        return cls(width, max(1, ceil(log2(2 * reach / width))), ramp)

    @property
    def reach(self) -> float:
        """Half of the covered range. Numbers beyond it are rounded to the last cell."""
        return self.width * 2.0 ** (self.digits - 1)

    def round(self, x: Tensor) -> Tensor:
        """Returns the middles of the cells, with a ramp from each cell to the next one.

        `quantizer_network` returns the same off the ramps, by a ReLU network.

        Example:
            >>> Grid(width=1.0, digits=3, ramp=0.01).round(torch.tensor([0.25, -3.75, 99.0]))
            tensor([ 0.5000, -3.5000,  3.5000])
        """
        last = 2.0 ** (self.digits - 1) - 1
        edge = (x / self.width).detach().round().clamp(-last, last)
        share = ((x / self.width - edge) / self.ramp + 0.5).clamp(0, 1)
        return self.width * (edge - 0.5 + share)


def quantizer_network(features: int, grid: Grid, answers: list[tuple[float, float]]) -> MLP:
    r"""Returns a ReLU network that splits each feature into its rounding and the remainder.

    With :math:`[x]` the middle of the cell of x, it returns :math:`a [x] + b (x - [x])` for each
    pair (a, b) of `answers`, one block of features after another: from (B, features) to
    (B, len(answers) * features) in float64. Each of its 2 * digits hidden layers has 4 * features
    units.

    It finds the cell by bisection, two layers for each digit: is the remainder r positive? The
    unit :math:`p = \mathrm{relu}(r / w + 1/2)` grows across a ramp of width w around zero, and
    :math:`\mathrm{relu}(1 - p)` is exactly 1 before it and 0 after it: no large numbers cancel.
    (Bartlett, Maiorov, Meir 1998 and others read binary digits; this form is ours.)

    Example:
        >>> grid = Grid(width=1.0, digits=3, ramp=0.01)
        >>> net = quantizer_network(1, grid, [(1.0, 0.0), (0.0, 1.0)])
        >>> net(torch.tensor([[0.25], [-3.75], [99.0]], dtype=torch.float64)).tolist()
        [[0.5, -0.25], [-3.5, -0.25], [3.5, 95.5]]
    """
    ramp = grid.ramp * grid.width
    rest, counted = (torch.tensor(form, dtype=torch.float64) for form in ([1.0, 0], [0.0, 0]))
    layers = []
    for digit in range(grid.digits):
        half = grid.reach / 2.0 ** (digit + 1)
        deciding = rest / ramp
        deciding[-1] += 0.5
        layers += [torch.stack((rest, -rest, counted, deciding)), AFTER_THE_RAMP]
        rest = torch.tensor([1, -1, 0, 2 * half, -half], dtype=torch.float64)
        counted = torch.tensor([0, 0, 1, -2 * half, 2 * half], dtype=torch.float64)
    counted[-1] -= grid.reach - grid.width / 2  # counting started at the first cell
    layers.append(torch.stack([a * counted + b * rest for a, b in answers]))
    return _network(features, layers)


@torch.no_grad()
def _network(features: int, layers: list[Tensor]) -> MLP:
    """Returns the network with these affine forms as layers, the same for each feature."""
    widths = [features * len(forms) for forms in layers]
    net = MLP(features, widths[-1], widths[:-1]).double()
    eye = torch.eye(features, dtype=torch.float64)
    for (weight, bias), forms in zip(map(_parameters, net.layers), layers, strict=True):
        weight.copy_(torch.kron(forms[:, :-1].contiguous(), eye))
        bias.copy_(forms[:, -1].repeat_interleave(features))
    return net


def _parameters(layer: torch.nn.Module) -> tuple[Tensor, Tensor]:
    weight, bias = layer.parameters()
    return weight, bias
