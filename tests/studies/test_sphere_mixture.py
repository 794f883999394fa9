"""Mixtures on a sphere, their generator, families of them, and distances between them."""

from itertools import combinations
from math import acos, comb, log, pi, sqrt

import numpy as np
import pytest
import torch
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal

from kappaflow.errors import ArgumentError
from kappaflow_studies.sphere.generator import MixtureGenerator
from kappaflow_studies.sphere.mixture import SphereMixture, random_family, wasserstein_bounds
from kappaflow_studies.sphere.packing import (
    _log_sets,
    cap_share,
    code_size,
    gaussian_norm,
    mixture_packing,
    nearest_distance,
)
from kappaflow_studies.wasserstein import wasserstein


def seeded(seed=0):
    """Returns a random generator."""
    return torch.Generator().manual_seed(seed)


def uniform(count, features, seed=0):
    """Returns uniform points of the unit sphere."""
    points = np.random.default_rng(seed).standard_normal((count, features))
    return points / np.linalg.norm(points, axis=1, keepdims=True)


def pair(k, d, **options):
    """Returns two random mixtures."""
    return (SphereMixture.random(k, d, seed=seed, **options) for seed in (0, 1))


def test_the_density_is_that_of_torch():
    """At points near and between the means."""
    mixture = SphereMixture.random(7, 5, sigma=0.3)
    parts = Independent(Normal(mixture.means, torch.tensor(0.3, dtype=torch.float64)), 1)
    theirs = MixtureSameFamily(Categorical(torch.ones(7, dtype=torch.float64)), parts)
    x = torch.randn(100, 5, generator=seeded(), dtype=torch.float64)
    assert torch.allclose(mixture.log_prob(x), theirs.log_prob(x), rtol=1e-12)


def test_the_density_stays_exact_far_away_and_for_narrow_components():
    """Where all densities underflow, and where |x|^2 - 2 x.m + |m|^2 would lose all digits."""
    mixture = SphereMixture(torch.tensor([[1.0, 0.0], [0.0, 1.0]]), 1e-6)
    x = torch.tensor([[1e5, 0.0], [1 + 3e-6, 0.0]], dtype=torch.float64)
    expected = torch.tensor([-0.5 * ((1e5 - 1) / 1e-6) ** 2, -4.5], dtype=torch.float64)
    expected = expected - 2 * log(1e-6) - log(2 * pi) - log(2)
    assert torch.allclose(mixture.log_prob(x), expected, rtol=1e-9)


def test_means_are_uniform_on_the_sphere():
    """Of norm 1, with mean 0 and covariance 1 / d."""
    means = SphereMixture.random(20_000, 4, seed=5).means
    assert torch.allclose(means.norm(dim=1), torch.ones(20_000, dtype=torch.float64))
    assert means.mean(dim=0).abs().max() < 5 * 0.5 / 20_000**0.5
    covariance = means.T @ means / 20_000
    assert torch.allclose(covariance, 0.25 * torch.eye(4, dtype=torch.float64), atol=0.01)
    points = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [-1.0, 0.0]])
    assert SphereMixture(points, 0.1).mean_distance() == pytest.approx(4 / 3)


def test_samples_are_equal_shares_of_gaussians_around_the_means():
    """Nearest mean tells the component; five standard deviations."""
    mixture = SphereMixture.random(4, 8, sigma=0.02, seed=1)
    x = mixture.sample(40_000, generator=seeded())
    nearest = torch.cdist(x, mixture.means).argmin(dim=1)
    counts = nearest.bincount(minlength=4)
    assert (counts - 10_000).abs().max() < 5 * (40_000 * 0.25 * 0.75) ** 0.5
    noise = (x - mixture.means[nearest]) / 0.02
    assert noise.mean().abs() < 5 / noise.numel() ** 0.5
    assert abs(noise.square().mean() - 1) < 5 * (2 / noise.numel()) ** 0.5


def inputs(n, features):
    """Returns standard Gaussian inputs of a generator."""
    return torch.randn(n, features + 1, generator=seeded(), dtype=torch.float64)


def coupled(generator, z):
    """Returns exact points of the mixture: the cell of the first coordinate is the component."""
    chosen = torch.bucketize(z[:, 0].contiguous(), torch.from_numpy(generator.thresholds))
    return generator.mixture.means[chosen] + generator.mixture.sigma * z[:, 1:]


def on_a_ramp(generator, z):
    """Returns which inputs are."""
    starts, ends = map(torch.from_numpy, (generator.starts, generator.ends))
    return ((z[:, :1] > starts) & (z[:, :1] < ends)).any(dim=1)


@pytest.mark.parametrize("components", [1, 2, 7, 256])
def test_the_generator_is_exact_off_its_ramps(components):
    """Equal to a mean plus noise but for rounding; its units and numbers are counted."""
    mixture = SphereMixture.random(components, 16, sigma=0.1)
    generator = MixtureGenerator(mixture, accuracy=0.2)
    z = inputs(4000, 16)
    off = (generator(z) - coupled(generator, z)).norm(dim=1)
    ramp = on_a_ramp(generator, z)
    assert off[~ramp].max() < 1e-12
    if components > 1:
        assert abs(ramp.double().mean() - 0.2) < 5 * sqrt(0.16 / 4000)
        assert off[ramp].min() > 0 and off[ramp].mean() > 0.1
    widths = generator.network[0].out_features + generator.network[2].out_features
    assert generator.hidden_units == widths == 2 * (components - 1) + 64
    assert generator.numbers == (components - 1) * (16 + 4) + 7 * 16


@pytest.mark.slow
@pytest.mark.parametrize(("components", "accuracy"), [(2, 0.45), (5, 0.5), (32, 0.05)])
def test_the_generators_bound_is_the_mean_difference_of_coupled_points(components, accuracy):
    """200,000 samples; five standard errors, each below 3 %."""
    generator = MixtureGenerator(SphereMixture.random(components, 4, seed=1), accuracy=accuracy)
    z = inputs(200_000, 4)
    with torch.no_grad():
        off = (generator(z) - coupled(generator, z)).norm(dim=1)
    error = off.std().item() / sqrt(len(off))
    assert abs(off.mean().item() - generator.wasserstein_bound()) < 5 * error
    assert error < 0.03 * generator.wasserstein_bound()


@pytest.mark.parametrize("accuracy", [1e-3, 1e-6, 1e-9])
def test_the_generators_bound_is_a_quarter_of_the_accuracy_for_narrow_ramps(accuracy):
    """Times the mean step; in 32 features within a hundredth of the mean distance by default."""
    mixture = SphereMixture.random(9, 4)
    step = mixture.means.diff(dim=0).norm(dim=1).mean().item()
    bound = MixtureGenerator(mixture, accuracy=accuracy).wasserstein_bound()
    assert bound == pytest.approx(accuracy / 4 * step, rel=1e-3)
    larger = SphereMixture.random(256, 32)
    assert 0 < MixtureGenerator(larger).wasserstein_bound() < 0.01 * larger.mean_distance()


@pytest.mark.parametrize("accuracy", [1e-2, 1e-6])
def test_in_float32_steep_ramps_do_not_spoil_the_others(accuracy):
    """Off the ramps rounding alone remains, where a difference of two ReLUs has large errors."""
    mixture = SphereMixture.random(256, 32)
    generator = MixtureGenerator(mixture, accuracy=accuracy)
    z = inputs(2000, 32).float().double()
    nearby = on_a_ramp(MixtureGenerator(mixture, accuracy=accuracy + 1e-3), z)
    with torch.no_grad():
        off = (generator.float()(z.float()) - coupled(generator, z)).norm(dim=1)
    assert off[~nearby].max() < 1e-5


@pytest.mark.parametrize(("accuracy", "match"), [(0.75, "would meet"), (1e-15, "narrower")])
def test_ramps_that_cannot_be_are_refused(accuracy, match):
    """In one sentence."""
    with pytest.raises(ArgumentError, match=match):
        MixtureGenerator(SphereMixture.random(4, 2), accuracy=accuracy)


@pytest.mark.parametrize("cosine", [-0.99, -0.4, 0.0, 0.2, 0.7, 0.999])
def test_caps_and_codes_of_a_circle_and_of_a_sphere_are_known(cosine):
    """The angle over pi, and half of the height; the guarantee must not exceed the truth."""
    assert cap_share(cosine, 2) == pytest.approx(acos(cosine) / pi, abs=1e-12)
    assert cap_share(cosine, 3) == pytest.approx((1 - cosine) / 2, abs=1e-12)
    truth = int(2 * pi / acos(cosine) + 1e-9)
    assert max(1, truth / 2 - 1) <= code_size(cosine, 2) <= truth


@pytest.mark.parametrize(("cosine", "features"), [(0.3, 8), (-0.2, 16), (0.0, 5)])
def test_caps_hold_their_share_of_samples(cosine, features):
    """200,000 points; five standard deviations."""
    share = cap_share(cosine, features)
    sampled = (uniform(200_000, features)[:, 0] >= cosine).mean()
    assert abs(sampled - share) < 5 * sqrt(share * (1 - share) / 200_000)


def test_known_codes_are_not_exceeded():
    """The kissing numbers are the largest codes of cosine 1/2; the rate is -log(1 - s^2) / 2."""
    for features, most in ((3, 12), (8, 240), (24, 196560)):
        assert 1 < code_size(0.5, features) <= most
    rate = (np.log(code_size(0.5, 400)) - np.log(code_size(0.5, 200))) / 200
    assert rate == pytest.approx(-np.log(0.75) / 2, rel=0.02)
    assert code_size(0.9, 10_000) == 1e300
    assert code_size(0.6, 12) == np.floor(1 / cap_share(0.6, 12))


@pytest.mark.parametrize(("points", "features"), [(1, 2), (5, 4), (64, 16)])
def test_the_nearest_of_k_is_as_near_as_samples_say(points, features):
    """4,000 samples of k points; five standard errors."""
    sampled = uniform(4000 * points, features, seed=3).reshape(4000, points, features)
    nearest = np.sqrt(2 - 2 * sampled[:, :, 0].max(axis=1))
    off = nearest.mean() - nearest_distance(points, features)
    assert abs(off) < 5 * nearest.std() / sqrt(4000)
    assert nearest_distance(1, 3) == pytest.approx(4 / 3, rel=1e-9)


@pytest.mark.parametrize("features", [1, 7, 64])
def test_the_mean_norm_of_a_gaussian_is_an_integral(features):
    """Of r^d exp(-r^2 / 2), over that of r^(d - 1) exp(-r^2 / 2)."""
    r = np.linspace(0, 25, 200_001)[1:]
    weights = np.exp((features - 1) * np.log(r) - r * r / 2 - 0.5 * features * np.log(features))
    mean = (weights * r).sum() / weights.sum()
    assert gaussian_norm(features) == pytest.approx(mean, rel=1e-6 if features > 1 else 1e-3)


@pytest.mark.parametrize(("code", "k", "different"), [(9, 3, 2), (12, 4, 3), (9, 4, 1), (8, 4, 4)])
def test_so_many_sets_there_are(code, k, different):
    """The greedy choice finds at least as many as the formula promises; 1 is always one."""
    chosen = []
    for candidate in map(set, combinations(range(code), k)):
        if all(k - len(candidate & other) >= different for other in chosen):
            chosen.append(candidate)
    shared = range(k - different + 1, k + 1)
    excluded = sum(comb(k, j) * comb(code - k, k - j) for j in shared)
    expected = max(0, log(comb(code, k) / excluded))
    assert _log_sets(float(code), k, different) == pytest.approx(expected, abs=1e-9)
    assert len(chosen) >= comb(code, k) / excluded
    assert _log_sets(5.0, 5, 1) == 0  # binomials of nothing are zeros


def test_the_family_is_the_largest_that_keeps_the_distance():
    """For every a by hand: (a / k) (1 - s - sigma sqrt(2 log k)) is the distance."""
    family, noise = mixture_packing(16, 16, distance=0.1), 0.05 * sqrt(2 * log(16))
    assert family.different / 16 * (1 - family.cosine - noise) == pytest.approx(0.1)
    assert family.code == code_size(family.cosine, 16)
    assert family.log_count == _log_sets(family.code, 16, family.different)
    for different in range(1, 17):
        cosine = 1 - 0.1 * 16 / different - noise
        if cosine > -1 and code_size(cosine, 16) >= 16:
            assert _log_sets(code_size(cosine, 16), 16, different) <= family.log_count
    for k, d in ((32, 64), (64, 64), (128, 96), (256, 128)):
        assert 0.06 < mixture_packing(k, d, distance=0.1).log_count / (k * d) < 0.15


def test_two_such_mixtures_are_so_far_apart():
    """By samples: the 1-Lipschitz function of the proof differs by more than the bound."""
    points = SphereMixture.random(400, 24, seed=3).means
    cosine, sigma, k = 0.5, 0.1, 16
    code = []
    for point in points:
        if all((point @ other).item() <= cosine for other in code):
            code.append(point)
    first, second = torch.stack(code[:k]), torch.stack(code[4 : k + 4])  # 4 means of 16 differ

    def f(x):
        return (x @ first[:4].T).max(dim=1).values

    generator = seeded()
    x, y = (
        SphereMixture(means, sigma).sample(40_000, generator=generator)
        for means in (first, second)
    )
    apart = (f(x).mean() - f(y).mean()).item()
    error = ((f(x).var() + f(y).var()) / 40_000).sqrt().item()
    bound = 4 / k * (1 - cosine - sigma * sqrt(2 * log(k)))
    assert bound > 0.05 and apart > bound - 4 * error


def test_farther_apart_there_are_fewer():
    """Down to none."""
    counts = [mixture_packing(16, 16, distance=w).log_count for w in (0.05, 0.1, 0.15, 0.2)]
    assert counts == sorted(counts, reverse=True) and counts[0] > 5 * counts[-1] > 0
    for beyond in (0.3, 1.9):  # a single mixture is no family, and no cosine is below -1
        with pytest.raises(ArgumentError, match=f"'distance' should be smaller, got {beyond}"):
            mixture_packing(16, 16, distance=beyond)


@pytest.mark.parametrize("sigma", [0.05, 0.3, 1.0])
def test_on_the_line_the_distance_is_between_the_bounds(sigma):
    """Where it is the area between the distribution functions."""
    first, second = (
        SphereMixture(torch.tensor(means)[:, None], sigma)
        for means in ([1.0, 1.0, 1.0, -1.0], [1.0, -1.0, -1.0, -1.0])
    )
    x = torch.linspace(-9, 9, 100_001, dtype=torch.float64)[:, None]
    step = 18 / 100_000
    apart = (first.log_prob(x).exp() - second.log_prob(x).exp()).cumsum(0) * step
    lower, upper = wasserstein_bounds(first, second)
    assert upper == pytest.approx(1)
    assert lower <= apart.abs().sum().item() * step <= upper + 1e-6


def test_the_second_lower_bound_holds_and_helps_in_many_dimensions():
    """The function of the proof, by samples; 2 sigma E |z| would say less here."""
    k, d, sigma = 16, 64, 0.06
    first, second = pair(k, d, sigma=sigma)
    lower, upper = wasserstein_bounds(first, second)
    generator = seeded()
    x, y = (mixture.sample(20_000, generator=generator) for mixture in (first, second))
    truths = [
        (a @ means.T).max(dim=1).values.mean() - (b @ means.T).max(dim=1).values.mean()
        for a, b, means in ((x, y, first.means), (y, x, second.means))
    ]
    assert upper - 2 * sigma * gaussian_norm(d) < lower < max(truths).item() + 0.01
    assert wasserstein_bounds(second, first) == pytest.approx((lower, upper))
    nearest = [(first.means @ second.means.T).max(dim=i).values.mean().item() for i in (0, 1)]
    assert lower == pytest.approx(1 - min(nearest) - sigma * sqrt(2 * log(k)))


def test_both_bounds_meet_for_equal_and_for_narrow_mixtures():
    """In any order of the means."""
    mixture = SphereMixture.random(6, 4)
    assert wasserstein_bounds(mixture, SphereMixture(mixture.means.flip(0), 0.05)) == (0, 0)
    lower, upper = wasserstein_bounds(*pair(8, 8, sigma=1e-9))
    assert 0.5 < lower == pytest.approx(upper, rel=1e-7)


@pytest.mark.parametrize(("k", "d"), [(4, 8), (16, 8), (16, 32)])
def test_random_tuples_are_as_far_apart_as_predicted(k, d):
    """20 of them: the smallest distance is above the prediction, the mean above the nearest."""
    tuples = [SphereMixture.random(k, d, seed=seed).means for seed in range(20)]
    apart = [wasserstein(a, b, order=1) for i, a in enumerate(tuples) for b in tuples[:i]]
    nearest, smallest = random_family(k, d, 20)
    assert 0 < smallest < min(apart)
    assert nearest == nearest_distance(k, d) < np.mean(apart) < 1.35 * nearest
    spread = sqrt(4 * log(190 / 0.05) / ((d - 1) * k))
    assert smallest == pytest.approx(nearest - spread)
    assert random_family(1, 2, 10**6)[1] == 0
