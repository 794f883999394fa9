"""The couplings of the paper on universality, in fractions: digits are written, read, removed."""

from bisect import bisect_right
from fractions import Fraction

import numpy as np
import pytest

NUMBERS = [60, pytest.param(1000, marks=pytest.mark.slow)]  # of maps, with ten points each


class Grid:
    """Cells of equal width on [-R, R]."""

    def __init__(self, reach, cells):
        self.reach, self.cells, self.width = reach, cells, 2 * reach / cells

    def cell(self, t):
        """Returns the number of the cell of t, the nearest one outside."""
        return min(max((t + self.reach) // self.width, 0), self.cells - 1)

    def middle(self, cell):
        """Returns the middle of a cell."""
        return self.width * (cell + Fraction(1, 2)) - self.reach

    def rounded(self, t):
        """Returns the middle of the cell of t."""
        return self.middle(self.cell(t))


class Piecewise:
    """An increasing function that is affine on the cells of a grid."""

    def __init__(self, rng, grid, bound):
        steps = [Fraction(int(x)) for x in rng.integers(1, 50, grid.cells)]
        low, high = (bound * Fraction(int(x), 20) for x in (-rng.integers(1, 21), 20))
        total, self.grid, self.values = sum(steps), grid, [low]
        for step in steps:
            self.values.append(self.values[-1] + (high - low) * step / total)

    def affine(self, cell):
        """Returns slope and value at zero of the line on a cell."""
        slope = (self.values[cell + 1] - self.values[cell]) / self.grid.width
        return slope, self.values[cell] - slope * (cell * self.grid.width - self.grid.reach)

    def __call__(self, t):
        """Returns the value at t."""
        slope, offset = self.affine(self.grid.cell(t))
        return slope * t + offset

    def cell_of_value(self, value):
        """Returns the cell on which the function has a value."""
        return min(max(bisect_right(self.values, value) - 1, 0), self.grid.cells - 1)


def four(first, second, bound):
    """Returns the couplings of equation (1): from the kept half to scale and shift."""
    grid = first.grid
    low, low2 = grid.width / (4 * grid.reach), grid.width / (4 * bound)

    def digits(y):
        return grid.cell((y - grid.rounded(y)) / low)  # of x_1

    def write_second(y):
        slope, offset = second[digits(y)].affine(grid.cell(y))
        return low2 * slope, low2 * offset + grid.middle(digits(y))

    def remove_second(y):
        cell = grid.cell(y)
        other = second[cell].cell_of_value((y - grid.rounded(y)) / low2)
        slope, offset = first.affine(cell)
        return slope / low, offset - slope / low * grid.middle(other)

    def remove_first(y):
        return 1 / low2, -grid.middle(first.cell_of_value(y)) / low2

    return lambda y: (low, grid.rounded(y)), write_second, remove_second, remove_first


def three(first, second, fine):
    """Returns the three couplings for a triangular map, in the same form."""
    grid = first.grid
    low, share = grid.width / (4 * grid.reach), grid.width / (2 * (grid.reach + fine.width))

    def write_second(y):
        middle, cell = grid.rounded(y), grid.cell(y)
        slope, offset = first.affine(cell)
        inner = share * fine.width / (2 * grid.width)
        at = middle + share * fine.rounded((y - middle) / low) - inner * middle
        return slope * inner, slope * at + offset

    def remove_first(y):
        cell = first.cell_of_value(y)
        slope, offset = first.affine(cell)
        place = ((y - offset) / slope - grid.middle(cell)) / share
        slope, offset = second[cell].affine(fine.cell(place))
        return slope / low, offset - slope / low * grid.middle(cell)

    return lambda y: (low, grid.rounded(y)), write_second, remove_first


def run(couplings, z, *, changed):
    """Returns the result of couplings that change the halves by turns, and their scales."""
    x, scales = list(z), [Fraction(1), Fraction(1)]
    for coupling in couplings:
        scale, shift = coupling(x[1 - changed])
        x[changed] = scale * x[changed] + shift
        scales[changed] *= scale
        changed = 1 - changed
    return x, scales


def points(rng, reach, width):
    """Yields latents within the cells, and at both ends of the range."""
    for _ in range(9):
        z = [Fraction(int(k), 720) * reach for k in rng.integers(-720, 720, 2)]
        yield [t + width / 10**9 for t in z]
    yield [reach * int(sign) for sign in rng.choice([-1, 1], 2)]


def maps(rng):
    """Returns the range of latents, a grid, the bound of the values, and a second grid."""
    reach, bound = (Fraction(int(x), int(y)) for x, y in rng.integers(1, 30, (2, 2)))
    grid = Grid(reach, int(rng.integers(2, 9)))
    return reach, grid, bound, Grid(reach, int(rng.integers(2, 30)))


@pytest.mark.parametrize("number", NUMBERS)
def test_four_couplings_are_the_map_on_cells_and_their_scales_cancel(number):
    """Equation (1): no rounding fails for |z| <= R and |psi| <= R', the ends included."""
    rng = np.random.default_rng(0)
    for _ in range(number):
        reach, grid, bound, _ = maps(rng)
        first = Piecewise(rng, grid, bound)
        second = [Piecewise(rng, grid, bound) for _ in range(grid.cells)]
        for z in points(rng, reach, grid.width):
            x, scales = run(four(first, second, bound), z, changed=0)
            cells = [grid.cell(t) for t in z]
            assert x == [first(z[0]), second[cells[0]](z[1])]
            assert scales == [first.affine(cells[0])[0], second[cells[0]].affine(cells[1])[0]]


@pytest.mark.parametrize("number", NUMBERS)
def test_three_couplings_have_the_second_half_and_the_cell_of_the_first(number):
    """The place within a cell holds the digits of the other half, at the price of the slope."""
    rng = np.random.default_rng(1)
    for _ in range(number):
        reach, grid, bound, fine = maps(rng)
        first = Piecewise(rng, grid, bound)
        second = [Piecewise(rng, fine, bound) for _ in range(grid.cells)]
        for z in points(rng, reach, min(grid.width, fine.width)):
            x, scales = run(three(first, second, fine), z, changed=1)
            cell = grid.cell(z[0])
            slope = first.affine(cell)[0]
            assert x[1] == second[cell](z[1])
            assert first.values[cell] < x[0] < first.values[cell + 1]
            assert scales[0] == slope * fine.width / (4 * (reach + fine.width))
            assert scales[1] == second[cell].affine(fine.cell(z[1]))[0]
