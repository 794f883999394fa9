"""Lower bounds on the total variation, against flows whose total variation is computable."""

from math import log, pi

import numpy as np
import pytest
import torch
from scipy.integrate import trapezoid
from scipy.special import ndtr, ndtri
from scipy.stats import chi, norm

from kappaflow.errors import ArgumentError
from kappaflow_studies.sphere.bounds import (
    divergence_at_least,
    most_in_cells,
    tearing_bound,
    transport_divergence,
    volume_bound,
)
from kappaflow_studies.sphere.mixture import SphereMixture

TWO_MODES = SphereMixture(torch.tensor([[1.0], [-1.0]]), 0.1)


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


def linear(mixture, scale, n=40_000):
    """Returns the total variation to N(0, scale^2 I), and its standard error, by draws."""
    x = mixture.sample(n, generator=torch.Generator().manual_seed(0))
    d = mixture.features
    log_q = -0.5 * (x / scale).square().sum(dim=1) - d * log(scale) - 0.5 * d * log(2 * pi)
    short = (1 - (log_q - mixture.log_prob(x)).exp()).clamp(min=0)
    return short.mean().item(), short.std().item() / n**0.5


@pytest.mark.slow
@pytest.mark.parametrize("features", [1, 2, 8, 64])
@pytest.mark.parametrize("lipschitz", [0.5, 1.5, 3.0])
def test_the_volume_bound_is_attained_by_a_single_gaussian(features, lipschitz):
    """The total variation of two Gaussians of one center, integrated over the radius."""
    mixture = SphereMixture.random(1, features, sigma=0.25)
    r = np.linspace(0, (features**0.5 + 8) / lipschitz, 400_001)
    one, two = chi.pdf(r / 0.25, features) / 0.25, chi.pdf(r * lipschitz, features) * lipschitz
    truth = 0.5 * trapezoid(abs(one - two), r)
    assert volume_bound(mixture, lipschitz) == pytest.approx(truth, abs=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("k", "d", "sigma"), [(1, 3, 0.3), (8, 4, 0.1), (64, 16, 0.2), (9, 2, 0.05)]
)
@pytest.mark.parametrize("scale", [0.1, 0.3, 1.0, 3.0])
def test_linear_flows_keep_to_both_bounds(k, d, sigma, scale):
    """Their constants are `scale` and its reciprocal; four standard errors."""
    mixture = SphereMixture.random(k, d, sigma=sigma)
    truth, error = linear(mixture, scale)
    assert volume_bound(mixture, 1 / scale) <= truth + 4 * error
    assert tearing_bound(mixture, scale) <= truth + 4 * error


@pytest.mark.slow
@pytest.mark.parametrize("steepest", [0.1, 0.3, 1.0, 2.0, 5.0, 20.0])
def test_transports_of_bounded_slope_keep_to_the_tearing_bound(steepest):
    """Two modes on the line: never above the truth, and close to it."""
    truth = on_the_line(TWO_MODES, steepest)
    bound = tearing_bound(TWO_MODES, steepest)
    assert 0.97 * truth < bound <= truth + 1e-6


@pytest.mark.parametrize("cells", [2, 3, 10, 500])
def test_no_masses_of_cells_apart_exceed_the_most(cells):
    """Intervals of the line, and any masses that the neighborhoods leave room for."""
    rng = np.random.default_rng(cells)
    for _ in range(200):
        apart = rng.uniform(0, 3)
        widths = rng.exponential(rng.uniform(0.01, 2), cells)
        left = np.cumsum(widths + apart) - widths
        left -= rng.uniform() * left[-1] + rng.normal()
        masses = ndtr(left + widths) - ndtr(left)
        assert np.minimum(masses, 1 / cells).sum() <= most_in_cells(cells, apart) + 1e-12
        share = rng.dirichlet(np.full(cells, rng.uniform(0.05, 2)))
        masses = ndtr(ndtri(share) - apart / 2)
        assert np.minimum(masses, 1 / cells).sum() <= most_in_cells(cells, apart) + 1e-12


def test_two_cells_and_a_gap_are_a_half_and_a_tail():
    """The whole of one side, and what is beyond the gap on the other."""
    for apart in (0.1, 1.0, 4.0):
        assert most_in_cells(2, apart) == pytest.approx(0.5 + norm.cdf(-apart), abs=1e-9)
    assert most_in_cells(7, 0.0) == pytest.approx(1, abs=1e-9)


def test_bounds_fall_with_the_constant_and_have_their_limits():
    """Nothing is reported of a steep flow, nearly everything of a flat one."""
    mixture = SphereMixture.random(32, 8, sigma=0.02)
    for bound in (volume_bound, tearing_bound):
        values = [bound(mixture, constant) for constant in (1e-3, 0.1, 1.0, 10.0, 1e3)]
        assert values == sorted(values, reverse=True)
        assert values[0] > 0.9 and values[-1] < 1e-3
    assert tearing_bound(SphereMixture.random(1, 4), 1.0) == 0


def test_divergences_are_above_what_the_total_variation_asks_for():
    """Random pairs of distributions on four points, both ways round."""
    rng = np.random.default_rng(0)
    for _ in range(500):
        p, q = rng.dirichlet(np.full(4, 0.5), 2) + 1e-9
        variation = min(1 - 1e-12, 0.5 * abs(p - q).sum())
        assert (p * np.log(p / q)).sum() >= divergence_at_least(variation) - 1e-7
    # Two point masses against a shifted pair: the first bound is sharp for close ones.
    p, q = np.array([0.5, 0.5]), np.array([0.51, 0.49])
    assert (p * np.log(p / q)).sum() == pytest.approx(divergence_at_least(0.01), rel=1e-3)


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
        slopes = (
            np.ones(len(x)) if number < 10 else rng.choice([-1.0, 1.0], 8).repeat(501)[: len(x)]
        )
        steepness = 0.05 * 1.4 ** (number % 10)
        tilt = steepness * np.cumsum(slopes) * (x[1] - x[0])
        q = p * np.exp(tilt - tilt.max())
        q /= q.sum()
        divergence = (q * np.log(np.maximum(q, 1e-300) / np.maximum(p, 1e-300))).sum()
        distance = abs(np.cumsum(q - p)).sum() * (x[1] - x[0])
        shares.append(transport_divergence(distance, mixture.transport_constant) / divergence)
    assert 0.99 < max(shares) <= 1 + 1e-6


@pytest.mark.parametrize(
    ("wasserstein", "constant"), [(-1.0, 1.0), (1.0, 0.0), (float("nan"), 1.0)]
)
def test_what_is_no_distance_or_constant_is_refused(wasserstein, constant):
    """In one sentence."""
    with pytest.raises(ArgumentError, match="should be a finite number above 0"):
        transport_divergence(wasserstein, constant)


@pytest.mark.parametrize("bad", [-1.0, 0.0, float("nan"), float("inf")])
@pytest.mark.parametrize("bound", [volume_bound, tearing_bound])
def test_what_is_no_constant_is_refused(bound, bad):
    """In one sentence."""
    with pytest.raises(ArgumentError, match="'lipschitz' should be"):
        bound(TWO_MODES, bad)


@pytest.mark.parametrize("bad", [-0.1, 1.0, float("nan")])
def test_what_is_no_total_variation_is_refused(bad):
    """From 0 to below 1."""
    with pytest.raises(ArgumentError, match="'total_variation' should be at least 0 and below 1"):
        divergence_at_least(bad)
