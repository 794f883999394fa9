"""The mixture on a sphere: its density, its draws, its entropy and divergences."""

from math import e, isnan, log, pi

import pytest
import torch
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal

from kappaflow import real_nvp
from kappaflow.errors import ArgumentError
from kappaflow_studies.sphere.mixture import Estimate, SphereMixture


def generator(seed=0):
    """Returns a source of randomness."""
    return torch.Generator().manual_seed(seed)


def test_the_density_is_that_of_torch():
    """At points near and between the means."""
    mixture = SphereMixture.random(7, 5, radius=2.0, sigma=0.3)
    parts = Independent(Normal(mixture.means, torch.tensor(0.3, dtype=torch.float64)), 1)
    theirs = MixtureSameFamily(Categorical(torch.ones(7, dtype=torch.float64)), parts)
    x = 2 * torch.randn(100, 5, generator=generator(), dtype=torch.float64)
    assert torch.allclose(mixture.log_prob(x), theirs.log_prob(x), rtol=1e-12)
    assert torch.allclose(mixture.log_prob(x.float()), theirs.log_prob(x.float().double()))


def test_the_density_integrates_to_one():
    """On a grid of the plane."""
    mixture = SphereMixture.random(5, 2, sigma=0.2)
    axis = torch.linspace(-3, 3, 301, dtype=torch.float64)
    x = torch.cartesian_prod(axis, axis)
    assert mixture.log_prob(x).exp().sum().item() * 0.02**2 == pytest.approx(1, abs=1e-9)


def test_it_stays_exact_far_away_and_for_narrow_components():
    """Where all densities underflow, and where |x|^2 - 2 x.m + |m|^2 would lose all digits."""
    mixture = SphereMixture(torch.tensor([[1.0, 0.0], [0.0, 1.0]]), 1e-6)
    x = torch.tensor([[1e5, 0.0], [1 + 3e-6, 0.0]], dtype=torch.float64)
    expected = torch.tensor([-0.5 * ((1e5 - 1) / 1e-6) ** 2, -4.5], dtype=torch.float64)
    expected = expected - 2 * log(1e-6) - log(2 * pi) - log(2)
    assert torch.allclose(mixture.log_prob(x), expected, rtol=1e-9)


def test_means_are_uniform_on_the_sphere_and_follow_the_seed():
    """Of one norm, with mean 0 and covariance r^2/d; the same seed draws the same."""
    mixture = SphereMixture.random(20_000, 4, radius=3.0, seed=5)
    assert torch.allclose(mixture.means.norm(dim=1), torch.tensor(3.0, dtype=torch.float64))
    assert mixture.radius == pytest.approx(3)
    assert mixture.means.mean(dim=0).abs().max() < 5 * 1.5 / 20_000**0.5
    covariance = mixture.means.T @ mixture.means / 20_000
    assert torch.allclose(covariance, 2.25 * torch.eye(4, dtype=torch.float64), atol=0.08)
    same, again, other = (SphereMixture.random(9, 4, seed=seed).means for seed in (5, 5, 6))
    assert torch.equal(same, again) and not torch.equal(same, other)


def test_draws_are_equal_shares_of_gaussians_around_the_means():
    """Nearest mean tells the component; five standard deviations."""
    mixture = SphereMixture.random(4, 8, sigma=0.02, seed=1)
    x = mixture.sample(40_000, generator=generator())
    own = torch.cdist(x, mixture.means).argmin(dim=1)
    counts = own.bincount(minlength=4)
    assert (counts - 10_000).abs().max() < 5 * (40_000 * 0.25 * 0.75) ** 0.5
    noise = (x - mixture.means[own]) / 0.02
    assert noise.mean().abs() < 5 / noise.numel() ** 0.5
    assert abs(noise.square().mean() - 1) < 5 * (2 / noise.numel()) ** 0.5
    assert torch.equal(x, mixture.sample(40_000, generator=generator()))


def test_the_entropy_of_separate_components_is_known():
    """Log k more than that of one; five standard errors."""
    mixture = SphereMixture.random(8, 6, sigma=0.01)
    found = mixture.entropy(20_000, generator=generator())
    truth = log(8) + 3 * log(2 * pi * e * 1e-4)
    assert abs(found.value - truth) < 5 * found.standard_error
    assert found.standard_error == pytest.approx((6 / 2) ** 0.5 / 20_000**0.5, rel=0.05)


def test_the_divergence_of_a_single_gaussian_is_known():
    """To a standard Gaussian, which a new flow is; in float32 too."""
    mixture = SphereMixture.random(1, 3, radius=1.5, sigma=0.5)
    flow = real_nvp(3, depth=2, hidden=(4,))
    truth = (2.25 + 3 * 0.25 - 3 - 3 * log(0.25)) / 2
    found = mixture.divergence_to(
        flow.log_prob, 20_000, dtype=torch.float32, generator=generator()
    )
    assert abs(found.value - truth) < 5 * found.standard_error
    assert found.standard_error < 0.02


def test_an_estimate_knows_its_error():
    """A single draw has none to show."""
    assert Estimate.of(torch.tensor([1.0, 3.0])) == Estimate(2.0, 1.0, 2)
    assert str(Estimate(1.23456, 0.0123, 10)) == "1.235 +- 0.012"
    assert isnan(Estimate.of(torch.ones(1)).standard_error)


def test_the_mean_distance_is_over_pairs():
    """Three means on a line through the origin."""
    means = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [-1.0, 0.0]])
    assert SphereMixture(means, 0.1).mean_distance() == pytest.approx(4 / 3)


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: SphereMixture(torch.tensor([[1.0, 0.0], [2.0, 0.0]]), 0.1), "one norm"),
        (lambda: SphereMixture(torch.zeros(2, 2), 0.1), "the norm of the means"),
        (lambda: SphereMixture(torch.full((2, 2), float("nan")), 0.1), "finite numbers"),
        (lambda: SphereMixture(torch.empty(0, 2), 0.1), "a table"),
        (lambda: SphereMixture(torch.ones(2, 2, 2), 0.1), "a table"),
        (lambda: SphereMixture(torch.ones(2, 2), 0.0), "'sigma'"),
        (lambda: SphereMixture.random(0, 2), "'components'"),
        (lambda: SphereMixture.random(2, 2, radius=0.0), "'radius'"),
        (lambda: SphereMixture.random(2, 2, seed=-1), "'seed'"),
        (lambda: SphereMixture.random(2, 2).log_prob(torch.ones(4, 3)), "'x' should have shape"),
        (lambda: SphereMixture.random(2, 2).sample(0), "'n' should be at least 1"),
    ],
)
def test_what_is_no_mixture_is_refused(call, match):
    """In one sentence."""
    with pytest.raises(ArgumentError, match=match):
        call()
