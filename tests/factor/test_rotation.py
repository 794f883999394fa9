"""Rotations in closed form, for two halves and for parts of different sizes."""

import itertools

import numpy as np
import pytest

from factor.ensembles import (
    block_diagonal,
    cycle,
    nearest,
    orthogonal,
    positive,
    product,
    relative,
    sharp,
)
from kappaflow.factor.coupling import two_by_two_condition, unit_factors
from kappaflow.factor.factorization import residuals
from kappaflow.factor.rotation import (
    UNIT_BOUND,
    commutator,
    factor_rotation,
    rotation_solution,
    uneven_rotation_blocks,
)
from kappaflow.factor.svd import factor_svd

NORMS = (2 + 2**0.5, 1, 2**0.5, 2, 2, 1)  # of the six blocks, as the proof bounds them
SLACK = 1 + 1e-9


WEIGHT_BOUND = ((2 + 2**0.5) ** 2 + 1) ** 0.5
SIZES = [(1, 2), (2, 3), (3, 4), (7, 8), (1, 3), (2, 4), (1, 5), (3, 7)]


def check(rotation, tolerance=1e-14):
    """Checks the six blocks against the theorem; returns the worst condition number."""
    six = factor_rotation(rotation)
    norms = [np.linalg.norm(block, 2) for block in six]
    assert relative(product(unit_factors(six)), rotation) <= tolerance
    assert all(norm <= bound * SLACK + 1e-12 for norm, bound in zip(norms, NORMS, strict=True))
    return max(two_by_two_condition(norm, 1.0) for norm in norms)


@pytest.mark.slow
def test_thousands_of_random_rotations_keep_the_bound():
    """Sizes 2 to 20, each block within its own bound."""
    rng = np.random.default_rng(0)
    worst = max(check(orthogonal(2 * rng.integers(1, 11), rng)) for _ in range(3000))
    assert 9 < worst <= UNIT_BOUND  # near enough to the bound that it says something


@pytest.mark.slow
@pytest.mark.parametrize("n", [2, 4, 6])
def test_every_even_permutation_and_every_signed_odd_one_keeps_the_bound(n):
    """Odd ones with the last row negated."""
    for order in itertools.permutations(range(n)):
        check(positive(np.eye(n)[list(order)]), tolerance=3e-15)


def angles(*thetas):
    """Returns the rotation by these angles, plane by plane, the planes within the halves."""
    planes = [[[np.cos(t), -np.sin(t)], [np.sin(t), np.cos(t)]] for t in thetas]
    return block_diagonal(*planes)


@pytest.mark.parametrize(
    "rotation",
    [
        np.eye(8),
        -np.eye(8),
        -np.eye(2),
        cycle(8, 3),
        cycle(6, 3),
        block_diagonal(-np.eye(4), np.eye(4)),
        block_diagonal(np.eye(4), -np.eye(4)),
        np.roll(np.eye(8), 4, axis=0),
        positive(np.roll(np.eye(8), 1, axis=0)),
        angles(1e-9, -1e-9, np.pi - 1e-9, np.pi),
        angles(np.pi, np.pi, 1e-14, -1e-14),
        angles(0.5, 0.5, 0.5, 0.5),
    ],
    ids=str,
)
def test_degenerate_rotations_keep_the_bound(rotation):
    """Zero sines and cosines, repeated ones, pairs of eigenvalues -1, 1 and next to them."""
    check(rotation)
    mixed = orthogonal(len(rotation), np.random.default_rng(3))
    check(mixed @ rotation @ mixed.T)


def test_nearly_degenerate_rotations_keep_the_bound():
    """Perturbed by 1e-16 to 1e-2, which is where eigenvalues of N meet at 1 and at -1."""
    rng = np.random.default_rng(1)
    for base in (np.eye(8), -np.eye(8), cycle(8, 3), angles(np.pi, 0.0, np.pi, 1e-12)):
        for size in np.geomspace(1e-16, 1e-2, 8):
            check(positive(nearest(base + size * rng.standard_normal((8, 8)))))


def test_the_start_solves_theorem_c():
    """K (X Sh - Qh) = Z K Z^-1 (P X + Q), with orthogonal K and Z."""
    rotation = sharp(8) @ orthogonal(8, np.random.default_rng(6))
    x, k, z = rotation_solution(rotation)
    inverse = rotation.T
    left = k @ (x @ inverse[4:, 4:] - inverse[:4, 4:])
    right = z @ k @ z.T @ (rotation[:4, :4] @ x + rotation[:4, 4:])
    np.testing.assert_allclose(left, right, atol=1e-13)


@pytest.mark.parametrize("n", [1, 2, 3, 7, 8])
def test_a_rotation_is_a_commutator(n):
    """N = K^-1 Z K Z^-1, and K turns no plane by more than a right angle."""
    rotation = orthogonal(n, np.random.default_rng(n))
    k, z = commutator(rotation)
    np.testing.assert_allclose(k.T @ z @ k @ z.T, rotation, atol=1e-13)
    assert np.linalg.norm(k - np.eye(n), 2) <= 2**0.5 * SLACK


def check_uneven(rotation, small):
    """Checks the number of factors, the bound and the product; returns the number."""
    blocks = uneven_rotation_blocks(rotation, small)
    excess = len(rotation) - 2 * small
    assert len(blocks) % 2 == 0
    assert len(blocks) <= 6 + 6 * excess
    assert max(np.linalg.norm(block, 2) for block in blocks) <= WEIGHT_BOUND * (1 + 1e-9)
    assert relative(product(unit_factors(blocks)), rotation) < 1e-13
    return len(blocks)


@pytest.mark.slow
@pytest.mark.parametrize(("small", "large"), SIZES)
def test_random_rotations_keep_the_bound(small, large):
    """Weights of at most sqrt((2 + sqrt 2)^2 + 1), and two or more factors for each direction."""
    rng = np.random.default_rng(small)
    counts = [check_uneven(orthogonal(small + large, rng), small) for _ in range(20)]
    assert min(counts) >= 6 + 2 * (large - small)


@pytest.mark.slow
@pytest.mark.parametrize(("small", "n"), [(1, 3), (2, 5), (1, 4)])
def test_every_signed_permutation_of_determinant_one_keeps_the_bound(small, n):
    """Identity, -1 and everything between, where planes and eigenvalues degenerate."""
    for order in itertools.permutations(range(n)):
        for signs in itertools.product((1.0, -1.0), repeat=n):
            matrix = np.eye(n)[list(order)] * np.array(signs)
            if np.linalg.det(matrix) > 0:
                check_uneven(matrix, small)


@pytest.mark.slow
@pytest.mark.parametrize(("small", "large"), SIZES)
def test_any_map_has_a_closed_form_in_uneven_parts(small, large):
    """Two of its factors carry its condition number, at most ten times; the product is right."""
    rng = np.random.default_rng(3)
    matrix = positive(rng.standard_normal((small + large, small + large)))
    factors = factor_svd(matrix, small)
    assert len(factors) <= 11 + 12 * (large - small)
    assert residuals(factors, matrix)[0] < 1e-13
    worst = max(np.linalg.cond(factor.matrix) for factor in factors)
    assert worst <= max(10 * np.linalg.cond(matrix), 15)
