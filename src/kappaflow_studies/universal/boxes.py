r"""Four affine couplings that are close to a distribution in KL(Q | flow), the training loss.

Cells of the latent cube go to boxes of the data cube that have the same probability: in turn, each
feature is cut at the quantiles of its distribution given the box of the features before it. So
:math:`\psi` is affine on each cell and needs no map between the distributions, and Q may have
holes and poles. For the uniform square, three couplings do the same. (docs/theory/universal.md)
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from kappaflow.errors import ArgumentError
from kappaflow.flows import Flow
from kappaflow_studies.universal.quantizer import Grid
from kappaflow_studies.universal.targets import TruncatedMixture, uniform
from kappaflow_studies.universal.triangular import (
    STEPS,
    CellMap,
    Grids,
    ScaleAndOffset,
    below_digits,
    store_first,
    write_flow,
)

HALVINGS = 60  # bisection steps for a quantile
NODES = 200  # of the quadrature for an entropy, along each axis


class ProductMixture(ABC):
    """A mixture on the cube [-1, 1]^n of distributions whose features are independent."""

    features = 2
    weights: Tensor  #: (components,), of sum 1
    negative_entropy: float  #: the integral of q log q, in nats

    @abstractmethod
    def below(self, feature: int, x: Tensor) -> Tensor:
        """Returns the share (..., components) of each component below `x` in a feature."""

    @abstractmethod
    def density(self, feature: int, x: Tensor) -> Tensor:
        """Returns the density (..., components) of each component at `x` in a feature."""

    def log_density(self, x: Tensor) -> Tensor:
        """Returns the log-densities (B,) of points (B, n)."""
        densities = [self.density(k, x_k) for k, x_k in enumerate(x.unbind(1))]
        return (self.weights * torch.stack(densities).prod(0)).sum(-1).log()

    def sample(self, n: int, *, generator: torch.Generator | None = None) -> Tensor:
        """Returns n samples, (n, features), in float64."""
        ranks = torch.rand(n, self.features, dtype=torch.float64, generator=generator)
        weights, x = self.weights.expand(n, -1), []
        for k, rank in enumerate(ranks.unbind(1)):
            x.append(self.quantile(k, rank, weights))
            weights = weights * self.density(k, x[-1])
            weights = weights / weights.sum(-1, keepdim=True)
        return torch.stack(x, 1)

    def quantile(self, feature: int, rank: Tensor, weights: Tensor) -> Tensor:
        """Returns where a feature of the mixture with these weights reaches `rank`."""
        x, width = torch.full_like(rank, -1.0), 2.0
        for _ in range(HALVINGS):
            width /= 2
            x = x + width * ((weights * self.below(feature, x + width)).sum(-1) < rank)
        return x


class Blocks(ProductMixture):
    """A mixture of uniform distributions on disjoint boxes; outside of them q is zero."""

    def __init__(self, low: Tensor, high: Tensor, weights: Tensor) -> None:
        """Takes the corners (boxes, n) of the boxes and their probabilities (boxes,)."""
        self.low, self.high, self.weights = low.double(), high.double(), weights.double()
        self.features = low.shape[1]
        volumes = (self.high - self.low).prod(1)
        self.negative_entropy = (self.weights * (self.weights / volumes).log()).sum().item()

    def below(self, feature: int, x: Tensor) -> Tensor:
        low, high = self.low[:, feature], self.high[:, feature]
        return ((x[..., None] - low) / (high - low)).clamp(0, 1)

    def density(self, feature: int, x: Tensor) -> Tensor:
        low, high = self.low[:, feature], self.high[:, feature]
        return ((low <= x[..., None]) & (x[..., None] < high)) / (high - low)


class Bumps(ProductMixture):
    """The target `mixture`: five round Gaussians, each truncated to the square."""

    def __init__(self) -> None:
        self.means = torch.tensor(TruncatedMixture.means, dtype=torch.float64)
        self.deviation = TruncatedMixture.deviation
        self.weights = torch.full((len(self.means),), 1 / len(self.means), dtype=torch.float64)
        nodes, weights = map(torch.from_numpy, np.polynomial.legendre.leggauss(NODES))
        log_q = self.log_density(torch.cartesian_prod(nodes, nodes))
        areas = torch.outer(weights, weights).ravel()
        self.negative_entropy = (areas * log_q.exp() * log_q).sum().item()

    def below(self, feature: int, x: Tensor) -> Tensor:
        low, inside = self._ends(feature)
        return (uniform((x[..., None] - self.means[:, feature]) / self.deviation) - low) / inside

    def density(self, feature: int, x: Tensor) -> Tensor:
        standardized = (x[..., None] - self.means[:, feature]) / self.deviation
        slope = math.sqrt(2 / math.pi) * (-standardized.square() / 2).exp()  # of `uniform`
        return slope / (self.deviation * self._ends(feature)[1])

    def _ends(self, feature: int) -> tuple[Tensor, Tensor]:
        """Returns `uniform` at the lower end of the square, and its growth to the upper end."""
        low, high = (uniform((end - self.means[:, feature]) / self.deviation) for end in (-1, 1))
        return low, high - low


class Pole(ProductMixture):
    """Independent features of the density 1 / (4 sqrt |x|), which is unbounded at zero."""

    weights = torch.ones(1, dtype=torch.float64)
    negative_entropy = 2 * (1 - math.log(4))

    def below(self, feature: int, x: Tensor) -> Tensor:
        return ((1 + x.sign() * x.abs().sqrt()) / 2)[..., None]

    def density(self, feature: int, x: Tensor) -> Tensor:
        return (1 / (4 * x.abs().sqrt()))[..., None]


def _square() -> Blocks:
    """Returns the target `square`."""
    return Blocks(-torch.ones(1, 2), torch.ones(1, 2), torch.ones(1))


def _checkerboard() -> Blocks:
    """Returns the target `checkerboard`: eight dark squares of sixteen."""
    corners = [(-1 + j + i % 2 / 2, -1 + i / 2) for i in range(4) for j in range(2)]
    low = torch.tensor(corners, dtype=torch.float64)
    return Blocks(low, low + 0.5, torch.full((8,), 1 / 8))


MASSES: dict[str, Callable[[], ProductMixture]] = {
    "square": _square, "mixture": Bumps, "checkerboard": _checkerboard, "pole": Pole,
}  # fmt: skip


RAMP = 1e-12  # share of a cell around its edge; the theorem has none
FARTHEST_REACH = 7.0  # P(z > 7) is 1.3e-12


def grids_of(reach: float, digits: int) -> Grids:
    """Returns grids of 2^digits cells on [-reach, reach], for data in [-1, 1]."""
    if not 0 < reach <= FARTHEST_REACH:
        raise ArgumentError(
            f"'reach' should be at most {FARTHEST_REACH:g}, got {reach:g}: float64 cannot tell "
            "the probability of all cells but the last from 1."
        )
    if digits < 2:
        raise ArgumentError(f"'digits' should be at least 2, got {digits}.")
    grid = Grid(reach / 2.0 ** (digits - 1), digits, RAMP)
    return Grids(reach, 1.0, grid, grid)


def cell_masses(grid: Grid) -> Tensor:
    """Returns the probability of each cell (cells,); the outer ones include the tails."""
    low = _edges(grid)[: 2 ** (grid.digits - 1) + 1]  # to zero: no digits cancel
    below = torch.special.erfc(-low / math.sqrt(2)) / 2
    half = torch.cat((below[1:2], below[1:].diff()))
    return torch.cat((half, half.flip(0)))


def _edges(grid: Grid) -> Tensor:
    """Returns the edges of all cells (cells + 1,)."""
    cells = 2**grid.digits
    return grid.width * (torch.arange(cells + 1, dtype=torch.float64) - cells / 2)


class BoxMap(CellMap):
    """The map that is affine from each cell to a box of the same probability under a mixture."""

    def __init__(self, target: ProductMixture, grids: Grids) -> None:
        self.grids = [grids.first] * target.features
        self.nodes = []  # of feature k: (cells,) * k + (cells + 1,)
        masses = cell_masses(grids.first)
        ranks, weights = masses.cumsum(0)[:-1], target.weights
        for k in range(target.features):
            of_cells = ranks.expand(*weights.shape[:-1], -1)
            inner = target.quantile(k, of_cells, weights[..., None, :])
            ends = torch.full_like(inner[..., :1], grids.output_bound)
            self.nodes.append(torch.cat((-ends, inner, ends), -1))
            shares = target.below(k, self.nodes[k]).diff(dim=-2)
            weights = weights[..., None, :] * shares
            weights = weights / weights.sum(-1, keepdim=True)

    def log_volumes(self) -> Tensor:
        """Returns the log-volume of each box, (cells,) * n."""
        total = torch.zeros((), dtype=torch.float64)
        for nodes in self.nodes:
            total = total[..., None] + nodes.diff(dim=-1).log()
        return total

    def _value(self, z: Tensor, known: list[Tensor]) -> Tensor:
        """Returns one feature of the image of an edge of a cell, given the cells before it."""
        cells = 2 ** self.grids[0].digits
        edge = (z / self.grids[0].width + cells / 2).round().long()
        middles = [(m / self.grids[0].width + cells / 2).floor().long() for m in known]
        before = [middle.clamp(0, cells - 1) for middle in middles]
        return self.nodes[len(known)][(*before, edge.clamp(0, cells))]


def likelihood_flow(target: ProductMixture, grids: Grids) -> Flow:
    """Returns four affine couplings g with KL(Q | g) at most `Divergence.bound`, for a mixture Q.

    The conditioners are step functions, in float64. (docs/theory/universal.md)
    """
    return write_flow(target.features, grids, BoxMap(target, grids), STEPS[4])


@dataclass(frozen=True)
class Divergence:
    r"""The proved bounds on KL(Q | g), in nats, for the couplings of `likelihood_flow`.

    KL is within n * `slack` of the sum of `coarse`, which is lost by a density that is constant on
    each box, and n * `cells`, lost by a normal density that is not constant on each cell.
    """

    coarse: float
    cells: float
    slack: float
    bound: float  #: the bound of the theorem, from `coarse`, R and D alone

    @classmethod
    def of(cls, target: ProductMixture, grids: Grids) -> "Divergence":
        """Returns the bounds for a target and its grids."""
        masses, volumes = cell_masses(grids.first), BoxMap(target, grids).log_volumes()
        probability = torch.ones((), dtype=torch.float64)
        for _ in range(target.features):
            probability = probability[..., None] * masses
        of_boxes = (probability * (probability.log() - volumes)).sum().item()
        coarse = max(0.0, target.negative_entropy - of_boxes)
        return cls(
            coarse,
            cell_loss(grids.first),
            math.sqrt(squared_oscillation(grids.first) * coarse / 2),
            likelihood_bound(coarse, target.features, grids.first),
        )


def cell_loss(grid: Grid) -> float:
    """Returns the mean, in nats, of log(P / (D N(z))) over cells of mass P, z uniform on each."""
    low, high = _edges(grid)[:-1], _edges(grid)[1:]
    masses, squares = cell_masses(grid), (low**2 + low * high + high**2) / 3
    loss = (masses / grid.width).log() + (squares + math.log(2 * math.pi)) / 2
    return (masses * loss).sum().item()


def squared_oscillation(grid: Grid) -> float:
    """Returns the mean square of how much log N changes within a cell."""
    changes = _edges(grid).square().diff() / 2  # zero is an edge
    return (cell_masses(grid) * changes.square()).sum().item()


def likelihood_bound(coarse: float, features: int, grid: Grid) -> float:
    r"""Returns the bound of docs/theory/universal.md on KL(Q | g), for `coarse` :math:`\Delta`.

    .. math:: \Delta + n \bigl( s^2 / 8 + s \sqrt{\Delta / 2}
        + 2 \tau (D R + \log^+ \tfrac1{D (R - D)}) \bigr), \qquad s = D (1 + D)

    with :math:`\tau` the normal probability of each outer cell.
    """
    width, reach = grid.width, grid.reach
    s, tau = width * (1 + width), cell_masses(grid)[-1].item()
    tails = 2 * tau * (width * reach + max(0.0, -math.log(width * (reach - width))))
    return coarse + features * (s**2 / 8 + s * math.sqrt(coarse / 2) + tails)


class Strips:
    """Three couplings for the uniform square: x_1 tells both cells by the strip that it is in.

    The strip of the cells i and j has the width 2 P_i P_j, with P their probabilities.
    """

    def __init__(self, grids: Grids) -> None:
        masses = cell_masses(grids.first)
        self.cells = len(masses)
        self.widths = 2 * torch.outer(masses, masses).ravel()  # j runs first
        self.ends = self.widths.cumsum(0) - 1

    def flow(self, grids: Grids) -> Flow:
        """Returns the three couplings."""
        psi = BoxMap(MASSES["square"](), grids)
        return write_flow(2, grids, psi, (store_first, self._place, self._fill))

    def _place(self, cells: Grids, psi: CellMap, x2: Tensor) -> ScaleAndOffset:
        """Returns the scale and offset that bring x_1 from its cell to the strip."""
        a = cells.first.round(x2)
        b = cells.second.round((x2 - a) / below_digits(cells.first, cells.input_bound))
        strip = self._cell(cells, a) * self.cells + self._cell(cells, b)
        scale = self.widths[strip] / cells.first.width
        return scale, self.ends[strip] - self.widths[strip] / 2 - scale * a

    def _fill(self, cells: Grids, psi: CellMap, x1: Tensor) -> ScaleAndOffset:
        """Returns the scale and offset that stretch the cell of x_2 to [-1, 1]."""
        strip = torch.searchsorted(self.ends, x1.contiguous()).clamp(max=len(self.ends) - 1)
        first, second = strip // self.cells, strip % self.cells
        a, b = ((cell + 0.5 - self.cells / 2) * cells.first.width for cell in (first, second))
        slope = 2 / cells.second.width
        scale = slope / below_digits(cells.first, cells.input_bound)
        return torch.full_like(x1, scale), -slope * b - scale * a

    def _cell(self, cells: Grids, middle: Tensor) -> Tensor:
        """Returns the number of the cell that a number is in."""
        index = (middle / cells.first.width + self.cells / 2).floor().long()
        return index.clamp(0, self.cells - 1)
