"""Caps, codes and nearest neighbors, against closed forms and draws."""

from math import acos, pi, sqrt

import numpy as np
import pytest

from kappaflow.errors import ArgumentError
from kappaflow_studies.sphere.packing import cap_share, code_size, gaussian_norm, nearest_distance

COSINES = [-0.99, -0.4, 0.0, 0.2, 0.7, 0.999]


def uniform(count, features, seed=0):
    """Returns uniform points of the unit sphere."""
    points = np.random.default_rng(seed).standard_normal((count, features))
    return points / np.linalg.norm(points, axis=1, keepdims=True)


@pytest.mark.parametrize("cosine", COSINES)
def test_caps_of_a_circle_and_of_a_sphere_are_known(cosine):
    """The angle over pi, and half of the height."""
    assert cap_share(cosine, 2) == pytest.approx(acos(cosine) / pi, abs=1e-12)
    assert cap_share(cosine, 3) == pytest.approx((1 - cosine) / 2, abs=1e-12)


@pytest.mark.parametrize(("cosine", "features"), [(0.3, 8), (-0.2, 16), (0.0, 5)])
def test_caps_hold_their_share_of_draws(cosine, features):
    """200,000 points; five standard deviations."""
    share = cap_share(cosine, features)
    drawn = (uniform(200_000, features)[:, 0] >= cosine).mean()
    assert abs(drawn - share) < 5 * sqrt(share * (1 - share) / 200_000)


@pytest.mark.parametrize("cosine", [-0.3, 0.1, 0.5, 0.9, 0.999])
def test_a_circle_has_room_for_that_many_points(cosine):
    """At most one each arccos(s): the guarantee must not exceed the truth."""
    truth = int(2 * pi / acos(cosine) + 1e-9)
    assert 1 <= code_size(cosine, 2) <= truth
    assert code_size(cosine, 2) >= truth / 2 - 1


def test_known_codes_are_not_exceeded():
    """The kissing numbers are the largest codes of cosine 1/2 in 3, 8 and 24 dimensions."""
    for features, most in ((3, 12), (8, 240), (24, 196560)):
        assert 1 < code_size(0.5, features) <= most


def test_codes_grow_exponentially_and_stay_finite():
    """Their logarithm over d goes to -log(1 - s^2) / 2; what cannot be counted is cut off."""
    rate = (np.log(code_size(0.5, 400)) - np.log(code_size(0.5, 200))) / 200
    assert rate == pytest.approx(-np.log(0.75) / 2, rel=0.02)
    assert code_size(0.9, 10_000) == 1e300


@pytest.mark.parametrize(("points", "features"), [(1, 2), (5, 4), (64, 16)])
def test_the_nearest_of_k_is_as_near_as_draws_say(points, features):
    """4,000 draws of k points; five standard errors."""
    drawn = uniform(4000 * points, features, seed=3).reshape(4000, points, features)
    nearest = np.sqrt(2 - 2 * drawn[:, :, 0].max(axis=1))
    off = nearest.mean() - nearest_distance(points, features)
    assert abs(off) < 5 * nearest.std() / sqrt(4000)


def test_the_mean_distance_of_two_points_is_known():
    """4 / pi on the circle, 4 / 3 on the sphere; it is proportional to the radius."""
    assert nearest_distance(1, 2) == pytest.approx(4 / pi, rel=1e-5)
    assert nearest_distance(1, 3, radius=3.0) == pytest.approx(4, rel=1e-9)


@pytest.mark.parametrize("features", [1, 2, 7, 64])
def test_the_mean_norm_of_a_gaussian_is_an_integral(features):
    """Of r^d exp(-r^2 / 2), over that of r^(d - 1) exp(-r^2 / 2)."""
    r = np.linspace(0, 25, 200_001)[1:]
    weights = np.exp((features - 1) * np.log(r) - r * r / 2 - 0.5 * features * np.log(features))
    mean = (weights * r).sum() / weights.sum()
    assert gaussian_norm(features) == pytest.approx(mean, rel=1e-6 if features > 1 else 1e-3)
    assert gaussian_norm(features) < sqrt(features)


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: cap_share(1.5, 3), "'cosine' should be from -1 to 1"),
        (lambda: cap_share(float("nan"), 3), "'cosine' should be a finite number"),
        (lambda: code_size(0.5, 1), "'features' should be at least 2"),
        (lambda: nearest_distance(0, 3), "'points' should be at least 1"),
        (lambda: nearest_distance(3, 3, radius=-1.0), "'radius' should be a finite number above"),
        (lambda: gaussian_norm(0), "'features' should be at least 1"),
    ],
)
def test_what_is_no_sphere_is_refused(call, match):
    """In one sentence."""
    with pytest.raises(ArgumentError, match=match):
        call()
