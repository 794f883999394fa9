r"""Three or four affine couplings for a distribution whose map from a normal is triangular.

Let :math:`\phi` be the map: its feature k depends on the features up to k of z, and increases in
the last of them. On the cells of a grid of width D it is nearly affine and diagonal; :math:`\psi`
is this approximation. With x_1, x_2 the halves, [.] the rounding to the grid, and
:math:`y = ([x_1], x_2)`, the four couplings are

1. :math:`x_1 \leftarrow \frac{D}{4R} x_1 + [x_2]`: x_1 stores all of x;
2. :math:`x_2 \leftarrow \frac{D}{4R'} \psi_2(y) + [x_1]`: x_2 stores y, the second half mapped;
3. :math:`x_1 \leftarrow \psi_1(x_1)`, without the copy of [x_2], which is read from x_2;
4. :math:`x_2 \leftarrow \psi_2(y)`, without the copy of [x_1], which is read from x_1.

Nothing is left of the old values: the composition is :math:`\psi`, except on the steep ramps
between cells. Three couplings leave one copy. (docs/theory/universal.md)
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from scipy.stats import norm
from torch import Tensor, nn

from kappaflow.bijection import Chain
from kappaflow.bijections import AffineCoupling
from kappaflow.errors import ArgumentError
from kappaflow.flows import Flow, StandardNormal
from kappaflow.partition import Partition
from kappaflow_studies.universal.construction import checked
from kappaflow_studies.universal.quantizer import Grid
from kappaflow_studies.universal.targets import Target

FARTHEST = 64.0  # largest error of a feature if a rounding fails, in units of R' (R / D)^2
LEAST = 1e-3  # smallest error with four couplings, in units of R': two halves share 53 bits
ROUNDS = 8  # number of steps until R and the probability of rare points fit each other


@dataclass(frozen=True)
class Grids:
    """The grids of a construction, and the ranges of its numbers."""

    input_bound: float  #: R; normal samples beyond it have almost no probability
    output_bound: float  #: R'; all points of the target are within it
    first: Grid  #: rounds the first half of the input
    second: Grid  #: rounds the second half of the input


@dataclass(frozen=True)
class Cells(Grids):
    """The grids of the construction for one target and one error."""

    epsilon: float  #: the allowed error in W2
    rare: float  #: bound on the probability that a rounding fails, on ramps and in tails

    @classmethod
    def of(cls, target: Target, epsilon: float, couplings: int = 4) -> "Cells":
        """Returns grids for an error, as docs/theory/universal.md chooses them."""
        half, bound = checked(target, epsilon), target.reach
        if not target.triangular:
            raise ArgumentError(f"'target' should have a triangular map, got {target}.")
        if couplings == 4 and epsilon < LEAST * bound:
            raise ArgumentError(
                f"'epsilon' should be at least {LEAST * bound:g} with four couplings, got "
                f"{epsilon:g}: float64 has too few digits for less."
            )
        width = math.sqrt(3) * epsilon / max(target.stretch(target.features), epsilon)
        coarse = math.sqrt(width) if couplings == 3 and half == 1 else width
        reach = rare = 1.0
        for _ in range(ROUNDS):  # a wrong rounding costs more if numbers are larger
            farthest = FARTHEST * bound * (reach / width) ** 2
            rare = (epsilon / 8) ** 2 / (target.features * farthest**2)
            reach = float(norm.isf(rare / (4 * target.features)))
        ramp = rare / (2 * target.features)
        first, second = (Grid.covering(reach, cell_width, ramp) for cell_width in (width, coarse))
        return cls(reach, bound, first, second, epsilon, rare)


class CellMap:
    r"""The map :math:`\psi` of a target, interpolated between the nodes of a grid.

    Within a cell it is affine and diagonal: each feature takes those before it at the middles of
    their cells. A small `share` of a line keeps it invertible where the target's map is flat.
    """

    def __init__(self, target: Target, cells: Cells) -> None:
        self.target, half = target, target.features // 2
        self.grids = [cells.first] * half + [cells.second] * half
        self.share = cells.epsilon / (8 * math.sqrt(target.features) * target.reach)

    def affine(self, middles: Tensor, before: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Returns images and slopes (B, d) at the middles of the cells of a half (B, d)."""
        known = [] if before is None else list(before.unbind(1))
        images, slopes = [], []
        for middle in middles.unbind(1):
            width = self.grids[len(known)].width
            low, high = (self._value(middle + end, known) for end in (-width / 2, width / 2))
            images.append((low + high) / 2)
            slopes.append((high - low) / width)
            known.append(middle)
        return torch.stack(images, 1), torch.stack(slopes, 1)

    def inverse(self, images: Tensor, before: Tensor | None = None) -> Tensor:
        """Returns the half of the input (B, d) with these images."""
        known = [] if before is None else list(before.unbind(1))
        values = []
        for image in images.unbind(1):
            values.append(self._solve(image, known))
            known.append(self.grids[len(known)].round(values[-1]))
        return torch.stack(values, 1)

    def _solve(self, image: Tensor, known: list[Tensor]) -> Tensor:
        """Returns the next feature (B,), by bisection for its cell."""
        grid = self.grids[len(known)]
        left = torch.full_like(image, -grid.reach)
        with torch.no_grad():
            for digit in range(grid.digits):
                edge = left + grid.reach / 2.0**digit
                left = torch.where(self._value(edge, known) <= image, edge, left)
        low, high = (self._value(end, known) for end in (left, left + grid.width))
        return left + grid.width * (image - low) / (high - low)

    def _value(self, z: Tensor, known: list[Tensor]) -> Tensor:
        """Returns one feature of the image, (B,), from its input and those before it."""
        k = len(known)
        inputs = [*known, z, *[torch.zeros_like(z)] * (self.target.features - k - 1)]
        image = self.target.transport(torch.stack(inputs, 1))[:, k]
        line = z * (self.target.reach / self.grids[k].reach)
        return (1 - self.share) * image + self.share * line


class TriangularConditioner(nn.Module):
    """The conditioner of one of the three or four couplings, as a formula of the target's map.

    It returns raw log-scales and shifts (B, 2 d) for the kept half (B, d).
    """

    def __init__(self, step: "Step", cells: Grids, psi: CellMap) -> None:
        super().__init__()
        self.step, self.cells, self.psi = step, cells, psi

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        scale, offset = self.step(self.cells, self.psi, x)
        return torch.cat((-scale.log(), -offset / scale), dim=1)


# What a coupling multiplies the changed half by, and what it adds.
ScaleAndOffset = tuple[Tensor, Tensor]
Step = Callable[[Grids, CellMap, Tensor], ScaleAndOffset]


def _store_second(cells: Grids, psi: CellMap, x2: Tensor) -> ScaleAndOffset:
    """Returns the scale and offset that write [x_2] above x_1."""
    scale = torch.full_like(x2, below_digits(cells.second, cells.input_bound))
    return scale, cells.second.round(x2)


def _map_second(cells: Grids, psi: CellMap, x1: Tensor) -> ScaleAndOffset:
    """Returns the scale and offset that map x_2 and write [x_1] above it."""
    b = cells.second.round(x1)
    a = cells.first.round((x1 - b) / below_digits(cells.second, cells.input_bound))
    image, slope = psi.affine(b, a)
    down = below_digits(cells.first, cells.output_bound)
    return down * slope, down * (image - slope * b) + a


def _map_first(cells: Grids, psi: CellMap, x2: Tensor) -> ScaleAndOffset:
    """Returns the scale and offset that remove [x_2] from x_1 and map the rest."""
    a = cells.first.round(x2)
    images = (x2 - a) / below_digits(cells.first, cells.output_bound)
    b = cells.second.round(psi.inverse(images, a))
    image, slope = psi.affine(a)
    scale = slope / below_digits(cells.second, cells.input_bound)
    return scale, image - slope * a - scale * b


def _remove_first(cells: Grids, psi: CellMap, x1: Tensor) -> ScaleAndOffset:
    """Returns the scale and offset that remove [x_1] from x_2."""
    scale = torch.full_like(x1, 1 / below_digits(cells.first, cells.output_bound))
    return scale, -scale * cells.first.round(psi.inverse(x1))


def store_first(cells: Grids, psi: CellMap, x1: Tensor) -> ScaleAndOffset:
    """Returns the scale and offset that write [x_1] above x_2."""
    return torch.full_like(x1, below_digits(cells.first, cells.input_bound)), cells.first.round(x1)


def _map_first_and_store(cells: Grids, psi: CellMap, x2: Tensor) -> ScaleAndOffset:
    """Returns the scale and offset that map [x_1] and write [x_2] into the image of its cell."""
    a = cells.first.round(x2)
    b = cells.second.round((x2 - a) / below_digits(cells.first, cells.input_bound))
    image, slope = psi.affine(a)
    room = slope * _room(cells)
    scale = room * cells.second.width / (2 * cells.first.width)
    return scale, image + room * b - scale * a


def _map_second_without_copy(cells: Grids, psi: CellMap, x1: Tensor) -> ScaleAndOffset:
    """Returns the scale and offset that map x_2 and remove [x_1] from it."""
    psi_input = psi.inverse(x1)
    a = cells.first.round(psi_input)
    b = cells.second.round((psi_input - a) / _room(cells))
    image, slope = psi.affine(b, a)
    scale = slope / below_digits(cells.first, cells.input_bound)
    return scale, image - slope * b - scale * a


STEPS: dict[int, Sequence[Step]] = {  # from latent to data
    4: (_store_second, _map_second, _map_first, _remove_first),
    3: (store_first, _map_first_and_store, _map_second_without_copy),
}


def below_digits(grid: Grid, bound: float) -> float:
    """Returns the scale that brings numbers within a bound below the digits of a grid."""
    return grid.width / (4 * bound)


def _room(cells: Grids) -> float:
    """Returns the scale that brings all cells of the second half into one of the first."""
    return cells.first.width / (2 * (cells.input_bound + cells.second.width))


def triangular_flow(target: Target, epsilon: float, couplings: int = 4) -> Flow:
    """Returns three or four affine couplings that approximate a distribution in W2.

    Their error is at most `epsilon`, to first order. The target has a triangular map and an even
    number of features. Nothing is trained: the conditioners are formulas of that map. With four
    couplings the flow, in float64, is as well conditioned as the map and close to the density of
    the target, except at rare points (`Cells.rare`). With three, its smallest singular value falls
    like the root of the error for two features, and like the error for more.
    (docs/theory/universal.md)

    Raises:
        ArgumentError: The target has no triangular map or an odd number of features, or the error
            is out of range.
    """
    cells = Cells.of(target, epsilon, couplings)
    return write_flow(target.features, cells, CellMap(target, cells), STEPS[couplings])


def write_flow(features: int, cells: Grids, psi: CellMap, steps: Sequence["Step"]) -> Flow:
    """Returns the couplings of these steps, in float64; the last one keeps the first half."""
    half = Partition.half(features)  # keeps the first half
    layers = [
        AffineCoupling(
            half.swapped() if place % 2 else half,
            TriangularConditioner(step, cells, psi),
            scale="exp",
        )
        for place, step in enumerate(reversed(steps))
    ]
    return Flow(StandardNormal(features), Chain(layers)).double()
