"""The laws to be approximated, against their densities in closed form."""

import math
from itertools import pairwise

import pytest
import torch

from kappaflow import registry
from kappaflow.errors import ArgumentError
from kappaflow_studies.universal.targets import (
    TARGETS,
    Banana,
    Checkerboard,
    Ring,
    TruncatedMixture,
    UniformCube,
)

NORMAL = torch.distributions.Normal(0.0, 1.0)


def square_density(target, x):
    """Returns the uniform density."""
    return torch.full_like(x[:, 0], 0.5**target.features)


def ring_density(target, x):
    """Returns the uniform density between two circles."""
    radius = x.norm(dim=1)
    inside = (radius < 1) & (radius > target.inner)
    return inside.double() / (math.pi * (1 - target.inner**2))


def banana_density(target, x):
    """Returns the product of the uniform densities of each feature given the one before."""
    density = 0.5 * (x[:, 0].abs() < 1)
    for before, own in pairwise(x.unbind(1)):
        noise = (own - (1 - target.width) * (2 * before**2 - 1)) / target.width
        density = density * (noise.abs() < 1) / (2 * target.width)
    return density


def checkerboard_density(target, x):
    """Returns the uniform density on the squares whose row and column are both even, or odd."""
    row, column = ((x + 1) * 2).floor().unbind(1)
    return 0.5 * ((row + column) % 2 == 0)


def mixture_density(target, x):
    """Returns the even mixture of Gaussians that are cut off."""
    total = 0
    for mean in target.means:
        one = torch.ones_like(x[:, 0])
        for i, center in enumerate(mean):
            place = torch.tensor([center, target.deviation, 1.0], dtype=x.dtype)
            law = torch.distributions.Normal(*place[:2])
            inside = law.cdf(place[2]) - law.cdf(-place[2])
            one = one * law.log_prob(x[:, i]).exp() / inside
        total = total + one / len(target.means)
    return total


DENSITIES = {
    UniformCube: square_density,
    Ring: ring_density,
    Banana: banana_density,
    Checkerboard: checkerboard_density,
    TruncatedMixture: mixture_density,
}
CASES = {**TARGETS, "cube": UniformCube(4), "wide ring": Ring(0.1), "thick banana": Banana(3, 1.0)}


@pytest.mark.parametrize("name", CASES)
def test_the_map_makes_the_law_of_a_normal(name):
    """The density of z is that of phi(z) times |det|, at each of 500 points."""
    target = CASES[name]
    z = torch.randn(500, target.features, dtype=torch.float64)
    jacobian = torch.func.vmap(torch.func.jacfwd(lambda one: target.transport(one[None])[0]))(z)
    found = DENSITIES[type(target)](target, target.transport(z)) * torch.linalg.det(jacobian).abs()
    expected = NORMAL.log_prob(z).sum(1).exp()
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=0)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, law in CASES.items() if law.features < 5])
def test_draws_fill_the_whole_support(name):
    """E |x|^2 is that of the density: an integral over a grid, within five standard errors."""
    target = CASES[name]
    drawn = target.sample(20_000, generator=torch.Generator().manual_seed(1))
    squares = drawn.square().sum(1)
    n = {1: 1000, 2: 400, 3: 120, 4: 44}[target.features]
    axis = (torch.arange(n, dtype=torch.float64) + 0.5) * 2 / n - 1
    grid = torch.cartesian_prod(*[axis] * target.features).reshape(-1, target.features)
    density = DENSITIES[type(target)](target, grid)
    expected = (density * grid.square().sum(1)).sum() / density.sum()
    allowed = 5 * squares.std() / math.sqrt(len(squares)) + 1 / n
    assert (squares.mean() - expected).abs() < allowed
    assert drawn.abs().max() <= target.reach


def test_all_mass_is_inside():
    """The densities that the map is compared with are densities."""
    axis = (torch.arange(400, dtype=torch.float64) + 0.5) / 200 - 1
    grid = torch.cartesian_prod(axis, axis)
    for name in ("square", "ring", "banana", "checkerboard", "mixture"):
        density = DENSITIES[type(TARGETS[name])](TARGETS[name], grid)
        assert density.mean().item() * 4 == pytest.approx(1, abs=0.01), name


@pytest.mark.parametrize("features", [2, 4])
def test_the_stretch_of_the_cube_has_its_exact_value(features):
    """E (2 exp(-z^2 / 2) / sqrt(2 pi))^2 = 2 / (pi sqrt 3) for each feature of the first half."""
    exact = math.sqrt(features / 2 * 2 / (math.pi * math.sqrt(3)))
    assert UniformCube(features).stretch() == pytest.approx(exact, rel=0.02)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ring", "banana", "mixture", "banana-4d"])
def test_the_stretch_is_what_a_small_error_becomes(name):
    """The mean square of phi(z + e) - phi(z) for small random errors e in the first half."""
    target, size = TARGETS[name], 1e-5
    z = torch.randn(20_000, target.features, dtype=torch.float64)
    error = torch.zeros_like(z)
    half = target.features // 2
    error[:, :half] = size * torch.randn(len(z), half, dtype=torch.float64)
    moved = target.transport(z + error) - target.transport(z)
    found = moved.square().sum(1).mean().sqrt().item() / size
    assert target.stretch() == pytest.approx(found, rel=0.05)


@pytest.mark.parametrize("name", TARGETS)
def test_a_target_can_be_named_in_a_file(name):
    """What a description builds is equal."""
    assert registry.build(registry.describe(TARGETS[name])) == TARGETS[name]


@pytest.mark.parametrize(
    "make",
    [
        lambda: UniformCube(0),
        lambda: Banana(2, width=1.5),
        lambda: Ring(1.0),
        lambda: TruncatedMixture(()),
        lambda: TruncatedMixture(((2.0, 0.0),)),
        lambda: TruncatedMixture(deviation=0.0),
    ],
)
def test_a_law_that_cannot_be_is_refused(make):
    """No features, shares above one, components outside the square."""
    with pytest.raises(ArgumentError, match="should be"):
        make()
