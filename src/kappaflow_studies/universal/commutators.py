r"""A map that is no affine coupling, by many couplings that are well conditioned at every point.

An elementwise map of x_1, the flow of :math:`\dot x_1 = \sin x_1`, does not fit into a coupling:
x_1 would have to be read and changed. The commutator of two shears moves x_1 this way,

.. math:: \sin(x_1) \partial_1 = x_2 \cos(x_1) \partial_2 - [x_2 \partial_1, \sin(x_1) \partial_2],

and each term on the right is a coupling. docs/theory/universal.md builds all maps from such terms.
"""

import math

import torch
from torch import Tensor, nn

from kappaflow.bijection import Chain
from kappaflow.bijections import AffineCoupling
from kappaflow.conditioning import spectrum
from kappaflow.partition import Partition
from kappaflow_studies.engine.study import Row


class SineConditioner(nn.Module):
    """Reads x (B, 1) and returns the log-scale `growth` * cos x and the shift `amount` * sin x."""

    def __init__(self, amount: float, growth: float = 0.0) -> None:
        super().__init__()
        self.amount, self.growth = amount, growth

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        return torch.cat((self.growth * x.cos(), self.amount * x.sin()), dim=1)


class ShearConditioner(nn.Module):
    """Reads x (B, 1) and returns the log-scale 0 and the shift `amount` * x."""

    def __init__(self, amount: float) -> None:
        super().__init__()
        self.amount = amount

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        return torch.cat((torch.zeros_like(x), self.amount * x), dim=1)


def commutator_flow(steps: int) -> Chain:
    r"""Returns 4 * steps + 1 affine couplings that approximate an elementwise map of two features.

    The map is :math:`x_1 \to 2 \arctan(e \tan(x_1 / 2))`, the flow of sin for the time 1, and
    leaves x_2. Its condition number is at most e. The shears of successive steps have opposite
    signs, so that the error falls like 1 / steps.
    """
    first = Partition.half(2)
    time, couplings = 1 / steps, []
    for step in range(steps):
        size = math.sqrt(time) * (-1) ** step
        grown = time if step else 0.0  # of the step before: both couplings change x_2
        for amount, growth in ((size, grown), (-size, 0.0)):
            couplings += [
                AffineCoupling(first, SineConditioner(amount, growth), scale="exp"),
                AffineCoupling(first.swapped(), ShearConditioner(amount), scale="exp"),
            ]
    couplings.append(AffineCoupling(first, SineConditioner(0.0, time), scale="exp"))
    return Chain(couplings).double()


def at_every_point(steps: int) -> Row:
    """Returns the largest error and condition number of `commutator_flow` on a square."""
    chain, line = commutator_flow(steps), torch.linspace(-2, 2, 41).double()
    x = torch.cartesian_prod(line, line)
    with torch.no_grad():
        y, _ = chain(x)
    exact = torch.stack((2 * torch.atan(math.e * torch.tan(x[:, 0] / 2)), x[:, 1]), 1)
    return {
        "couplings": len(chain),
        "error": (y - exact).norm(dim=1).max().item(),
        "condition_number": spectrum(chain, x).condition_number.max().item(),
    }
