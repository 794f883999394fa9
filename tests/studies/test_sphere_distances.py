"""Distances between mixtures, against brute force, the line, and draws."""

from itertools import permutations
from math import log, sqrt

import numpy as np
import pytest
import torch

from kappaflow.errors import ArgumentError
from kappaflow_studies.sphere.distances import matching_distance, random_family, wasserstein_bounds
from kappaflow_studies.sphere.mixture import SphereMixture
from kappaflow_studies.sphere.packing import gaussian_norm, nearest_distance


def test_the_matching_is_the_best_of_all():
    """All 120 of five means."""
    one, other = (SphereMixture.random(5, 3, seed=seed).means for seed in (0, 1))
    best = min((one[list(order)] - other).norm(dim=1).mean() for order in permutations(range(5)))
    assert matching_distance(one, other) == pytest.approx(best.item())


@pytest.mark.parametrize("sigma", [0.05, 0.3, 1.0])
def test_on_the_line_the_distance_is_between_the_bounds(sigma):
    """Where it is the area between the distribution functions."""
    one, other = (
        SphereMixture(torch.tensor(means)[:, None], sigma)
        for means in ([1.0, 1.0, 1.0, -1.0], [1.0, -1.0, -1.0, -1.0])
    )
    x = torch.linspace(-9, 9, 100_001, dtype=torch.float64)[:, None]
    step = 18 / 100_000
    apart = (one.log_prob(x).exp() - other.log_prob(x).exp()).cumsum(0) * step
    truth = apart.abs().sum().item() * step
    lower, upper = wasserstein_bounds(one, other)
    assert upper == pytest.approx(1)
    assert lower <= truth <= upper + 1e-6
    assert truth == pytest.approx(1, rel=1e-4)  # it is one, since all mass moves one way


def test_the_second_lower_bound_holds_and_helps_in_many_dimensions():
    """The function of the proof, by draws; 2 sigma E |z| would say less here."""
    k, d, sigma = 16, 64, 0.06
    one, other = (SphereMixture.random(k, d, sigma=sigma, seed=seed) for seed in (0, 1))
    lower, upper = wasserstein_bounds(one, other)
    generator = torch.Generator().manual_seed(0)
    x, y = (mixture.sample(20_000, generator=generator) for mixture in (one, other))
    truths = [
        (a @ means.T).max(dim=1).values.mean() - (b @ means.T).max(dim=1).values.mean()
        for a, b, means in ((x, y, one.means), (y, x, other.means))
    ]
    assert upper - 2 * sigma * gaussian_norm(d) < lower < max(truths).item() + 0.01
    assert wasserstein_bounds(other, one) == pytest.approx((lower, upper))
    nearest = [(one.means @ other.means.T).max(dim=i).values.mean().item() for i in (0, 1)]
    assert lower == pytest.approx(1 - min(nearest) - sigma * sqrt(2 * log(k)))


def test_a_mixture_is_no_distance_from_itself():
    """In any order of its means."""
    mixture = SphereMixture.random(6, 4)
    assert wasserstein_bounds(mixture, SphereMixture(mixture.means.flip(0), 0.05)) == (0, 0)


def test_narrow_mixtures_are_as_far_apart_as_their_means():
    """Both bounds meet."""
    one, other = (SphereMixture.random(8, 8, sigma=1e-9, seed=seed) for seed in (0, 1))
    lower, upper = wasserstein_bounds(one, other)
    assert 0.5 < lower == pytest.approx(upper, rel=1e-7)


@pytest.mark.parametrize(("k", "d"), [(4, 8), (16, 8), (16, 32)])
def test_random_tuples_are_as_far_apart_as_predicted(k, d):
    """20 of them: the smallest distance is above the prediction, the mean above the nearest."""
    tuples = [SphereMixture.random(k, d, seed=seed).means for seed in range(20)]
    apart = [matching_distance(a, b) for i, a in enumerate(tuples) for b in tuples[:i]]
    family = random_family(k, d, 20)
    assert 0 < family.smallest < min(apart)
    assert family.nearest == nearest_distance(k, d) < np.mean(apart)
    assert np.mean(apart) < 1.35 * family.nearest


def test_the_spread_is_the_one_of_the_formula():
    """With 45 pairs of ten, and more for more confidence."""
    family = random_family(8, 16, 10, radius=2.0, confidence=0.9)
    assert family.spread == pytest.approx(2 * sqrt(4 * log(450) / (15 * 8)))
    assert family.smallest == family.nearest - family.spread
    assert random_family(8, 16, 10, confidence=0.99).spread > family.spread / 2
    assert random_family(1, 2, 10**6).smallest == 0


def test_distances_concentrate_as_fast_as_the_inequality_says():
    """The standard deviation over 200 pairs is below r sqrt(2 / ((d - 1) k))."""
    for k, d in ((4, 6), (16, 24)):
        apart = [
            matching_distance(
                SphereMixture.random(k, d, seed=2 * i).means,
                SphereMixture.random(k, d, seed=2 * i + 1).means,
            )
            for i in range(200)
        ]
        assert np.std(apart) < sqrt(2 / ((d - 1) * k))


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: random_family(4, 8, 1), "'tuples' should be at least 2, got 1"),
        (lambda: random_family(4, 1, 5), "'features' should be at least 2"),
        (lambda: random_family(4, 8, 5, confidence=1.0), "'confidence' should be above 0"),
        (lambda: _unlike(5, 3, 0.1), "same components, got 5 and 4"),
        (lambda: _unlike(4, 2, 0.1), "same features, got 2 and 3"),
        (lambda: _unlike(4, 3, 0.2), "same sigma, got 0.2 and 0.1"),
    ],
)
def test_what_cannot_be_compared_is_refused(call, match):
    """In one sentence."""
    with pytest.raises(ArgumentError, match=match):
        call()


def _unlike(k, d, sigma):
    one = SphereMixture.random(4, 3, sigma=0.1)
    return wasserstein_bounds(one, SphereMixture.random(k, d, sigma=sigma))
