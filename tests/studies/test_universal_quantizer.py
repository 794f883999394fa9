"""Rounding by ReLU networks."""

import pytest
import torch

from kappaflow.errors import ArgumentError
from kappaflow.nets import MLP
from kappaflow_studies.universal.quantizer import Grid, quantizer_network

GRIDS = [
    Grid(0.3, 1, 1e-3),
    Grid(1.0, 3, 1e-2),
    Grid(0.037, 8, 1e-7),
    Grid(0.011, 12, 1e-12),
]


def cell_middles(x, grid):
    """Returns the middles of the cells by counting, as floor does."""
    half = 2 ** (grid.digits - 1)
    return grid.width * ((x / grid.width).floor().clamp(-half, half - 1) + 0.5)


def points_off_ramps(grid, count=4000):
    """Returns numbers within and beyond the grid, none of them on a ramp."""
    x = (torch.rand(count, 1, dtype=torch.float64) - 0.5) * 3 * grid.reach
    away = (x / grid.width - (x / grid.width).round()).abs()
    return x[away[:, 0] > 0.51 * grid.ramp + 1e-12]


def allowed(grid):
    """Returns the rounding error of a layer a digit, of the last one, and of the comparison."""
    return torch.finfo(torch.float64).eps * (grid.digits + 2) * grid.reach


@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_it_rounds_as_floor_does(grid):
    """Off the ramps it is the step function up to rounding, however steep it is."""
    x = points_off_ramps(grid)
    found = quantizer_network(1, grid, [(1.0, 0.0)])(x)
    torch.testing.assert_close(found, cell_middles(x, grid), rtol=0, atol=allowed(grid))


@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_the_rest_is_what_rounding_leaves(grid):
    """Magnified by the inverse of the width it is exact to rounding: no large numbers cancel."""
    x = points_off_ramps(grid)
    found = quantizer_network(1, grid, [(0.0, 1 / grid.width)])(x)
    expected = (x - cell_middles(x, grid)) / grid.width
    torch.testing.assert_close(found, expected, rtol=0, atol=allowed(grid) / grid.width)


def test_features_are_rounded_each_for_itself():
    """A network for three features answers as three networks do, a block for each pair."""
    grid, answers = Grid(0.5, 3, 1e-4), [(1.0, 0.0), (-2.0, 3.0), (0.0, 0.0)]
    x = torch.randn(50, 3, dtype=torch.float64)
    together = quantizer_network(3, grid, answers)(x).reshape(50, len(answers), 3)
    single = quantizer_network(1, grid, answers)
    for i in range(3):
        apart = single(x[:, i : i + 1])
        largest = max(abs(a) + abs(b) for a, b in answers)
        torch.testing.assert_close(together[:, :, i], apart, rtol=0, atol=largest * allowed(grid))


def test_on_a_ramp_it_is_never_farther_than_half_a_cell():
    """Between two cells the rounding is some number near by, and no grid point."""
    grid = Grid(0.25, 4, 0.3)
    x = torch.linspace(-1.99, 1.99, 20001, dtype=torch.float64)[:, None]
    found = quantizer_network(1, grid, [(1.0, 0.0)])(x)
    off = (x - found).abs().max().item()
    assert off <= grid.width / 2 * (1 + 1e-12)
    assert (found[:, 0] - cell_middles(x, grid)[:, 0]).abs().max() > 0.3 * grid.width


def test_it_is_an_ordinary_network_of_the_promised_size():
    """Linear and ReLU in turn, four units a feature, two layers a digit."""
    net = quantizer_network(2, Grid(0.1, 5, 1e-3), [(1.0, 0.0)])
    assert type(net) is MLP and not net.residual
    assert [layer.out_features for layer in net.layers] == [8] * 10 + [2]


@pytest.mark.parametrize(("reach", "width", "digits"), [(1.0, 0.5, 2), (1.0, 0.49, 3), (1, 9, 1)])
def test_a_grid_covers_what_it_should(reach, width, digits):
    """With the fewest digits that do."""
    grid = Grid.covering(reach, width, 0.01)
    assert grid.digits == digits
    assert grid.reach >= reach and (digits == 1 or grid.reach / 2 < reach)


@pytest.mark.parametrize("arguments", [(0.0, 1.0, 0.1), (1.0, -1.0, 0.1), (1.0, 1.0, 1.0)])
def test_a_grid_that_cannot_be_is_refused(arguments):
    """No reach, no width, or ramps as wide as the cells."""
    with pytest.raises(ArgumentError, match="should be"):
        Grid.covering(*arguments)
