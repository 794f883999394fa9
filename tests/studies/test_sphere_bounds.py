"""Bounds on depth, on total variation and on divergence, against flows that can be computed."""

from math import ceil, exp, log, pi

import numpy as np
import pytest
import torch
from scipy.integrate import trapezoid
from scipy.special import ndtr, ndtri
from scipy.stats import chi, norm

from kappaflow.errors import ArgumentError
from kappaflow_studies.sphere.bounds import (
    LayerClass,
    min_depth,
    min_parameters,
    most_in_cells,
    tearing_bound,
    transport_divergence,
    volume_bound,
)
from kappaflow_studies.sphere.mixture import SphereMixture
from kappaflow_studies.sphere.packing import Packing, gaussian_norm, mixture_packing

FAMILY = mixture_packing(256, 64, distance=0.1)
TWO_MODES = SphereMixture(torch.tensor([[1.0], [-1.0]]), 0.1)


@pytest.mark.parametrize("layers", [1, 7])
@pytest.mark.parametrize(("slope", "push"), [(1.0, 0.5), (1.2, 0.3), (0.6, 0.4)])
def test_the_sensitivity_is_attained(layers, slope, push):
    """By x -> slope |x| + push theta (1 + |x|) on the line, at theta = 1, differentiated."""
    z = abs(np.random.default_rng(0).standard_normal(1000))
    z *= gaussian_norm(1) / z.mean()  # so that the mean of |z| is exact

    def flow(theta):
        x = z
        for _ in range(layers):
            x = slope * abs(x) + push * theta * (1 + abs(x))
        return x

    moved = (flow(1.0) - flow(1 - 1e-7)).mean() / 1e-7
    layer = LayerClass(1, lipschitz=slope + push, parameter_lipschitz=push)
    assert exp(layer.log_sensitivity(layers, 1)) == pytest.approx(moved, rel=1e-5)


def test_a_bound_on_the_whole_replaces_the_power():
    """S for layers that stretch by 2 each, but no consecutive ones by more than 3."""
    layer = LayerClass(1, lipschitz=2.0, parameter_lipschitz=0.5, whole_lipschitz=3.0)
    t, mean = [1, 2, 3, 3], gaussian_norm(5)
    n = [t[i] * mean + 0.5 * sum(t[:i]) for i in range(4)]
    by_hand = 0.5 * sum(t[3 - i] * (1 + n[i]) for i in range(4))
    assert exp(layer.log_sensitivity(4, 5)) == pytest.approx(by_hand)


def test_the_net_has_a_flow_for_each_cell():
    """At least the exact number of cells of edge w / S, at most one more a side."""
    layer = LayerClass(3, lipschitz=1.5, parameter_lipschitz=1.0)
    cells = 2 * exp(layer.log_sensitivity(2, 4)) / 0.5
    assert ceil(cells) <= exp(layer.log_net(2, 4, 0.5) / 6) <= ceil(cells) + 1


@pytest.mark.parametrize("parameters", [1, 5, 64, 256 * 64])
@pytest.mark.parametrize("largest", [10.0, float("inf")])
def test_the_bound_is_where_the_net_outgrows_the_family(parameters, largest):
    """One layer less has a net that is too small for what stays a quarter away."""
    flows = LayerClass(parameters, 2.0, 1.0, whole_lipschitz=largest)
    layers = min_depth(FAMILY, flows, 64)
    assert flows.log_net(layers, 64, 0.1 / 4) >= FAMILY.log_count
    if layers > 1:  # a layer with as many parameters as the mixture has numbers may be enough
        assert flows.log_net(layers - 1, 64, 0.1 / 4) < FAMILY.log_count
    assert (layers == 1) == (parameters == 256 * 64)


def test_depth_is_inverse_to_the_parameters_of_a_layer_for_smooth_flows():
    """Up to the logarithm; where only layers are Lipschitz, to their root."""
    big = Packing(1e6, 0.1, 1e9, 0.5, 10)
    for largest, low, high in ((10.0, 50, 100), (float("inf"), 7, 14)):
        few, many = (min_depth(big, LayerClass(p, 2.0, 1.0, largest), 64) for p in (10, 1000))
        assert low < few / many < high
    with pytest.raises(ArgumentError, match="'family' is too large"):
        min_depth(Packing(1e12, 0.1, 1e9, 0.5, 10), LayerClass(1, 2.0, 1.0, 10.0), 64)


def test_numbers_of_32_bits_name_that_many_flows():
    """2^(32 n) at least as many as the family has mixtures, without any other assumption."""
    assert 32 * log(2) * min_parameters(FAMILY) == pytest.approx(FAMILY.log_count)


def on_the_line(mixture, steepest):
    """Returns the total variation to a mixture on the line from the best flow we know.

    It is the monotone transport from the left on, never steeper than allowed, so that it falls
    behind in a gap between modes and catches up within the next mode.
    """
    x = np.linspace(-2, 2, 200_001)
    density = np.exp(mixture.log_prob(torch.from_numpy(x)[:, None]).numpy())
    truth = (density[1:] + density[:-1]) / 2 * (x[1] - x[0])
    below = np.concatenate(([0.0], np.cumsum(truth)))
    z = np.linspace(-8, 8, 200_001)
    transport = np.interp(ndtr(z), below, x)
    g = np.minimum.accumulate(transport - steepest * z) + steepest * z
    masses = np.diff(np.interp(x, g, ndtr(z), left=0.0, right=1.0))
    return np.maximum(truth - masses, 0).sum()


@pytest.mark.slow
@pytest.mark.parametrize("features", [1, 8])
@pytest.mark.parametrize("lipschitz", [0.5, 1.5, 3.0])
def test_the_volume_bound_is_attained_by_a_single_gaussian(features, lipschitz):
    """The total variation of two Gaussians of one center, integrated over the radius."""
    mixture = SphereMixture(torch.zeros(1, features), 0.25)
    r = np.linspace(0, (features**0.5 + 8) / lipschitz, 400_001)
    first, second = chi.pdf(r / 0.25, features) / 0.25, chi.pdf(r * lipschitz, features)
    truth = 0.5 * trapezoid(abs(first - second * lipschitz), r)
    assert volume_bound(mixture, lipschitz) == pytest.approx(truth, abs=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(("k", "d", "sigma"), [(1, 3, 0.3), (8, 4, 0.1), (9, 2, 0.05)])
@pytest.mark.parametrize("scale", [0.1, 0.3, 1.0, 3.0])
def test_linear_flows_keep_to_both_bounds(k, d, sigma, scale):
    """N(0, scale^2 I), whose constants are `scale` and its reciprocal; four standard errors."""
    mixture = SphereMixture.random(k, d, sigma=sigma)
    x = mixture.sample(40_000, generator=torch.Generator().manual_seed(0))
    log_q = -0.5 * (x / scale).square().sum(dim=1) - d * log(scale) - 0.5 * d * log(2 * pi)
    short = (1 - (log_q - mixture.log_prob(x)).exp()).clamp(min=0)
    most = short.mean().item() + 4 * short.std().item() / len(x) ** 0.5
    assert volume_bound(mixture, 1 / scale) <= most
    assert tearing_bound(mixture, scale) <= most


@pytest.mark.slow
@pytest.mark.parametrize("steepest", [0.1, 1.0, 5.0, 20.0])
def test_transports_of_bounded_slope_keep_to_the_tearing_bound(steepest):
    """Two modes on the line: never above the truth, and close to it."""
    truth = on_the_line(TWO_MODES, steepest)
    assert 0.97 * truth < tearing_bound(TWO_MODES, steepest) <= truth + 1e-6


@pytest.mark.parametrize("cells", [2, 3, 10, 500])
def test_no_masses_of_cells_apart_exceed_the_most(cells):
    """Intervals of the line, and any masses that the neighborhoods leave room for."""
    rng = np.random.default_rng(cells)
    for _ in range(200):
        apart = rng.uniform(0, 3)
        widths = rng.exponential(rng.uniform(0.01, 2), cells)
        left = np.cumsum(widths + apart) - widths
        left -= rng.uniform() * left[-1] + rng.normal()
        share = rng.dirichlet(np.full(cells, rng.uniform(0.05, 2)))
        for masses in (ndtr(left + widths) - ndtr(left), ndtr(ndtri(share) - apart / 2)):
            assert np.minimum(masses, 1 / cells).sum() <= most_in_cells(cells, apart) + 1e-12


def test_bounds_fall_with_the_constant_and_have_their_limits():
    """Nothing is reported of a steep flow, nearly everything of a flat one."""
    mixture = SphereMixture.random(32, 8, sigma=0.02)
    for bound in (volume_bound, tearing_bound):
        values = [bound(mixture, constant) for constant in (1e-3, 0.1, 1.0, 10.0, 1e3)]
        assert values == sorted(values, reverse=True)
        assert values[0] > 0.9 and values[-1] < 1e-3
    assert tearing_bound(SphereMixture.random(1, 4), 1.0) == 0
    for apart in (0.1, 1.0, 4.0):  # two cells: one side, and a tail beyond the gap
        assert most_in_cells(2, apart) == pytest.approx(0.5 + norm.cdf(-apart), abs=1e-9)
    assert most_in_cells(7, 0.0) == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize(("radius", "sigma"), [(1.0, 0.1), (1.0, 1.0), (0.2, 1.0)])
def test_the_divergence_of_a_distance_holds_around_two_modes(radius, sigma):
    """Exponential tilts of a mixture on the line by random Lipschitz functions, on a grid.

    Tilts along x attain the bound as they get small: neither r^2 nor sigma^2 alone would do.
    """
    mixture = SphereMixture(torch.tensor([[radius], [-radius]]), sigma)
    x = np.linspace(-8, 8, 4001)
    p = np.exp(mixture.log_prob(torch.from_numpy(x)[:, None]).numpy())
    p /= p.sum()
    rng, shares = np.random.default_rng(0), []
    for number in range(40):
        turning = rng.choice([-1.0, 1.0], 8).repeat(501)[: len(x)]
        slopes = np.ones(len(x)) if number < 10 else turning
        tilt = 0.05 * 1.4 ** (number % 10) * np.cumsum(slopes) * (x[1] - x[0])
        q = p * np.exp(tilt - tilt.max())
        q /= q.sum()
        divergence = (q * np.log(np.maximum(q, 1e-300) / np.maximum(p, 1e-300))).sum()
        distance = abs(np.cumsum(q - p)).sum() * (x[1] - x[0])
        shares.append(transport_divergence(distance, radius**2 + sigma**2) / divergence)
    assert 0.99 < max(shares) <= 1 + 1e-6
