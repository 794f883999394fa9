"""The targets against their densities in closed form, and the distances that are measured."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch

import kappaflow as kf
from kappaflow_studies.universal import approximation
from kappaflow_studies.universal.approximation import (
    power_law,
    total_variation,
    transport_error,
)
from kappaflow_studies.universal.targets import TARGETS, UniformCube
from kappaflow_studies.wasserstein import wasserstein

NORMAL = torch.distributions.Normal(0.0, 1.0)
SQUARE = TARGETS["square"]


def ring_density(target, x):
    """Returns the uniform density between two circles."""
    radius = x.norm(dim=1)
    inside = (radius < 1) & (radius > target.inner)
    return inside.double() / (math.pi * (1 - target.inner**2))


def banana_density(target, x):
    """Returns the product of the uniform densities of each feature given the one before."""
    density = (x[:, 0].abs() < 1).double() / 2
    for before, feature in pairwise(x.unbind(1)):
        noise = (feature - (1 - target.width) * (2 * before**2 - 1)) / target.width
        density = density * (noise.abs() < 1) / (2 * target.width)
    return density


def checkerboard_density(target, x):
    """Returns the uniform density on the squares whose row and column are both even, or odd."""
    row, column = ((x + 1) * 2).floor().unbind(1)
    return ((row + column) % 2 == 0).double() / 2


def mixture_density(target, x):
    """Returns the even mixture of Gaussians that are cut off."""
    total = 0
    for mean in target.means:
        normal = torch.distributions.Normal(
            torch.tensor(mean, dtype=torch.float64), target.deviation
        )
        ends = torch.ones(2, dtype=torch.float64)
        inside = normal.cdf(ends) - normal.cdf(-ends)
        total = total + (normal.log_prob(x).exp() / inside).prod(1)
    return total / len(target.means)


DENSITIES = {
    "square": lambda target, x: torch.full_like(x[:, 0], 0.25),
    "cube-4d": lambda target, x: torch.full_like(x[:, 0], 1 / 16),
    "ring": ring_density,
    "banana": banana_density,
    "banana-4d": banana_density,
    "banana-8d": banana_density,
    "checkerboard": checkerboard_density,
    "mixture": mixture_density,
}


@pytest.mark.parametrize("name", TARGETS)
def test_the_map_makes_the_distribution_of_a_normal(name):
    """The density of z is that of phi(z) times |det|, and `log_density` is that of phi(z)."""
    target = TARGETS[name]
    z = torch.randn(500, target.features, dtype=torch.float64)
    jacobian = torch.func.vmap(torch.func.jacfwd(lambda row: target.transport(row[None])[0]))(z)
    density = DENSITIES[name](target, target.transport(z))
    expected = NORMAL.log_prob(z).sum(1).exp()
    actual = density * torch.linalg.det(jacobian).abs()
    torch.testing.assert_close(actual, expected, rtol=1e-9, atol=0)
    torch.testing.assert_close(target.log_density(z), density.log(), rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("name", ["square", "ring", "banana", "checkerboard", "mixture"])
def test_samples_fill_the_support(name):
    """E |x|^2 is that of the density: an integral over a grid, within five standard errors."""
    target = TARGETS[name]
    samples = target.sample(20_000, generator=torch.Generator().manual_seed(1))
    squares = samples.square().sum(1)
    axis = (torch.arange(400, dtype=torch.float64) + 0.5) / 200 - 1
    grid = torch.cartesian_prod(axis, axis)
    density = DENSITIES[name](target, grid)
    assert density.mean().item() * 4 == pytest.approx(1, abs=0.01)
    expected = (density * grid.square().sum(1)).sum() / density.sum()
    assert (squares.mean() - expected).abs() < 5 * squares.std() / math.sqrt(20_000) + 1 / 400
    assert samples.abs().max() <= target.reach


@pytest.mark.parametrize("name", ["ring", "banana", "mixture", "banana-4d"])
def test_the_stretch_is_what_a_small_error_becomes(name):
    """The mean square of phi(z + e) - phi(z) for small random errors e in the first half."""
    target, size = TARGETS[name], 1e-5
    z = torch.randn(20_000, target.features, dtype=torch.float64)
    error, half = torch.zeros_like(z), target.features // 2
    error[:, :half] = size * torch.randn(len(z), half, dtype=torch.float64)
    moved = target.transport(z + error) - target.transport(z)
    stretch = moved.square().sum(1).mean().sqrt().item() / size
    assert target.stretch() == pytest.approx(stretch, rel=0.05)
    exact = math.sqrt(2 / (math.pi * math.sqrt(3)))  # E (2 exp(-z^2 / 2) / sqrt(2 pi))^2
    assert SQUARE.stretch() == pytest.approx(exact, rel=0.02)


def test_an_exact_power_law_has_its_exponent_and_factor():
    """With no width of the interval."""
    law = power_law([0.1, 0.2, 0.4, 0.8], [3 * x**4 for x in (0.1, 0.2, 0.4, 0.8)])
    assert law.exponent == pytest.approx(4) and law.factor == pytest.approx(3)
    assert law.high - law.low < 1e-10


def test_the_interval_covers_as_often_as_it_says():
    """Of 400 noisy lines 95 %, within four standard errors."""
    generator, x, covered = np.random.default_rng(0), np.geomspace(0.01, 1, 6), 0
    for _ in range(400):
        law = power_law(x, x**1.5 * np.exp(generator.normal(0, 0.2, len(x))))
        covered += law.low <= 1.5 <= law.high
    assert abs(covered / 400 - 0.95) < 4 * (0.95 * 0.05 / 400) ** 0.5


def test_wasserstein_distances_are_those_that_are_known():
    """Of a shift its length; on the line those of equal ranks."""
    a = torch.randn(200, 3, dtype=torch.float64)
    shifted = (a + torch.tensor([3.0, -4.0, 12.0]))[torch.randperm(200)]
    x, y = torch.randn(300, 1).double(), torch.rand(300, 1).double()
    ranked = (x.sort(0)[0] - y.sort(0)[0]).abs()
    for order in (1, 2):
        assert wasserstein(a, shifted, order=order) == pytest.approx(13.0, rel=1e-12)
        expected = ranked.pow(order).mean().item() ** (1 / order)
        assert wasserstein(x, y, order=order) == pytest.approx(expected, rel=1e-12)


def gaussian(scale):
    """Returns the flow whose samples are scale * z."""
    part = kf.bijections.ElementwiseAffine(2, log_scale=[-math.log(scale)] * 2)
    return kf.Flow(kf.StandardNormal(2), part).double()


class Plain(UniformCube):
    """The standard normal itself, as a target."""

    def transport(self, z):
        return z


def test_the_error_of_a_known_map_is_measured():
    """E |z / 2 - z|^2 = 1 / 2; the standard error is the spread of forty estimates."""
    bound, error = transport_error(gaussian(0.5), Plain(), samples=50_000)
    assert abs(bound - math.sqrt(0.5)) < 4 * error
    estimates = [transport_error(gaussian(0.5), Plain(), samples=500, seed=i) for i in range(40)]
    spread = torch.tensor([bound for bound, _ in estimates]).std().item()
    assert spread == pytest.approx(estimates[0][1], rel=0.34)
    with_rare = transport_error(gaussian(0.5), Plain(), unseen=0.1, samples=50_000)[0]
    assert with_rare**2 == pytest.approx(bound**2 + 0.1)


def test_all_chunks_count(monkeypatch):
    """Four of them, the last one short; the mean is over all."""
    seen = []

    class Seen(Plain):
        def transport(self, z):
            seen.append(len(z))
            return z + len(seen)

    monkeypatch.setattr(approximation, "CHUNK_SIZE", 300)
    bound, _ = transport_error(gaussian(1.0), Seen(), samples=1000)
    assert seen == [300, 300, 300, 100]
    assert bound**2 == pytest.approx(2 * (0.3 * (1 + 4 + 9) + 0.1 * 16), rel=1e-12)


def test_total_variation_is_that_of_two_densities():
    """Between a square and the normal itself, by numerical integration of |p - q| / 2."""
    flow = kf.Flow(kf.StandardNormal(2), kf.Chain([])).double()
    line = torch.linspace(-1, 1, 2001, dtype=torch.float64)
    p = torch.exp(-(line[:, None] ** 2 + line**2) / 2) / (2 * torch.pi)
    exact = (0.25 - p).clamp(min=0).mean().item() * 4
    assert total_variation(flow, SQUARE, samples=50_000) == pytest.approx(exact, abs=0.01)
