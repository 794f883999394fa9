"""Rotations in parts of different sizes: a bounded closed form, for any two sizes."""

import itertools

import numpy as np
import pytest

from factor.ensembles import orthogonal, positive, product, relative
from kappaflow.factor.eleven import factor_eleven
from kappaflow.factor.factors import unit_factors
from kappaflow.factor.peel import rotation_blocks
from kappaflow.factor.residual import relative_residual
from kappaflow.factor.spread import spread

WEIGHT_BOUND = ((2 + 2**0.5) ** 2 + 1) ** 0.5
SIZES = [(1, 2), (2, 3), (3, 4), (7, 8), (1, 3), (2, 4), (1, 5), (3, 7)]


def check(rotation, small):
    """Holds the factors to count, bound and product; returns how many there are."""
    blocks = rotation_blocks(rotation, small)
    excess = len(rotation) - 2 * small
    assert len(blocks) % 2 == 0
    assert len(blocks) <= 6 + 6 * excess
    assert max(np.linalg.norm(block, 2) for block in blocks) <= WEIGHT_BOUND * (1 + 1e-9)
    assert relative(product(unit_factors(blocks)), rotation) < 1e-13
    return len(blocks)


@pytest.mark.parametrize(("small", "large"), SIZES)
def test_random_rotations_keep_the_bound(small, large):
    """Weights of at most sqrt((2 + sqrt 2)^2 + 1), and two or more factors for each direction."""
    rng = np.random.default_rng(small)
    counts = [check(orthogonal(small + large, rng), small) for _ in range(20)]
    assert min(counts) >= 6 + 2 * (large - small)


@pytest.mark.parametrize(("small", "n"), [(1, 3), (2, 5), (1, 4)])
def test_every_signed_permutation_of_determinant_one_keeps_the_bound(small, n):
    """Identity, -1 and everything between, where planes and eigenvalues degenerate."""
    for order in itertools.permutations(range(n)):
        for signs in itertools.product((1.0, -1.0), repeat=n):
            matrix = np.eye(n)[list(order)] * np.array(signs)
            if np.linalg.det(matrix) > 0:
                check(matrix, small)


def test_scales_bring_the_factors_of_odd_sizes_to_those_of_even_ones():
    """Below 6.98, where the unit ones reach 14."""
    rng = np.random.default_rng(2)
    for _ in range(10):
        factors = spread(unit_factors(rotation_blocks(orthogonal(9, rng), 4)))
        assert max(np.linalg.cond(factor.matrix) for factor in factors) < 6.98


@pytest.mark.parametrize(("small", "large"), SIZES)
def test_any_map_has_a_closed_form_in_uneven_parts(small, large):
    """Two of its factors carry its condition number, at most ten times; the product is right."""
    rng = np.random.default_rng(3)
    matrix = positive(rng.standard_normal((small + large, small + large)))
    factors = factor_eleven(matrix, small)
    assert len(factors) <= 11 + 12 * (large - small)
    assert relative_residual(factors, matrix) < 1e-13
    worst = max(np.linalg.cond(factor.matrix) for factor in factors)
    assert worst <= max(10 * np.linalg.cond(matrix), 15)
