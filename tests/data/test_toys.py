"""The two-dimensional sets that are drawn: their densities, their shapes, their names."""

import math

import numpy as np
import pytest
from scipy.stats import kstest

from kappaflow.data import load_table, toy, toy_log_prob, toy_names, toy_sets
from kappaflow.errors import ArgumentError

NAMES = (
    "eight_gaussians", "four_gaussians", "two_moons", "swiss_roll", "checkerboard", "rings",
    "pinwheel",
)  # fmt: skip
CLOSED = ("eight_gaussians", "four_gaussians", "checkerboard", "rings")
SIDE, CELLS = 10.0, 600


@pytest.fixture(scope="module")
def plane():
    """Middles of small squares that fill a large one."""
    line = SIDE * ((np.arange(CELLS) + 0.5) / CELLS - 0.5)
    return np.stack(np.meshgrid(line, line), -1).reshape(-1, 2)


def test_the_sets_are_those_that_are_named():
    """In this order."""
    assert toy_names() == NAMES
    assert tuple(toy_set.name for toy_set in toy_sets() if toy_set.log_prob is not None) == CLOSED


@pytest.mark.parametrize("name", NAMES)
def test_points_follow_from_the_seed(name):
    """Two columns of finite numbers; another seed gives others."""
    table = toy(name, 200, seed=3)
    assert table.values.shape == (200, 2) and table.columns == ("x0", "x1")
    assert np.isfinite(table.values).all() and np.abs(table.values).max() < 10
    assert table.fingerprint() == toy(name, 200, seed=3).fingerprint()
    assert table.fingerprint() != toy(name, 200, seed=4).fingerprint()
    assert table.source == name and table.rows[0] == 1


@pytest.mark.parametrize("name", CLOSED)
def test_a_density_integrates_to_one(name, plane):
    """Over a plane of small squares."""
    total = np.exp(toy_log_prob(name, plane)).sum() * (SIDE / CELLS) ** 2
    assert total == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("name", CLOSED)
def test_points_have_the_density_that_is_said(name, plane):
    """Along two directions, by a Kolmogorov-Smirnov test; no point lies where there is none."""
    points = toy(name, 20_000, seed=1).values
    weight = np.exp(toy_log_prob(name, plane)) * (SIDE / CELLS) ** 2
    assert np.isfinite(toy_log_prob(name, points)).all()
    for direction in ([1.0, 0.0], [math.cos(1), math.sin(1)]):
        along = plane @ direction
        order = np.argsort(along)
        below = np.cumsum(weight[order])
        test = kstest(points @ direction, lambda t: np.interp(t, along[order], below))  # noqa: B023
        assert test.pvalue > 1e-3


def test_moons_and_rolls_lie_near_their_curves():
    """Within five deviations of the noise, one in a thousand apart."""
    moons = toy("two_moons", 5000).values
    off = np.minimum(np.abs(np.hypot(*moons.T) - 1), np.abs(np.hypot(*(moons - [1.0, 0.5]).T) - 1))
    assert np.quantile(off, 0.999) < 0.5
    roll = toy("swiss_roll", 5000).values
    angle = np.linspace(1.5, 4.5, 4000) * math.pi
    curve = angle[:, None] * np.stack([np.cos(angle), np.sin(angle)], 1) / 5
    off = np.sqrt(((roll[:500, None] - curve) ** 2).sum(2)).min(1)
    assert off.max() < 0.5 and off.mean() > 0.05


def test_a_pinwheel_has_five_equal_arms():
    """Turned by a fifth of a circle it is the same set: moments of the angle tell."""
    points = toy("pinwheel", 50_000).values
    turn = np.exp(1j * np.arctan2(points[:, 1], points[:, 0]))
    moments = [abs((turn**k).mean()) for k in range(1, 6)]
    assert max(moments[:4]) < 5 / math.sqrt(50_000) < 0.1 < moments[4]


def test_a_set_is_loaded_by_its_name():
    """As a shipped one is; columns can be chosen and rows left out."""
    table = load_table("two_moons", where="x0<0")
    assert len(load_table("two_moons")) == 10_000
    assert table.columns == ("x0", "x1") and table.values[:, 0].max() < 0
    assert np.array_equal(load_table("two_moons").values, toy("two_moons").values)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: toy("moons"), "'name' should be one of eight_gaussians, .* got 'moons'"),
        (lambda: toy("rings", 0), "'n' should be at least 1"),
        (lambda: toy("rings", 2.5), "'n' should be a whole number"),
        (lambda: toy("rings", 2, seed=-1), "'seed' should be at least 0"),
        (lambda: toy_log_prob("two_moons", np.zeros((1, 2))), "whose density has a closed form"),
        (lambda: toy_log_prob("rings", np.zeros(2)), "'x' should have shape .points, 2., got .2,"),
    ],
)
def test_wrong_arguments_are_refused(call, message):
    """In one sentence."""
    with pytest.raises(ArgumentError, match=message):
        call()
