"""The family of mixtures that are far apart, against what can be counted and drawn."""

from itertools import combinations
from math import comb, log, sqrt

import numpy as np
import pytest
import torch

from kappaflow.errors import ArgumentError
from kappaflow_studies.sphere.mixture import SphereMixture
from kappaflow_studies.sphere.packing import _log_sets, cap_share, code_size, mixture_packing


@pytest.mark.parametrize(("code", "k", "different"), [(9, 3, 2), (12, 4, 3), (9, 4, 1), (8, 4, 4)])
def test_so_many_sets_there_are(code, k, different):
    """The greedy choice finds at least as many as the formula promises; 1 is always one."""
    chosen = []
    for one in map(set, combinations(range(code), k)):
        if all(k - len(one & other) >= different for other in chosen):
            chosen.append(one)
    shared = range(k - different + 1, k + 1)
    excluded = sum(comb(k, j) * comb(code - k, k - j) for j in shared)
    assert _log_sets(float(code), k, different) == pytest.approx(
        max(0, log(comb(code, k) / excluded)), abs=1e-9
    )
    assert len(chosen) >= comb(code, k) / excluded


def test_a_code_as_small_as_the_sets_has_one_set():
    """Or little more; binomials of nothing are zeros, not errors."""
    assert _log_sets(5.0, 5, 1) == 0
    assert _log_sets(6.0, 5, 1) == pytest.approx(log(6))


def test_the_parts_of_the_family_belong_together():
    """The distance is (a / k) (r (1 - s) - sigma sqrt(2 log k)); the code is that of s."""
    family = mixture_packing(64, 24, distance=0.3, radius=2.0, sigma=0.1)
    room = 2 * (1 - family.cosine) - 0.1 * sqrt(2 * log(64))
    assert family.different / 64 * room == pytest.approx(0.3)
    assert family.code == code_size(family.cosine, 24)
    assert family.log_count == _log_sets(family.code, 64, family.different)
    assert family.bits == pytest.approx(family.log_count / log(2))


def test_no_other_number_of_different_means_gives_more():
    """For every a, by hand."""
    family = mixture_packing(16, 16, distance=0.1)
    for different in range(1, 17):
        cosine = 1 - 0.1 * 16 / different - 0.05 * sqrt(2 * log(16))
        if cosine > -1 and code_size(cosine, 16) >= 16:
            assert _log_sets(code_size(cosine, 16), 16, different) <= family.log_count


def test_two_such_mixtures_are_so_far_apart():
    """Drawn: the 1-Lipschitz function of the proof tells them apart by more than the bound."""
    generator = torch.Generator().manual_seed(0)
    points = SphereMixture.random(400, 24, seed=3).means
    cosine, sigma, k = 0.5, 0.1, 16
    code = []
    for point in points:
        if all((point @ other).item() <= cosine for other in code):
            code.append(point)
    one, two = torch.stack(code[:k]), torch.stack(code[4 : k + 4])  # 4 means of 16 differ

    def f(x):
        return (x @ one[:4].T).max(dim=1).values

    x, y = (
        SphereMixture(means, sigma).sample(40_000, generator=generator) for means in (one, two)
    )
    apart = (f(x).mean() - f(y).mean()).item()
    error = ((f(x).var() + f(y).var()) / 40_000).sqrt().item()
    bound = 4 / k * (1 - cosine - sigma * sqrt(2 * log(k)))
    assert bound > 0.05 and apart > bound - 4 * error
    assert ((f(x) - f(y)).abs() <= (x - y).norm(dim=1)).all()


def test_its_logarithm_is_proportional_to_k_d():
    """Between 0.06 and 0.15 times k d while log k is well below d."""
    for k, d in ((32, 64), (64, 64), (128, 96), (256, 128)):
        assert 0.06 < mixture_packing(k, d, distance=0.1).log_count / (k * d) < 0.15


def test_units_do_not_matter():
    """Radius, sigma and distance in metres or in feet."""
    one = mixture_packing(32, 16, distance=0.1, radius=1.0, sigma=0.05)
    two = mixture_packing(32, 16, distance=0.3, radius=3.0, sigma=0.15)
    assert one.log_count == pytest.approx(two.log_count)


def test_farther_apart_there_are_fewer():
    """Down to none that the argument could show."""
    counts = [mixture_packing(16, 16, distance=w).log_count for w in (0.05, 0.1, 0.15, 0.2)]
    assert counts == sorted(counts, reverse=True) and counts[0] > 5 * counts[-1] > 0
    for beyond in (0.3, 1.9):  # a single mixture is no family, and no cosine is below -1
        with pytest.raises(ArgumentError, match=f"'distance' should be smaller, got {beyond}"):
            mixture_packing(16, 16, distance=beyond)


def test_the_codes_are_covered_by_their_caps():
    """At least one over the share of a cap, rounded down."""
    assert code_size(0.6, 12) == np.floor(1 / cap_share(0.6, 12))
